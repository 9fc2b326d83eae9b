"""What runs in which thread of a worker, and how it is stopped: politely, with its children, or by giving the thread up."""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from hpcnb.pilot.born import born

__all__ = ["GRACE", "Interrupted", "Job", "Running", "Watch", "end_tree", "raise_in", "stop_children"]

GRACE = 0.5
"""Seconds that a call has to stop by itself, before its thread is given up."""
AGAIN = 0.2
"""Seconds after which code that has caught the exception gets it once more."""
MANY = 100
"""Limits of calls that are over, which may wait to be forgotten."""
LAUNCHER = "srun"
TOLD = 0.5
"""Seconds that launchers get to pass a signal on."""
TICKS = 0.02
"""Seconds by which the kernel's time of a process's birth may be too early."""


class Interrupted(BaseException):
    """Raised in the thread of a call that has to stop. No `Exception`: ``except Exception`` shall not hold it up."""


@dataclass(kw_only=True, eq=False)
class Job:
    """One call that runs.

    Parameters
    ----------
    name : object
        By which it is stopped: the task's key, or a key and a member of its batch.
    stop : callable, optional
        What else ends it: where it waits for a child process, say, or for a coroutine.
    why : Exception or None
        With what it ends, since it was stopped.
    key, member : object
        Of what task it is, and which call of a batch, where that is known.
    lost : bool
        It does not heed that it was stopped, and its thread was given up.
    repeated : int
        How often this member was run before.
    speaker : Speaker or None
        Of `hpcnb.pilot.output`, once it has printed.
    """

    name: Any
    key: Any = None
    member: int | None = None
    repeated: int = 0
    speaker: Any = None
    thread: int = field(default_factory=threading.get_ident)
    native: int = field(default_factory=threading.get_native_id)
    started: float = field(default_factory=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    stop: Callable[[], object] | None = None
    why: Exception | None = None
    struck: bool = False
    lost: bool = False
    over: threading.Event = field(default_factory=threading.Event)


class Watch(Protocol):
    """Who wants to know which call runs, in its own thread."""

    def begin(self) -> None:
        """One is about to begin."""

    def turn(self, job: Job, member: int) -> None:
        """One of a batch is."""

    def carry(self) -> None:
        """The one in this thread goes on as a coroutine, in another."""

    def show(self, key: Any, data: bytes) -> bool:
        """The one in this thread displays something; False: it is of another task than this key's."""

    def tape_of_children(self) -> int:
        """The descriptor to which processes for the one in this thread write."""

    def end(self, job: Job) -> None:
        """One has ended; may be said twice."""


class Running:
    """The calls that run in this process.

    Parameters
    ----------
    forsake : callable, optional
        Gives up a thread (its identifier, the error) that does not come back; None: it is waited for.
    """

    def __init__(self, forsake: Callable[[int, Exception], None] | None = None) -> None:
        self.watch: Watch | None = None
        self._forsake = forsake
        self._jobs: dict[Any, Job] = {}
        self._lock = threading.Lock()
        self._due: list[tuple[float, int, Job, Callable[[Job], Exception]]] = []
        self._ordinals = itertools.count()
        self._changed = threading.Condition()
        self._clock: threading.Thread | None = None

    def run(
        self,
        name: Any,
        work: Callable[[Job], Any],
        limit: float | None = None,
        late: Callable[[Job], Exception] | None = None,
    ) -> Any:
        """Run something in this thread so that it can be stopped.

        Parameters
        ----------
        name : object
        work : callable
        limit : float, optional
            Seconds after which it is stopped with what ``late(job)`` returns.
        late : callable, optional
        """
        if self.watch is not None:
            self.watch.begin()
        job = Job(name=name)
        result: Any = None
        error: BaseException | None = None
        try:
            try:
                self._jobs[name] = job
                if limit is not None and late is not None:
                    self._expect(job, limit, late)
                result = work(job)
            except Exception as raised:
                error = raised
            finally:
                self._leave(job)
        except BaseException as raised:
            self._leave(job)  # what stops it may have come while the thread was leaving
            error = raised
        error = job.why or error  # whatever the code has made of it
        if error is not None:
            raise error
        return result

    def jobs(self) -> list[Job]:
        """Those that run, also in threads that were given up."""
        return list(self._jobs.values())

    def turn(self, job: Job, member: int) -> None:
        """One of the calls that run together as `job` is about to begin."""
        if self.watch is not None:
            self.watch.turn(job, member)

    def stop(self, name: Any, why: Exception) -> None:
        """Stop a call, if it runs; returns at once."""
        if (job := self._jobs.get(name)) is not None:
            threading.Thread(target=self.end, args=(job, why), daemon=True).start()

    def end(self, job: Job, why: Exception) -> None:
        """Stop a call; returns when it is over, or when its thread is given up."""
        if job.why is not None or job.over.is_set():
            return
        job.why = why
        if job.stop is not None:
            job.stop()
        deadline = time.monotonic() + GRACE
        while self._strike(job) and (left := deadline - time.monotonic()) > 0:
            # What it started first, or it would be waited for in C, where no exception arrives.
            stop_children(job)
            job.over.wait(min(left, AGAIN))
        if not job.over.is_set() and self._forsake is not None:
            job.lost = True
            self._forsake(job.thread, why)

    def _strike(self, job: Job) -> bool:
        with self._lock:
            if job.over.is_set():
                return False
            job.struck = True
            raise_in(job.thread, Interrupted)
            return True

    def _leave(self, job: Job) -> None:
        if self.watch is not None:
            self.watch.end(job)
        with self._lock:
            job.over.set()
            if self._jobs.get(job.name) is job:
                del self._jobs[job.name]
            if job.struck:  # nothing may arrive in what the thread does next
                raise_in(job.thread, None)

    # -- limits of time ----------------------------------------------------------------------------------------------

    def _expect(self, job: Job, limit: float, late: Callable[[Job], Exception]) -> None:
        with self._changed:
            if len(self._due) > 2 * len(self._jobs) + MANY:  # most have kept their limits
                self._due = [due for due in self._due if not due[2].over.is_set()]
                heapq.heapify(self._due)
            heapq.heappush(self._due, (time.monotonic() + limit, next(self._ordinals), job, late))
            if self._clock is None:
                self._clock = threading.Thread(target=self._watch, name="hpcnb-limits", daemon=True)
                self._clock.start()
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                _, _, job, late = heapq.heappop(self._due)
            if not job.over.is_set():
                threading.Thread(target=self.end, args=(job, late(job)), daemon=True).start()


def raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have an exception raised in a thread as soon as it runs Python's code; None: none that has not been by now."""
    target = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), target)


def stop_children(job: Job) -> None:
    """Kill what a call has started."""
    end_tree(_children(job))


def _children(job: Job) -> list[int]:
    """The processes that its thread has started for it; an earlier call's, which it has left behind, are not its own."""
    try:
        pids = [int(pid) for pid in Path(f"/proc/self/task/{job.native}/children").read_text().split()]
    except OSError:
        return []
    return [pid for pid in pids if born(pid) >= job.started - TICKS]


def end_tree(pids: list[int]) -> None:
    """Kill processes and all that they have started."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):  # gone, or another user's
            process = psutil.Process(pid)
            process.suspend()  # it starts nothing more while we look
            found += [process, *process.children(recursive=True)]
    _tell_launchers(found)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _tell_launchers(found: list[psutil.Process]) -> None:
    """Have Slurm's launchers end what they have started on other nodes: killed without a word, they would let it run on."""
    launchers = []
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == LAUNCHER:
                process.terminate()
                process.resume()
                launchers.append(process)
    psutil.wait_procs(launchers, timeout=TOLD)
