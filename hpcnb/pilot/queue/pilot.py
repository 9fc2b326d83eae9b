"""A queue's pilot: leads one job that drains it, owns the queue when nobody else does, and sees to a successor."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
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
from hpcnb.pilot.queue.place import Place, passes

LONGEST_MARGIN = 30.0
"""Seconds before the end of the walltime in which what runs is ended and told; a tenth of it, if that is shorter."""
BEGUN, PROGRESS = "begun", "progress"
"""What a worker says on its stdout once it has been given a task, and once it has carried one out."""
AGAIN, IN_VAIN = 1.0, 20
"""Seconds before the nodes' processes that were killed are started again, and how often before anything was done."""


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
    next : list of str
        The command that submits another job of those that were asked for; empty: there is none.
    successor : list of str
        The command that submits this job once more, to begin when it has ended, and prints an id.
    cancel : list of str
        The command that cancels what was submitted by these, if it still waits, but for the id.
    cancelled : list of str
        The command that says ``cancelled`` if somebody has cancelled a job that has ended, any of some, but for their ids; empty: none can tell.
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
    next: list[str] = dataclasses.field(default_factory=list)
    successor: list[str] = dataclasses.field(default_factory=list)
    cancel: list[str] = dataclasses.field(default_factory=list)
    cancelled: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def load(cls, path: str) -> QueueRun:
        return cls.from_json(json.loads((Path(path) / "run.json").read_text()))


class Pilot:
    """One job's pilot, from `lead` to its end."""

    def __init__(self, run: QueueRun) -> None:
        self._run = run
        self._candidate = Candidate(Place(Path(run.queue)), own_address(run.launcher), self._has_failed)
        self._failure = ""
        self._ending = asyncio.Event()
        self._heirs = Heirs(run)
        self._in_vain = 0

    async def lead(self) -> bool:
        """Drain the queue until nothing is left, or the walltime; whether nothing is left."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        margin = min(LONGEST_MARGIN, self._run.walltime / 10)
        loop.call_later(self._run.walltime - margin - _gone_by(), self._ending.set)
        owning = asyncio.create_task(self._candidate.run())
        try:
            return await self._drain(owning)
        finally:
            self._candidate.end()
            await owning

    def _has_failed(self, exc: Exception) -> None:
        """The queue cannot be written: the job goes on, since it is followed by none that fails as soon as it begins."""
        if str(exc) != self._failure:
            self._failure = str(exc)
            _log(f"the queue cannot be written, which is tried again until the walltime: {exc}")

    async def _drain(self, owning: asyncio.Task[None]) -> bool:
        ending = asyncio.create_task(self._ending.wait())
        try:
            while _killed(code := await self._work(ending, owning)) and self._in_vain < IN_VAIN:
                self._in_vain += 1
                if ending.done() or owning.done():
                    return False
                _log(f"the nodes' processes ended with {code}, and begin again")
                await asyncio.wait([ending, owning], timeout=AGAIN, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
        if code == 0:
            await self._heirs.renounce()
        return code == 0

    async def _work(self, ending: asyncio.Task[Any], owning: asyncio.Task[None]) -> int:
        """Have the nodes work; their exit status is 0 when nothing is left to do."""
        nodes = await asyncio.create_subprocess_exec(
            *_command(self._run), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        reading = asyncio.create_task(self._follow(nodes))
        await asyncio.wait([reading, ending, owning], return_when=asyncio.FIRST_COMPLETED)
        over = reading.done()
        if not over or ending.done():
            self._candidate.wind_up()
        if nodes.stdin is not None:
            nodes.stdin.close()  # told by a signal, srun would kill them on the spot
        await reading
        return await nodes.wait() if over else os.EX_TEMPFAIL

    async def _follow(self, nodes: asyncio.subprocess.Process) -> None:
        """Hear what the nodes say, until they have ended."""
        while line := await nodes.stdout.readline() if nodes.stdout else b"":
            word = line.strip().decode(errors="replace")
            if word == PROGRESS:
                self._in_vain = 0
            await self._heirs.hear(word)
        await nodes.wait()


class Heirs:
    """The job that comes after this one: submitted once, whoever leads this one and however often it begins again."""

    def __init__(self, run: QueueRun) -> None:
        self._run = run
        self._note = Path(run.path) / f"after-{job_id(run)}"
        self._id = self._note.read_text() if self._note.exists() else ""

    async def hear(self, word: str) -> None:
        """A worker was given a task, or has carried one out."""
        # No successor before something was done: a task that takes longer than the walltime would be begun for ever.
        command = self._run.next if word == BEGUN else self._run.successor if word == PROGRESS else []
        if command and not self._id:
            with contextlib.suppress(OSError):  # a full disk is no reason to end, nor to have no successor
                self._note.touch()  # we may be killed before we hear of the job that is submitted
            if found := await _said(command):
                self._id = found
                with contextlib.suppress(OSError):  # an empty note says that nobody has heard which job it is
                    self._note.write_text(found)

    async def disinherited(self) -> bool:
        """Whether the job that we follow was cancelled: who did that wanted an end, and no successor."""
        known = (job_id(self._run), "")  # an empty note: nobody has heard which job that was
        notes = [path for path in Path(self._run.path).glob("after-*") if path != self._note]
        before = [path.name.removeprefix("after-") for path in notes if path.read_text() in known]
        return bool(before and self._run.cancelled) and await _said([*self._run.cancelled, *before]) == "cancelled"

    async def renounce(self) -> None:
        """Nothing is left to do."""
        if self._id:
            await _said([*self._run.cancel, self._id])


def job_id(run: QueueRun) -> str:
    """Our batch job's id."""
    # A plain process may have been started inside of a job of Slurm; a job of Slurm never sees the other's number.
    return os.environ.get("HPCNB_JOB_ID") or os.environ.get("SLURM_JOB_ID") or Path(run.path).name


