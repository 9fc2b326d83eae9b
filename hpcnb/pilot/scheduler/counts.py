"""How it stands with the calls of one group: counters that move with each task, and a summary of constant size."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hpcnb.pilot.worker.tally import BINS, FEW, Times, words

__all__ = ["Counts", "Done", "Summary", "from_message", "to_message"]

Done = tuple[Any, int | None, float, str, dict[str, Any] | None]
"""A task that has ended: its key, of a batch its size, its seconds, the address of its worker, and what that has told last."""

RECENT = 10.0
"""Seconds over which the rate is the mean, the later ones counting more."""
PIECE = 0.1
"""Seconds whose calls count alike."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How it stands with a group of calls.

    Parameters
    ----------
    id, label : str
    age : float
        Seconds since its first call was submitted, until its last one ended.
    waiting, queued, running, done, failed, cancelled : int
        Of its calls, each of which is in one of these states: they wait for others; for a core.
    cached, retried : int
        How many of those that are done were found among results that had been kept; how often one was begun again.
    rate : float
        Calls that end in a second, of late.
    mean, deviation : float
        Seconds of a call.
    bins : tuple of int
        How many calls took how long; see `hpcnb.pilot.worker.tally`.
    slowest, running_longest : tuple
        Of ``(name, seconds, worker)``.
    errors : tuple
        Of ``(name, message, worker)``: the first that failed by themselves.
    """

    id: str = ""
    label: str = ""
    age: float = 0.0
    waiting: int = 0
    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    cached: int = 0
    retried: int = 0
    rate: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0
    bins: tuple[int, ...] = (0,) * BINS
    slowest: tuple[tuple[str, float, str], ...] = ()
    running_longest: tuple[tuple[str, float, str], ...] = ()
    errors: tuple[tuple[str, str, str], ...] = ()

    @property
    def left(self) -> int:
        """Calls that have not ended."""
        return self.waiting + self.queued + self.running

    @property
    def total(self) -> int:
        """All of them."""
        return self.left + self.done + self.failed + self.cancelled

    @property
    def ended(self) -> bool:
        """Whether there were any, and all have ended."""
        return self.left == 0 < self.total


class Counts:
    """The counters of one group; each method is O(1) for each task, whatever their number.

    Parameters
    ----------
    id, label : str
    name : callable
        Gives the name of the worker at an address.
    """

    def __init__(self, id: str, label: str, name: Callable[[str], str]) -> None:
        self.id, self.label, self._name = id, label, name
        self._begun = self._changed = time.monotonic()
        self.running: dict[Any, float] = {}
        """The tasks that are with a worker, since when."""
        self.total = self.waiting = self.cached = self.retried = 0
        """Calls: of all, those that wait for others, that were found among kept results; and how often one was begun again."""
        self._done = self._failed = self._cancelled = 0
        self._taken: dict[Any, int] = {}  # of batches, calls that are in another one by now
        self._told: dict[Any, dict[str, Any]] = {}  # of those that run, what their workers have told
        self._ahead_done = self._ahead_failed = 0  # their calls that have ended
        self._bad: dict[Any, int] = {}
        self._times = Times()
        self._slowest: list[tuple[float, int, str, str]] = []
        self._errors: list[tuple[str, str, str]] = []
        self._ordinals = itertools.count()
        self._recent, self._recent_at, self._lately = 0.0, self._begun, 0

    @property
    def ended(self) -> bool:
        """Whether nothing of it is to be done."""
        return self.total == self._done + self._failed + self._cancelled

    @property
    def figures(self) -> tuple[int, ...]:
        """What differs if anything has happened."""
        ended = self._done, self._failed, self._cancelled, self._ahead_done, self._ahead_failed
        return self.total, self.waiting, len(self.running), self.cached, self.retried, *ended

    # -- what moves them -----------------------------------------------------------------------------------------------

    def leave(self, key: Any, state: str, size: int) -> None:
        """A task is in a state no longer, in Dask's word."""
        if state == "processing":
            self.running.pop(key, None)
            self._drop(key)
        elif state == "erred":
            self._failed -= size
            self._errors = [error for error in self._errors if error[0] != str(key)]
        elif state == "memory":
            bad, taken = self._bad.pop(key, 0), self._taken.pop(key, 0)
            self._failed -= bad
            self._done -= size - bad - taken
            self.total += taken

    def cancel(self, size: int) -> None:
        """So many calls are not wanted any more."""
        self._changed = time.monotonic()
        self._cancelled += size

    def take_back(self, key: Any, number: int) -> None:
        """So many calls of a batch that have failed are about to be sent again."""
        bad = self._bad.pop(key, 0)
        number = min(number, bad)
        if left := bad - number:
            self._bad[key] = left
        # They are about to be counted with a task of their own.
        self._taken[key] = self._taken.get(key, 0) + number
        self._failed -= number
        self.total -= number
        self.retried += number
        self._errors = [error for error in self._errors if not error[0].startswith(f"{key}[")]

    def tell(self, key: Any, tally: dict[str, Any]) -> None:
        """A worker tells how far it is with a batch, since its beginning."""
        before = self._drop(key)
        self._told[key] = tally
        self._ahead_done += tally["done"]
        self._ahead_failed += tally["failed"]
        self._passed(tally["done"] + tally["failed"] - before)

    def _drop(self, key: Any) -> int:
        """Forget what was told of a batch; gives how many of its calls had ended."""
        if (tally := self._told.pop(key, None)) is None:
            return 0
        done, failed = tally["done"], tally["failed"]
        self._ahead_done -= done
        self._ahead_failed -= failed
        return int(done + failed)

    def finish(self, some: Iterable[Done]) -> None:
        """Tasks have left their workers with a value."""
        took: list[float] = []
        least = self._slowest[0][0] if len(self._slowest) == FEW else -1.0
        for key, size, seconds, worker, tally in some:
            if self.running:
                self.running.pop(key, None)
            if size is not None:
                if self._told:
                    self._lately -= self._drop(key)
                if tally is not None:
                    self._finish(key, size, worker, tally)
                    continue
            self._done += size or 1
            self._lately += size or 1
            took.append(seconds)
            if seconds > least and self._slow(seconds, key, None, worker):
                least = self._slowest[0][0] if len(self._slowest) == FEW else -1.0
        self._times.add(took)
        self._passed(0)

    def _finish(self, key: Any, size: int, worker: str, tally: dict[str, Any]) -> None:
        """A batch has, of whose calls its worker has told."""
        failed = tally["failed"]
        self._done += size - failed
        self._failed += failed
        self._lately += size
        self._times.add_all(tally)
        self.retried += tally["retried"]
        for seconds, index in tally["slowest"]:  # the slowest first
            if not self._slow(seconds, key, index, worker):
                break
        if failed:
            self._bad[key] = failed
            for index, message in tally["errors"][: FEW - len(self._errors)]:
                self._errors.append((f"{key}[{index}]", message, self._name(worker)))

    def find(self, size: int) -> None:
        """A task has its value without having run."""
        self._done += size
        self._passed(size)

    def fail(self, key: Any, size: int, message: str, worker: str) -> None:
        """A task has failed, by itself if there is a message."""
        self._failed += size
        self._passed(size)
        if message and len(self._errors) < FEW:
            self._errors.append((str(key), words(message), self._name(worker)))

    def _slow(self, seconds: float, key: Any, index: int | None, worker: str) -> bool:
        """Whether a call is among the slowest so far; then it is noted."""
        if len(self._slowest) == FEW and seconds <= self._slowest[0][0]:
            return False
        name = str(key) if index is None else f"{key}[{index}]"
        heapq.heappush(self._slowest, (seconds, next(self._ordinals), name, self._name(worker)))
        if len(self._slowest) > FEW:
            heapq.heappop(self._slowest)
        return True

    def _passed(self, number: int) -> None:
        """So many calls have ended just now."""
        self._lately += number
        self._changed = now = time.monotonic()
        if now > self._recent_at + PIECE:
            self._fade(now)

    def _fade(self, now: float) -> None:
        """Let what has ended lately count less, the longer ago it is."""
        self._recent = self._recent * math.exp((self._recent_at - now) / RECENT) + self._lately
        self._recent_at, self._lately = now, 0

    # -- what is told --------------------------------------------------------------------------------------------------

    def summary(self, cores: int, beside: int = 0, where: Callable[[Any], str] = str) -> Summary:
        """How it stands.

        Parameters
        ----------
        cores : int
            Of all workers: what else is with them waits there.
        beside : int
            Of its tasks, those that have left their core to others.
        where : callable
            Gives the name of the worker that has a task.
        """
        now = time.monotonic()
        done, failed = self._done + self._ahead_done, self._failed + self._ahead_failed
        left = self.total - done - failed - self._cancelled - self.waiting
        run = min(len(self.running), cores + beside)
        return Summary(
            id=self.id,
            label=self.label,
            age=(self._changed if self.ended else now) - self._begun,
            waiting=self.waiting,
            queued=left - run,
            running=run,
            done=done,
            failed=failed,
            cancelled=self._cancelled,
            cached=self.cached,
            retried=self.retried,
            rate=self._rate(now),
            bins=tuple(self._times.bins),
            slowest=tuple((name, seconds, worker) for seconds, _, name, worker in sorted(self._slowest, reverse=True)),
            running_longest=self._longest(now, where),
            errors=tuple(self._errors),
            **self._moments(),
        )

    def _rate(self, now: float) -> float:
        # At the beginning there is less than those seconds, and no sum over them.
        seen = RECENT * -math.expm1((self._begun - now) / RECENT)
        self._fade(now)
        return self._recent / max(seen, 1e-3)

    def _moments(self) -> dict[str, float]:
        number = max(1, self._times.number)
        mean = self._times.seconds / number
        return {"mean": mean, "deviation": math.sqrt(max(0.0, self._times.squares / number - mean * mean))}

    def _longest(self, now: float, where: Callable[[Any], str]) -> tuple[tuple[str, float, str], ...]:
        # In the order in which they came to a worker.
        some = itertools.islice(self.running.items(), FEW)
        return tuple((str(key), now - since, where(key)) for key, since in some)


def to_message(summary: Summary) -> dict[str, Any]:
    """A summary as it travels."""
    return {field.name: getattr(summary, field.name) for field in dataclasses.fields(summary)}


def from_message(told: dict[str, Any]) -> Summary:
    """A summary that has travelled."""
    return Summary(**{name: _tupled(value) for name, value in told.items()})


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value
