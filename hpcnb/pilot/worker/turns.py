"""The calls of a batch take turns in one thread; one of them can be cancelled by itself, before its turn or in it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from typing import Any

from distributed import Reschedule, Worker
from distributed.scheduler import Scheduler

from hpcnb.pilot.worker.running import GRACE, Interrupted, Job, Running, raise_in, stop_children

__all__ = ["DROP", "Turns", "dropped", "hear_as_scheduler", "hear_as_worker"]

DROP = "hpcnb-drop"
"""The message, from the client to the scheduler and from there to the worker."""
TOGETHER = 0.05
"""Seconds between the news that nobody wants a call that runs and its end."""
DROPPED = "hpcnb_dropped"
"""The annotation of a batch that names the calls that nobody wants any more."""


class Turns:
    """Which call of a batch has its turn; made in the thread that runs them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unwanted: set[int] = set()
        self._thread, self._native = threading.get_ident(), threading.get_native_id()
        self._turn: tuple[int, float] | None = None
        self._ending: threading.Event | None = None

    def run(self, number: int, job: Job, work: Callable[[], Any], instead: Callable[[], Any]) -> Any:
        """Run a call in its turn; where it is cancelled, before or meanwhile, give something else.

        Parameters
        ----------
        number : int
        job : Job
            Of the whole batch, whose end is raised.
        work, instead : callable
        """
        if not self._begin(number):
            return instead()
        try:
            try:
                return work()
            finally:
                self._end()
        except Interrupted:
            self._end()  # it may have come while the turn ended
            if job.why is not None:
                raise
            return instead()

    def _begin(self, number: int) -> bool:
        with self._lock:
            if number in self._unwanted:
                return False
            self._turn = number, time.clock_gettime(time.CLOCK_BOOTTIME)
            return True

    def _end(self) -> None:
        with self._lock:
            self._turn = None
            if self._ending is not None:  # nothing may arrive in the next one's turn
                raise_in(self._thread, None)
                self._ending.set()
                self._ending = None

    def drop(self, numbers: Iterable[int]) -> None:
        """Give calls no turn."""
        with self._lock:
            self._unwanted.update(numbers)

    def end(self, number: int) -> bool:
        """End the turn that a call has; False: it does not end."""
        with self._lock:
            if self._turn is None or self._turn[0] != number:
                return True
            # What it has started is its own, and not what an earlier one has left behind.
            job = Job(name=number, thread=self._thread, native=self._native, started=self._turn[1])
            ending = self._ending = threading.Event()
            raise_in(self._thread, Interrupted)
        stop_children(job)
        return ending.wait(GRACE)

    def is_unwanted(self, number: int) -> bool:
        """Whether nobody wants a call any more."""
        return number in self._unwanted


def dropped(task: Any) -> tuple[int, ...]:
    """The calls of a batch that nobody wants any more, as far as has been heard."""
    return tuple(((task and task.annotations) or {}).get(DROPPED, ()))


def hear_as_scheduler(scheduler: Scheduler) -> None:
    """Have the scheduler remember which calls of a batch nobody wants, and tell who runs it."""
    there: Any = scheduler

    def drop(key: Any, index: int, client: str) -> None:  # noqa: ARG001 - Dask says whose wish it is
        task = there.tasks.get(key)
        if task is None:
            return
        task.annotations = {**(task.annotations or {}), DROPPED: (*dropped(task), index)}
        if task.processing_on is not None:
            there.worker_send(task.processing_on.address, {"op": DROP, "key": key, "index": index})

    there.stream_handlers[DROP] = drop


def hear_as_worker(worker: Worker, turns: Callable[[Any], Turns | None], running: Callable[[], Running]) -> None:
    """Have a worker end the turn of a call.

    Parameters
    ----------
    worker : Worker
    turns : callable
        Gives those of a batch that runs, by its key.
    running : callable
        Gives what ends a whole batch: where a call does not end, the others are run elsewhere.
    """
    here: Any = worker

    def drop(key: Any, index: int) -> None:
        if (task := here.state.tasks.get(key)) is not None:  # it may not have begun
            task.annotations = {**(task.annotations or {}), DROPPED: (*dropped(task), index)}
        if (found := turns(key)) is not None:
            found.drop([index])
            # Who cancels several does not want to see the next one begin when the first one ends.
            asyncio.get_running_loop().call_later(TOGETHER, begin_end, key, index, found)

    def begin_end(key: Any, index: int, found: Turns) -> None:
        threading.Thread(target=end, args=(key, index, found), daemon=True).start()

    def end(key: Any, index: int, found: Turns) -> None:
        if not found.end(index):
            running().stop(key, Reschedule())
        running().stop((key, index), CancelledError())  # where it has a process of its own

    here.stream_handlers[DROP] = drop
