"""The workers of one node: started, started again when they die, and ended with our stdin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from hpcnb.pilot.queue.action import FILE
from hpcnb.pilot.queue.printed import marked, named
from hpcnb.pilot.queue.worker import NO_ROOM, OVER, STOPPED

AGAIN = 1.0
"""Seconds before a worker that died is started again."""
SHORT, IN_VAIN = 10.0, 20
"""A worker that ends so soon (seconds) so many times one after the other cannot work here."""
BROKEN = 1
"""Exit status of a node on which no worker can work."""
GRACE = 10.0


class Node:
    """The workers of this node, until none has anything left to do.

    Parameters
    ----------
    run_dir : str
    workers : int
    """

    def __init__(self, run_dir: str, workers: int) -> None:
        self._command = (sys.executable, "-m", "hpcnb.pilot.queue", "worker", run_dir)
        self._workers = workers
        self._ending = asyncio.Event()

    async def run(self) -> int:
        """Return when all have ended for good: `OVER` when any found nothing left to do, `STOPPED`, or `BROKEN`."""
        codes = await asyncio.gather(*(self._keep_one() for _ in range(self._workers)))
        return next(code for code in (OVER, STOPPED, BROKEN) if code in codes)

    def end(self) -> None:
        """Have the workers end soon; what they run is killed, and the next job's."""
        self._ending.set()

    async def _keep_one(self) -> int:
        in_vain = 0
        while not self._ending.is_set() and in_vain < IN_VAIN:
            began = time.monotonic()
            worker = await asyncio.create_subprocess_exec(*self._command, stdin=asyncio.subprocess.DEVNULL)
            code = await self._until_ended(worker)
            if code in (OVER, STOPPED):
                return code
            _end_leftovers(worker.pid)
            if code != NO_ROOM:
                in_vain = in_vain + 1 if time.monotonic() - began < SHORT else 0
                with contextlib.suppress(OSError):  # a full disk
                    print(f"worker {worker.pid} ended with {code}", file=sys.stderr, flush=True)  # noqa: T201 - the job's log
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), AGAIN)
        return STOPPED if in_vain < IN_VAIN else BROKEN

    async def _until_ended(self, worker: asyncio.subprocess.Process) -> int:
        ended, ending = asyncio.ensure_future(worker.wait()), asyncio.ensure_future(self._ending.wait())
        await asyncio.wait([ended, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGINT)  # SIGTERM is what a batch system sends to all, not only to us
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(ended), GRACE)
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
        return await ended


def _end_leftovers(worker: int) -> None:
    """Kill the command of a worker that was killed: it may be about to begin again, and would write where it writes."""
    prefix = f"{FILE}=".encode()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):  # it has gone, or is somebody else's, or was told of by nobody
            pid, words = int(folder.name), (folder / "environ").read_bytes().split(b"\0")
            notes = next(
                (Path(os.fsdecode(word.removeprefix(prefix))) for word in words if word.startswith(prefix)), None
            )
            if notes and _began_by(worker, notes):
                os.kill(pid, signal.SIGKILL)


def _began_by(worker: int, notes: Path) -> bool:
    """Whether a process that was told of these notes belongs to the last attempt of a worker of this machine."""
    name = notes.parent.name.removesuffix(".notes")
    if not name.startswith(f"{named(worker)}-"):
        return False
    return notes.name.split("-") == [str(number) for number in marked(notes.parent.with_name(name))[:2]]


async def run(run_dir: str, workers: int) -> int:
    """Keep the workers of this node until they have nothing left to do, or our stdin ends; returns the exit status."""
    node = Node(run_dir, workers)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def follow_stdin() -> None:
        await reader.read()
        node.end()

    following = asyncio.create_task(follow_stdin())
    try:
        return await node.run()
    finally:
        following.cancel()
        transport.close()
