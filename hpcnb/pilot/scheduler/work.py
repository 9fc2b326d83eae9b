"""What the scheduler tells of work, group by group, to those who look: four times a second at most, and only what has changed."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, TaskState

from hpcnb.pilot.scheduler.counts import Counts, Summary, to_message
from hpcnb.pilot.scheduler.history import History
from hpcnb.pilot.scheduler.keeper import SIZE, state_of
from hpcnb.pilot.worker.tally import TALLY, WORK

__all__ = ["LOOK", "LOOK_AWAY", "RETRY", "SUMMARY", "Work"]

LOOK, LOOK_AWAY = "hpcnb-look", "hpcnb-look-away"
"""The messages of a client, with the id of a group; the first one is answered at once, the summary of one unknown is empty."""
RETRY = "hpcnb-retry"
"""The message of a client, with the key of a task that has failed and shall be run again."""
SUMMARY = "hpcnb-work"
"""The message to a client that looks."""
INTERVAL = 0.25
"""Seconds between two summaries of a group."""
MOST = 1000
"""Groups that are remembered."""

STATES = {
    "waiting": "waiting",
    "queued": "queued",
    "no-worker": "queued",
    "processing": "running",
    "memory": "done",
    "erred": "failed",
}
"""Dask's word, and ours."""
AT_ONCE = 256
"""Tasks that are entered at once."""
FURTHER = frozenset({"memory", "erred", "processing"})
"""States in which a task has been begun."""
WAITING = frozenset({"waiting", "queued", "no-worker"})
PLACED = WAITING | {""}
"""States of ours from which a task that waits has come without having been begun; empty: none."""
AHEAD = WAITING | {"processing"}
"""States in which a task is to end yet."""
OVER = frozenset({"memory", "erred", "released", ""})
"""States from which it is forgotten without being missed; empty: it never was in any."""


NONE: Mapping[str, Any] = {}


