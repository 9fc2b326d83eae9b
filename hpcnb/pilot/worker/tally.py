"""Run times and failures of many calls in constant space; and how a worker tells them of the calls of a batch."""

from __future__ import annotations

import heapq
import math
import operator
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from distributed.utils import thread_state  # type: ignore[attr-defined]
from distributed.worker import get_worker

__all__ = ["BINS", "FEW", "TALLY", "WORK", "Tally", "Times", "tell", "words"]

WORK = "hpcnb_work"
"""The annotation of a task that says with which others it is shown: ``(id, label)``."""
TALLY = "hpcnb-tally"
"""The message of a worker."""
BINS = 32
"""Of run times: the first holds all below 4 ms, each further one reaches twice as far."""
SHIFT = 8
SHORTEST = 2.0**-SHIFT
FEW = 5
"""Calls that are named: the slowest, those that failed."""
LONGEST = 300
"""Characters of an error that are told."""
PAUSE = 0.5
"""Seconds after which a worker tells of a batch that it has not finished."""


class Times:
    """The run times of calls: how many, their sum, their squares' sum, how they are distributed."""

    __slots__ = ("bins", "number", "seconds", "squares")

    def __init__(self) -> None:
        self.number, self.seconds, self.squares = 0, 0.0, 0.0
        self.bins = [0] * BINS

    def add(self, took: Sequence[float]) -> None:
        """Take note of some calls, by their seconds."""
        self.number += len(took)
        self.seconds += sum(took)
        self.squares += sum(map(operator.mul, took, took))
        if max(took, default=0.0) < SHORTEST:
            self.bins[0] += len(took)
        else:
            for seconds in took:
                self.bins[_bin(seconds)] += 1

    def add_all(self, tally: dict[str, Any]) -> None:
        """Take note of a batch, as its worker tells of it."""
        for place, number in tally["bins"].items():
            self.number += number
            self.bins[int(place)] += number
        self.seconds += tally["seconds"]
        self.squares += tally["squares"]


def _bin(seconds: float) -> int:
    return max(0, min(BINS - 1, math.frexp(seconds)[1] + SHIFT))


class Tally:
    """What a worker knows of the calls of a batch while it runs them, and tells the scheduler now and then.

    What it tells is all since the batch began, so that a message says what the one before said, too.

    Parameters
    ----------
    number : int
        Of calls.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._times: list[float] = []
        self._errors: list[tuple[int, str]] = []
        self._failed = self._retried = 0
        self._begun = self._told = time.perf_counter()

    def add(self, error: BaseException | None, attempts: int = 1) -> None:
        """Take note of the call that has just ended."""
        now = time.perf_counter()
        self._times.append(now - self._begun)
        self._begun = now
        self._retried += attempts - 1
        if error is not None:
            self._failed += 1
            if self._failed <= FEW:
                self._errors.append((len(self._times) - 1, words(error)))
        # With the last one the batch has ended, which is told with all that there is to know, or not at all: whoever heard that all
        # calls have ended would look away, and miss their errors.
        if len(self._times) < self._number and now - self._told > PAUSE:
            self._told = now
            tell(**self._now())

    @property
    def mean(self) -> float:
        """Seconds of a call."""
        return sum(self._times) / max(1, len(self._times))

    def end(self) -> None:
        """Have Dask's own message that the batch has ended tell it."""
        if (worker := _worker()) is not None and (task := worker.state.tasks.get(thread_state.key)) is not None:
            task.metadata[TALLY] = self._now()

    def _now(self) -> dict[str, Any]:
        slowest = heapq.nlargest(FEW, zip(self._times, range(len(self._times)), strict=False))
        return {
            "done": len(self._times) - self._failed,
            "failed": self._failed,
            "retried": self._retried,
            "seconds": sum(self._times),
            "squares": sum(one * one for one in self._times),
            "bins": _counted(self._times),
            "slowest": slowest,
            "errors": self._errors,
        }


def _counted(times: Iterable[float]) -> dict[str, int]:
    return {str(place): number for place, number in Counter(map(_bin, times)).items()}


def tell(**said: Any) -> None:
    """Tell the scheduler something of the task that this thread of a worker runs."""
    if (worker := _worker()) is not None:
        # Dask's message that it has ended goes the same way, later.
        worker.loop.add_callback(worker.batched_send, {"op": TALLY, "key": thread_state.key, **said})


def _worker() -> Any:
    """That of this thread; nobody's, or that of a call's own process, is none."""
    try:
        worker = get_worker()
    except (ValueError, AttributeError):
        return None
    return worker if hasattr(worker, "batched_send") and hasattr(thread_state, "key") else None


def words(error: BaseException | str) -> str:
    """The first of what an error says."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
