"""How it stands with the calls of one group: counters that move with each task, and a summary of constant size."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpcnb.pilot.worker.tally import BINS, FEW, Times, words

__all__ = ["Counts", "Summary", "from_message", "to_message"]

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
    """The counters of one group; each method is O(1), whatever the number of tasks.

    Parameters
    ----------
    id, label : str
    since : float
        When its first call was submitted, by the monotonic clock.
    name : callable
        Gives the name of the worker at an address.
    """

    def __init__(self, id: str, label: str, since: float, name: Callable[[str], str]) -> None:
        self.id, self.label, self._name = id, label, name
        self._begun = self._changed = since
        self.count = dict.fromkeys(("waiting", "queued", "running", "done", "failed", "cancelled"), 0)
        self._running: dict[Any, tuple[float, str]] = {}  # since when, on which worker
        self._told: dict[Any, dict[str, Any]] = {}  # of those, what their worker has told of a batch
        self._ahead = {"done": 0, "failed": 0}  # of what runs: calls that have ended, though their batch has not
        self._bad: dict[Any, int] = {}
        self.cached = self._retried = 0
        self._times = Times()
        self._slowest: list[tuple[float, int, str, str]] = []
        self._errors: list[tuple[str, str, str]] = []
        self._ordinals = itertools.count()
        self._recent, self._recent_at, self._lately = 0.0, self._begun, 0

    @property
    def ended(self) -> bool:
        """Whether nothing of it is to be done."""
        return not any(self.count[state] for state in ("waiting", "queued", "running"))

    # -- what moves them -----------------------------------------------------------------------------------------------

    def enter(self, state: str, size: int, *, again: bool) -> None:
        """A task of so many calls waits; `again`: it had been begun."""
        self.count[state] += size
        if again:
            self._retried += size

    def shift(self, before: str, state: str, size: int) -> None:
        """A task that was not begun is in another state, or in its first one."""
        count = self.count
        if before:
            count[before] -= size
        count[state] += size

    def begin(self, key: Any, size: int, worker: str, since: float, *, again: bool) -> None:
        """A task has gone to a worker."""
        self.enter("running", size, again=again)
        self._running[key] = (since, worker)

    def leave(self, key: Any, state: str, size: int) -> None:
        """A task is in a state no longer."""
        if state == "running":
            self._running.pop(key, None)
            self._put(key, None)
        elif state == "failed":
            self._errors = [error for error in self._errors if error[0] != str(key)]
        elif state == "done":
            bad = self._bad.pop(key, 0)
            self.count["failed"] -= bad
            size -= bad
        self.count[state] -= size

    def cancel(self, size: int) -> None:
        """So many calls are not wanted any more."""
        self._changed = time.monotonic()
        self.count["cancelled"] += size

    def take_back(self, key: Any, number: int) -> None:
        """So many calls of a batch that have failed are about to be sent again."""
        bad = self._bad.pop(key, 0)
        number = min(number, bad)
        if left := bad - number:
            self._bad[key] = left
        self.count["failed"] -= number
        self._retried += number
        self._errors = [error for error in self._errors if not error[0].startswith(f"{key}[")]

    def tell(self, key: Any, tally: dict[str, Any]) -> None:
        """A worker tells how far it is with a batch, since its beginning."""
        if key in self._running:
            self._passed(self._put(key, tally))

    def _put(self, key: Any, tally: dict[str, Any] | None) -> int:
        """Put what a worker tells of a batch in the place of what it has told before; gives by how many more have ended."""
        before = self._told.pop(key, None)
        if tally is not None:
            self._told[key] = tally
        more = 0
        for name in self._ahead if before or tally else ():
            change = (tally[name] if tally else 0) - (before[name] if before else 0)
            self._ahead[name] += change
            more += change
        return more

    def finish(self, key: Any, state: str, size: int, seconds: float, worker: str) -> None:
        """A task has left its worker with a value; the state in which it is known here, empty: in none yet.

        `pass_time` is called when all have been told that have ended in the same moment.
        """
        count = self.count
        if state == "running":
            self._running.pop(key, None)
        if state:
            count[state] -= size
        tally = self._told.get(key) if self._told else None
        if tally is None:
            count["done"] += size
            self._lately += size
            self._times.add(seconds)
            if len(self._slowest) < FEW or seconds > self._slowest[0][0]:
                self._slow(seconds, key, None, worker)
            return
        count["done"] += size - tally["failed"]
        count["failed"] += tally["failed"]
        self._lately += size + self._put(key, None)
        self._take(key, tally, worker)
        if tally["failed"]:
            self._bad[key] = tally["failed"]

    def fail(self, key: Any, size: int, message: str, worker: str) -> None:
        """A task has failed, by itself if there is a message."""
        self._changed = time.monotonic()
        self.count["failed"] += size
        self._passed(size)
        if message and len(self._errors) < FEW:
            self._errors.append((str(key), words(message), self._name(worker)))

    def _take(self, key: Any, tally: dict[str, Any], worker: str) -> None:
        self._times.add_all(tally)
        self._retried += tally["retried"]
        for seconds, index in tally["slowest"]:
            self._slow(seconds, key, index, worker)
        for index, message in tally["errors"][: FEW - len(self._errors)]:
            self._errors.append((f"{key}[{index}]", message, self._name(worker)))

    def _slow(self, seconds: float, key: Any, index: int | None, worker: str) -> None:
        if len(self._slowest) < FEW or seconds > self._slowest[0][0]:
            name = str(key) if index is None else f"{key}[{index}]"
            heapq.heappush(self._slowest, (seconds, next(self._ordinals), name, self._name(worker)))
            if len(self._slowest) > FEW:
                heapq.heappop(self._slowest)

    def _passed(self, number: int) -> None:
        """So many calls have ended just now."""
        self._lately += number
        self.pass_time()

    def pass_time(self) -> None:
        """What was told last has happened now."""
        self._changed = now = time.monotonic()
        if now > self._recent_at + PIECE:
            self._fade(now)

    def _fade(self, now: float) -> None:
        """Let what has ended lately count less, the longer ago it is."""
        self._recent = self._recent * math.exp((self._recent_at - now) / RECENT) + self._lately
        self._recent_at, self._lately = now, 0

    # -- what is told --------------------------------------------------------------------------------------------------

    def summary(self, cores: int, beside: int = 0) -> Summary:
        """How it stands.

        Parameters
        ----------
        cores : int
            Of all workers: what else is with them waits there.
        beside : int
            Of its tasks, those that have left their core to others.
        """
        now = time.monotonic()
        run = min(len(self._running), cores + beside)
        count, done, failed = self.count, self._ahead["done"], self._ahead["failed"]
        return Summary(
            id=self.id,
            label=self.label,
            age=(self._changed if self.ended else now) - self._begun,
            waiting=count["waiting"],
            queued=count["queued"] + count["running"] - run - done - failed,
            running=run,
            done=count["done"] + done,
            failed=count["failed"] + failed,
            cancelled=count["cancelled"],
            cached=self.cached,
            retried=self._retried,
            rate=self._rate(now),
            bins=tuple(self._times.bins),
            slowest=tuple((name, seconds, worker) for seconds, _, name, worker in sorted(self._slowest, reverse=True)),
            running_longest=self._longest(now),
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

    def _longest(self, now: float) -> tuple[tuple[str, float, str], ...]:
        # In the order in which they came to a worker.
        some = itertools.islice(self._running.items(), FEW)
        return tuple((str(key), now - since, self._name(worker)) for key, (since, worker) in some)


def to_message(summary: Summary) -> dict[str, Any]:
    """A summary as it travels."""
    return {field.name: getattr(summary, field.name) for field in dataclasses.fields(summary)}


def from_message(told: dict[str, Any]) -> Summary:
    """A summary that has travelled."""
    return Summary(**{name: _tupled(value) for name, value in told.items()})


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value