def _gone_by() -> float:
    """Seconds since our job began: we may not be its first pilot."""
    begun = os.environ.get("HPCNB_BEGUN")
    return float(Path("/proc/uptime").read_text().split()[0]) - float(begun) if begun else 0.0


def _killed(code: int) -> bool:
    """Whether an exit status is that of a process that was killed, itself or below `srun`."""
    return code < 0 or code > 128


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
    _log(f"the batch system said {asked.returncode}: {out.strip()}")
    words = out.strip().split(";")
    return words[0] if asked.returncode == 0 else ""


def main(run: QueueRun) -> int:
    """Lead a job; the exit status is 0 when nothing is left to do, 75 when there is."""

    async def lead() -> bool:
        return await Pilot(run).lead()

    # An owner's rows come and go by the thousands, and are in no cycle: to look for some took a tenth of its time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    if asyncio.run(Heirs(run).disinherited()):
        _log("the job before this one was cancelled, and so was all that was to follow it")
        return 0
    drained = asyncio.run(lead())
    _log("nothing is left to do" if drained else "ended before the queue was empty")
    return 0 if drained else os.EX_TEMPFAIL


def work(run: QueueRun) -> int:
    """Be one worker of a job."""
    import pickle

    from hpcnb.pilot.queue.worker import NO_ROOM, OVER, STOPPED, Worker

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
    try:
        worker = Worker(
            place,
            call=call,
            script=run.script,
            job=job_id(run),
            begun=lambda: _tell(said, BEGUN),
            heard=lambda: _tell(said, PROGRESS),
        )
    except OSError as exc:
        if passes(exc):
            return NO_ROOM
        raise
    # Whoever started us may ignore it: then no command's end could be seen.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.stop)
    _die_with_parent()
    worker.logs.adopt()
    return OVER if worker.run() else STOPPED


def _log(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk is no reason to end
        print(text, flush=True)  # noqa: T201 - the job's log


def _tell(file: int, word: str) -> None:
    with contextlib.suppress(OSError):  # who would hear it has gone
        os.write(file, word.encode() + b"\n")


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        raise SystemExit("the node's process has gone")


def serve_node(run: QueueRun) -> int:
    """Be the node's process of a job."""
    return asyncio.run(node.run(run.path, run.workers))