class Work(SchedulerPlugin):
    """Counts the calls of each group, and shows the counts to clients that look.

    A group is known by the annotation of its tasks. No list of tasks is ever walked.

    Parameters
    ----------
    scheduler : Scheduler
    history : History
        Which is told of each task that has run.
    """

    name = "hpcnb-work"

    def __init__(self, scheduler: Scheduler, history: History) -> None:
        self._scheduler: Any = scheduler
        self._history = history
        self._groups: OrderedDict[str, Counts] = OrderedDict()
        self._lookers: dict[str, set[str]] = {}
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._last: dict[str, float] = {}
        # Tasks that Dask has released: whether they come back, or are forgotten, is seen next.
        self._left: dict[Any, str] = {}
        # What is put down: tasks that have ended, and those that go on, by their keys; with where each was, and since when it is not.
        self._ended: list[tuple[TaskState, tuple[str, float] | None, dict[str, Any]]] = []
        self._moving: dict[Any, tuple[str, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        said: dict[str, Any] = {LOOK: self._look, LOOK_AWAY: self._look_away, TALLY: self._told, RETRY: self._retry}
        scheduler.handlers |= {"hpcnb_again": self.again, "hpcnb_running": self.running}
        scheduler.stream_handlers.update(said)

    # -- what the scheduler tells --------------------------------------------------------------------------------------

    def transition(self, key: Any, start: str, finish: str, *args: Any, **more: Any) -> None:
        # Some six times for each task: what is usual is only put down, and entered some hundreds at once, in which a task that
        # has come and gone meanwhile is entered once.
        if start == "processing" and finish == "memory":
            self._ended.append((self._scheduler.tasks[key], self._moving.pop(key, None), more))
            if self._timer is None or len(self._ended) >= AT_ONCE:
                self._enter_soon(len(self._ended))
        elif finish in AHEAD and (start in WAITING or (start == "released" and self._left.get(key) not in FURTHER)):
            if key not in self._moving:
                self._put_down(key, self._left.pop(key, "") if start == "released" else start)
        elif finish == "released":
            if key in self._moving:
                self._enter(key, start)
            self._left[key] = start
        else:
            start = self._left.pop(key, "") if start == "released" else start
            if finish != "forgotten" or start not in OVER:
                self._move(key, start, finish, more)

    def _put_down(self, key: Any, start: str) -> None:
        """A task waits, or goes to a worker; of what comes next only its end is put down."""
        self._moving[key] = start, time.monotonic()
        if self._timer is None or len(self._moving) >= AT_ONCE:
            self._enter_soon(len(self._moving))

    def _move(self, key: Any, start: str, finish: str, more: dict[str, Any]) -> None:
        """A task does what is not usual; `start`: in which of our states it was, empty: in none."""
        self._enter(key, start)
        task: TaskState = self._scheduler.tasks[key]
        if start == "processing":
            self._history.took(task, more.get("worker"), more.get("startstops") or (), failed=finish == "erred")
        if start != finish and (counts := self._counts(task.annotations or NONE, new=not start)):
            self._entered(counts, task, start, finish)
            self._show_soon(counts.id)

    def _enter_soon(self, number: int) -> None:
        if number >= AT_ONCE:
            self._enter()
        else:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._enter)

    def _enter(self, other: Any = None, state: str = "") -> None:
        """Enter what was only put down; one task is in another state by now than what was put down of it has led to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, self._ended = self._ended, []
        moving, self._moving = self._moving, {}
        touched: set[Counts] = set()
        for task, moved, more in ended:
            seconds = self._history.took(task, more["worker"], more.get("startstops") or ())
            start, since = moved or ("processing", 0.0)
            known: Any = task.annotations or NONE
            if counts := self._counts(known, new=not start, since=since):
                counts.finish(task.key, STATES.get(start, ""), known.get(SIZE) or 1, seconds, more["worker"])
                touched.add(counts)
        for key, (start, since) in moving.items():
            task = self._scheduler.tasks[key]
            known = task.annotations or NONE
            if counts := self._counts(known, new=not start, since=since):
                finish = state if key == other else task.state
                if finish in WAITING and start in PLACED:
                    counts.shift(STATES.get(start, ""), STATES[finish], known.get(SIZE) or 1)
                else:
                    self._entered(counts, task, start, finish, since)
                touched.add(counts)
        for counts in touched:
            counts.pass_time()
            self._show_soon(counts.id)

    def _counts(self, known: Mapping[str, Any], *, new: bool, since: float = 0.0) -> Counts | None:
        """Those of the group of a task with such annotations; of one that was given up, none."""
        if not (named := known.get(WORK)):
            return None
        return self._groups.get(named[0]) or (self._new(named[0], named[1], since) if new else None)

    def _entered(self, counts: Counts, task: TaskState, start: str, finish: str, since: float = 0.0) -> None:
        key, size = task.key, _size(task)
        if start:
            counts.leave(key, STATES[start], size)
        if finish == "forgotten":
            counts.cancel(size)
        elif finish == "erred":
            by_itself = task.exception_blame in (None, task)
            worker = next(iter(task.erred_on or ()), "")
            counts.fail(key, size, (task.exception_text or "it failed") if by_itself else "", worker)
        elif finish == "processing":
            worker = task.processing_on.address if task.processing_on else ""
            counts.begin(key, size, worker, since or time.monotonic(), again=start in FURTHER)
        else:
            counts.enter(STATES[finish], size, again=start in FURTHER)

    def _new(self, id: str, label: str, since: float) -> Counts:
        if len(self._groups) >= MOST:
            over = (one for one, counts in self._groups.items() if counts.ended and one not in self._lookers)
            del self._groups[next(over, next(iter(self._groups)))]
        made = self._groups[id] = Counts(id, label, since or time.monotonic(), self._name)
        return made

    def _name(self, address: str) -> str:
        worker = self._scheduler.workers.get(address)
        return str(worker.name) if worker else ""

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        for group in list(self._lookers):
            self._look_away(group, client)

    def restart(self, scheduler: Scheduler) -> None:
        for known in (self._groups, self._left, self._moving, self._ended):
            known.clear()

    # -- what workers and clients tell ---------------------------------------------------------------------------------

    def _told(self, key: Any, worker: str, cached: int = 0, **tally: Any) -> None:
        self._enter()
        task = self._scheduler.tasks.get(key)
        named = ((task is not None and task.annotations) or {}).get(WORK)
        if named and (counts := self._groups.get(named[0])):
            counts.cached += cached
            if tally:
                counts.tell(key, tally)
            self._show_soon(counts.id)

    def _look(self, group: str, client: str) -> None:
        self._enter()
        self._lookers.setdefault(group, set()).add(client)
        self._show(group, (client,))

    def _look_away(self, group: str, client: str) -> None:
        lookers = self._lookers.get(group, set())
        lookers.discard(client)
        if not lookers:
            self._lookers.pop(group, None)
            self._last.pop(group, None)
            if due := self._due.pop(group, None):
                due.cancel()

    def _retry(self, key: Any, client: str) -> None:
        task = self._scheduler.tasks.get(key)
        if task is not None and task.state == "erred":
            self._scheduler.stimulus_retry(keys=[key], client=client)

    def again(self, key: Any, indices: list[int]) -> dict[str, Any]:
        """Of a batch, what some of its calls are, which their client is about to send again; empty: it is not known.

        Returns
        -------
        dict
            ``calls``: `hpcnb.pilot.worker.batch.Calls`, pickled; ``needs``: keys of the batches that they take arguments from; ``work``: id and
            label of their group.
        """
        task = self._scheduler.tasks.get(key)
        if task is None or task.state != "memory":
            return {}
        self._enter()
        named = (task.annotations or {}).get(WORK) or ("", "")
        if counts := self._groups.get(named[0]):
            counts.take_back(key, len(indices))
        needs = [one.key for one in task.run_spec.args]
        return {"calls": pickle.dumps(task.run_spec.func.only(indices)), "needs": needs, "work": named}

    def running(self, keys: list[Any]) -> list[Any]:
        """Which of some tasks run, as workers have said last."""
        tasks = self._scheduler.tasks
        return [key for key in keys if key in tasks and state_of(tasks[key]) == "executing"]

    def unfinished(self, most: int) -> list[Summary]:
        """How it stands with the groups that go on, at most so many, those that came last."""
        self._enter()
        going = (counts for counts in reversed(self._groups.values()) if not counts.ended)
        return [self._summary(counts) for counts in itertools.islice(going, most)]

    # -- what they are shown -------------------------------------------------------------------------------------------

    def _show_soon(self, group: str) -> None:
        """If somebody looks at the group, and it is not about to be shown anyway."""
        if group in self._lookers and group not in self._due:
            pause = max(0.0, self._last.get(group, 0.0) + INTERVAL - time.monotonic())
            self._due[group] = asyncio.get_running_loop().call_later(pause, self._show_all, group)

    def _show_all(self, group: str) -> None:
        self._enter()
        del self._due[group]
        self._last[group] = time.monotonic()
        self._show(group, tuple(self._lookers.get(group, ())))

    def _show(self, group: str, clients: tuple[str, ...]) -> None:
        counts = self._groups.get(group) or Counts(group, "", time.monotonic(), self._name)
        told = {"op": SUMMARY, "summary": to_message(self._summary(counts))}
        for client in clients:
            self._scheduler.report(told, client=client)

    def _summary(self, counts: Counts) -> Summary:
        return counts.summary(self._scheduler.total_nthreads, self._beside(counts.id))

    def _beside(self, group: str) -> int:
        """Tasks that run without a core."""
        return sum(
            1
            for worker in self._scheduler.workers.values()
            for task in worker.long_running
            if (task.annotations or {}).get(WORK, ("",))[0] == group
        )


def _size(task: TaskState) -> int:
    """How many calls it is."""
    return (task.annotations or {}).get(SIZE) or 1
