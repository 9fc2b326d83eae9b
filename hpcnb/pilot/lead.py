"""The pilot: leads one allocation from its first second to its last, and says why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from hpcnb.model import Ending, Reason
from hpcnb.pilot.address import own_address
from hpcnb.pilot.run import Run

if TYPE_CHECKING:
    from hpcnb.link import Stream
    from hpcnb.pilot.route.gateway import Gateway

log = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two looks at whether anybody still needs the cluster."""
GRACE = 8.0
"""Seconds that the nodes have to end what they run."""
CHANGING = ("load", "nodes", "groups")
"""Events that come again and again, which the job's log does without."""
BUSY = ("waiting", "queued", "processing")
LONGEST_LINE = 16 << 20
"""Bytes of one line from the nodes: our own have 4 KiB, what others print past us may have more."""
AWAY = 86400.0
"""Seconds without the agent after which its word for its clients counts no longer: it was killed, or its laptop never woke."""
LAST_WARNING = 300.0
"""Seconds before an idle release at which it is announced."""


class Pilot:
    """Starts what the nodes run, passes on what they say, and ends with them.

    Notes
    -----
    It ends when the cluster is closed (``{"op": "close"}`` on the control stream, SIGTERM from the batch system), when a
    node says that going on makes no sense, and when nobody has been attached and nothing has run for the idle time-out. Who
    was attached when the agent was heard last is so for a day: a laptop may sleep.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._latest: dict[str, dict[str, Any]] = {}
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._attached = 0
        self._busy: set[str] = set()  # sessions in which a cell runs
        self._idle_since = self._joined_at = time.monotonic()
        self._gateway: Gateway | None = None

    async def lead(self) -> Ending:
        """Run the allocation; return how it ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, Ending(reason=Reason.CANCELLED, message="told to end"))
        # The gateway ends last, so that whoever listens hears the reason before the link goes.
        async with contextlib.AsyncExitStack() as last, contextlib.AsyncExitStack() as stack:
            # First of all, since they take longest to come up; what the link needs is imported meanwhile.
            nodes = await stack.enter_async_context(self._nodes())
            if self._run.leads:
                await last.enter_async_context(self._open_gateway())
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._listen(nodes)), group.create_task(self._watch_idleness())]
                ending = await self._ending
                self._tell({"event": "ended", **ending.to_json()})
                for task in tasks:
                    task.cancel()
        return ending

    @contextlib.asynccontextmanager
    async def _open_gateway(self) -> AsyncIterator[None]:
        from hpcnb.pilot.route.gateway import Gateway

        host = await asyncio.to_thread(own_address, self._run.launcher)
        gateway = Gateway(self._run, host, control=self._talk)
        self._run.publish("pilot.json", {"gateway": await gateway.start(), "host": socket.gethostname()})
        self._gateway = gateway
        try:
            yield
        finally:
            await gateway.close()

    @contextlib.asynccontextmanager
    async def _nodes(self) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *node_command(self._run),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        try:
            yield process
        finally:
            await _end(process)

    async def _listen(self, nodes: asyncio.subprocess.Process) -> None:
        if nodes.stdout is None:
            raise RuntimeError("the nodes' stdout is not a pipe")
        async for line in nodes.stdout:
            if event := _event(line):
                self._hear(event)
            else:
                sys.stderr.buffer.write(line)  # a library that prints past us; the job's log keeps it
        code = await nodes.wait()
        self._end(Ending(reason=Reason.FAILED, exit_code=code, message=f"the nodes' processes ended ({code})"))

    def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "session":
            (self._busy.add if event["busy"] else self._busy.discard)(event["name"])
            return
        if event["event"] not in CHANGING:
            log.info("%s", event)
        self._latest[event["event"]] = event
        self._tell(event)
        if event["event"] == "failed":
            self._end(Ending(reason=Reason.FAILED, message=event["what"], tail=event.get("tail", "")))

    def _tell(self, event: dict[str, Any]) -> None:
        for queue in self._listeners:
            if queue.full():  # only ever by summaries, and the newest is what counts
                queue.get_nowait()
            queue.put_nowait(event)

    def _end(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    async def _talk(self, stream: Stream) -> None:
        """Serve one control stream: events out, wishes in, a line of JSON each."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=256)
        for event in self._latest.values():
            queue.put_nowait(event)
        self._listeners.add(queue)
        sender = asyncio.create_task(self._send(stream, queue))
        try:
            async for wish in lines(stream):
                self._obey(wish)
        finally:
            self._listeners.discard(queue)
            sender.cancel()
            self._attached = 0

    async def _send(self, stream: Stream, queue: asyncio.Queue[dict[str, Any]]) -> None:
        while True:
            event = await queue.get()
            await stream.write(json.dumps(event).encode() + b"\n")

    def _obey(self, wish: dict[str, Any]) -> None:
        if wish["op"] == "close":
            self._end(Ending(reason=Reason.COMPLETED, message="closed"))
        elif wish["op"] == "attached":
            self._attached = int(wish["clients"])
            self._idle_since = time.monotonic()
        elif wish["op"] == "keep":
            self._idle_since = time.monotonic()

    async def _watch_idleness(self) -> None:
        limit = self._run.spec.idle_timeout
        warned = False
        while True:
            await asyncio.sleep(min(BEAT, limit / 4))
            if self._gateway is not None and self._gateway.joined:
                self._joined_at = time.monotonic()
            if self._needed():
                self._idle_since = time.monotonic()
            left = limit - (time.monotonic() - self._idle_since)
            if left <= 0:
                message = f"nobody was attached and nothing ran for {limit} s (idle-timeout)"
                self._end(Ending(reason=Reason.COMPLETED, message=message))
                return
            if (ends_soon := left < LAST_WARNING < limit) != warned:
                warned = ends_soon
                self._tell({"event": "idle", "left": left if warned else None})

    def _needed(self) -> bool:
        attached = self._attached > 0 and time.monotonic() < self._joined_at + AWAY
        tasks = self._latest.get("load", {}).get("tasks", {})
        working = bool(self._busy) or any(tasks.get(state) for state in BUSY)
        return attached or working or not self._run.leads


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


async def lines(stream: Stream) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects that come by a stream, a line each, until it ends."""
    rest = b""
    while data := await stream.read(64 << 10):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield json.loads(line)


def node_command(run: Run) -> list[str]:
    """What starts the nodes' processes: by srun on all nodes at the same time, or directly where one process is one node."""
    command = [sys.executable, "-m", "hpcnb.pilot.node", "--run-dir", run.path]
    if run.launcher != "srun":
        return command
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    cores = os.environ.get("SLURM_CPUS_ON_NODE", "1")
    srun = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--mem=0"]
    return [*srun, f"--cpus-per-task={cores}", "--kill-on-bad-exit=1", "--unbuffered", *command]


async def _end(nodes: asyncio.subprocess.Process) -> None:
    """End what runs on the nodes: their stdin ends, and so do they; told by a signal, srun would kill them on the spot."""
    if nodes.stdin is not None:
        nodes.stdin.close()
    for last_resort in (nodes.terminate, nodes.kill):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(nodes.wait(), GRACE)
            return
        with contextlib.suppress(ProcessLookupError):
            last_resort()
    with contextlib.suppress(TimeoutError):  # whoever else holds the nodes' pipe must not hold us
        await asyncio.wait_for(nodes.wait(), GRACE)


def main(path: str) -> int:
    """Lead the allocation of a run directory; the exit status is 0 when it ended as asked."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    run = Run.load(path)

    async def lead() -> Ending:
        return await Pilot(run).lead()

    try:
        ending = asyncio.run(lead())
    except Exception as exc:  # whoever reads ended.json hears of it; the job's log has the whole story
        log.exception("the pilot failed")
        ending = Ending(reason=Reason.FAILED, message=f"the pilot failed: {type(exc).__name__}: {exc}")
    run.publish("ended.json", ending.to_json())
    log.info("ended: %s", ": ".join(filter(None, [ending.reason, ending.message])))
    return 0 if ending.reason is Reason.COMPLETED else 1
