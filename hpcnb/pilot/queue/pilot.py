"""A queue's pilot: leads one job that drains it, owns the queue when nobody else does, and sees to a successor."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcnb.model import Record
from hpcnb.pilot.address import own_address
from hpcnb.pilot.queue import node
from hpcnb.pilot.queue.draining import Candidate
from hpcnb.pilot.queue.place import Place

LONGEST_MARGIN = 30.0
"""Seconds before the end of the walltime in which what runs is ended and told; a tenth of it, if that is shorter."""
PROGRESS = b"progress"
"""What a worker says on its stdout once it has carried out a task."""


@dataclass(frozen=True, kw_only=True)
class QueueRun(Record):
    """What one job that drains a queue is told.

    Parameters
    ----------
    queue : str
        The queue's folder at the site.
    path : str
        The job's own folder.
    workers : int
        On each node.
    walltime : int
        Seconds.
    directory : str
        Where commands run.
    umask : int
        For what they write.
    launcher : str
        ``srun`` inside Slurm, ``exec`` where one process is one node.
    script : str
        The template of the tasks, if they have one.
    function : str
        The file that has their function, if they have one.
    successor : list of str
        The command that submits a job after this one, and prints its id; empty: there is none.
    cancel : list of str
        The command that cancels it, but for the id.
    """

    queue: str
    path: str
    workers: int
    walltime: int
    directory: str
    umask: int = 0o077
    launcher: str = "exec"
    script: str = ""
    function: str = ""
    successor: list[str] = dataclasses.field(default_factory=list)
    cancel: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def load(cls, path: str) -> QueueRun:
        return cls.from_json(json.loads((Path(path) / "run.json").read_text()))


class Pilot:
    """One job's pilot, from `lead` to its end."""

    def __init__(self, run: QueueRun) -> None:
        self._run = run
        self._candidate = Candidate(Place(Path(run.queue)), own_address(run.launcher))
        self._ending = asyncio.Event()
        self._successor = ""

    async def lead(self) -> bool:
        """Drain the queue until nothing is left, or the walltime; whether nothing is left."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        margin = min(LONGEST_MARGIN, self._run.walltime / 10)
        loop.call_later(self._run.walltime - margin, self._ending.set)
        owning = asyncio.create_task(self._candidate.run())
        try:
            return await self._drain(owning)
        finally:
            self._candidate.end()
            await owning

    async def _drain(self, owning: asyncio.Task[None]) -> bool:
        nodes = await asyncio.create_subprocess_exec(
            *_command(self._run), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        reading = asyncio.create_task(self._follow(nodes))
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait([reading, ending, owning], return_when=asyncio.FIRST_COMPLETED)
        over = reading.done()
        ending.cancel()
        self._candidate.wind_up()
        if nodes.stdin is not None:
            nodes.stdin.close()  # told by a signal, srun would kill them on the spot
        await reading
        drained = over and await nodes.wait() == 0
        if drained and self._successor:
            await _said([*self._run.cancel, self._successor])
        return drained

    async def _follow(self, nodes: asyncio.subprocess.Process) -> None:
        """Hear what the nodes say, until they have ended."""
        while line := await nodes.stdout.readline() if nodes.stdout else b"":
            # Not before something was done: a task that takes longer than the walltime would be begun for ever.
            if line.strip() == PROGRESS and self._run.successor and not self._successor:
                self._successor = await _said(self._run.successor)
        await nodes.wait()


def _command(run: QueueRun) -> list[str]:
    command = [sys.executable, "-m", "hpcnb.pilot.queue", "node", run.path]
    if run.launcher != "srun":
        return command
    nodes, cores = (os.environ.get(name, "1") for name in ("SLURM_JOB_NUM_NODES", "SLURM_CPUS_ON_NODE"))
    srun = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--mem=0"]
    return [*srun, f"--cpus-per-task={cores}", "--kill-on-bad-exit=0", "--unbuffered", *command]


async def _said(command: list[str]) -> str:
    """The first word that a command prints; empty when it failed, which the job's log then shows."""
    asked = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    out = (await asked.communicate())[0].decode(errors="replace")
    print(f"{command[-1]}: {out.strip() or asked.returncode}", flush=True)  # noqa: T201 - the job's log
    words = out.strip().split(";")
    return words[0] if asked.returncode == 0 else ""


def main(run: QueueRun) -> int:
    """Lead a job; the exit status is 0 when nothing is left to do, 75 when there is."""

    async def lead() -> bool:
        return await Pilot(run).lead()

    drained = asyncio.run(lead())
    print("nothing is left to do" if drained else "ended before the queue was empty", flush=True)  # noqa: T201
    return 0 if drained else os.EX_TEMPFAIL


def work(run: QueueRun) -> int:
    """Be one worker of a job."""
    import pickle

    from hpcnb.pilot.queue.worker import OVER, STOPPED, Worker

    os.umask(run.umask)
    with contextlib.suppress(OSError):
        os.chdir(run.directory)
    place = Place(Path(run.queue))
    place.check()
    call: Any = None
    if run.function:
        # From a folder that, as was just seen, is the user's alone.
        call = pickle.loads(Path(run.function).read_bytes())  # noqa: S301
    said = os.dup(1)
    worker = Worker(
        place,
        call=call,
        script=run.script,
        job=os.environ.get("SLURM_JOB_ID", Path(run.path).name),
        heard=lambda: _tell(said, PROGRESS),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.stop)
    _die_with_parent()
    worker.logs.adopt()
    return OVER if worker.run() else STOPPED


def _tell(file: int, word: bytes) -> None:
    with contextlib.suppress(OSError):  # who would hear it has gone
        os.write(file, word + b"\n")


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        raise SystemExit("the node's process has gone")


def serve_node(run: QueueRun) -> int:
    """Be the node's process of a job."""
    asyncio.run(node.run(run.path, run.workers))
    return 0
