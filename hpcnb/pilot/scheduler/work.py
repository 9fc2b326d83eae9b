"""What the scheduler tells of work, group by group, to those who look: four times a second at most, and only what has changed."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import time
from collections import OrderedDict
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, TaskState

from hpcnb.pilot.scheduler.counts import Counts, Done, Summary, to_message
from hpcnb.pilot.scheduler.history import Ended, History
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

AT_ONCE = 256
"""Tasks that are entered at once."""
WAITING = frozenset({"waiting", "queued", "no-worker"})
AHEAD = WAITING | {"processing"}
"""States in which a task is to end yet."""
FURTHER = frozenset({"processing", "memory", "erred"})
"""States in which it has been begun."""


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
        # Tasks that Dask has released: whether they come back, or are forgotten, is seen next.
        self._left: dict[Any, str] = {}
        self._held: set[Any] = set()  # tasks that wait for others
        # What is put down: tasks that have gone to a worker, when; how far their workers say they are; those that have ended.
        self._begun: dict[Any, float] = {}
        self._tallies: dict[Any, dict[str, Any]] = {}
        self._ended: list[Ended] = []
        self._lookers: dict[str, set[str]] = {}
        self._last: dict[str, tuple[int, ...]] = {}  # what the lookers of a group have been shown
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        said: dict[str, Any] = {LOOK: self._look, LOOK_AWAY: self._look_away, TALLY: self._told, RETRY: self._retry}
        scheduler.handlers |= {"hpcnb_again": self.again, "hpcnb_running": self.running}
        scheduler.stream_handlers.update(said)

    # -- what the scheduler tells --------------------------------------------------------------------------------------

    def transition(self, key: Any, start: str, finish: str, *args: Any, **more: Any) -> None:
        # Some six times for each task, which of what it needs finds nothing in the processor's caches: what is usual is but put
        # down, and entered some hundreds at once.
        if start == "processing" and finish == "memory":
            self._ended.append((self._scheduler.tasks[key], more))
            if len(self._ended) >= AT_ONCE:
                self._enter()
        elif start in WAITING and finish in AHEAD:
            if finish == "processing":
                self._begun[key] = time.monotonic()
                if len(self._begun) >= AT_ONCE:
                    self._enter()
            if self._held and finish != "waiting":
                self._let_go(key)
        else:
            self._move(key, start, finish, more)
        if self._timer is None:
            self._show_soon()

    def _move(self, key: Any, start: str, finish: str, more: dict[str, Any]) -> None:
        """A task comes, goes, or does what is not usual."""
        if finish == "released":
            self._left[key] = start
            return
        if start == "released":
            start = self._left.pop(key, "")
        if finish == "forgotten" and start not in AHEAD:
            return
        task: TaskState = self._scheduler.tasks[key]
        if start or key in self._begun:  # it has been here before
            self._enter()
            self._let_go(key)
        if start == "processing" and finish == "erred":
            self._history.took([(task, more)], failed=True)
        known: Any = task.annotations
        if not known or not (named := known.get(WORK)):
            return
        counts = self._groups.get(named[0]) or (None if start else self._new(*named))
        if counts is not None:
            self._change(counts, task, start, finish, known.get(SIZE) or 1)

    def _change(self, counts: Counts, task: TaskState, start: str, finish: str, size: int) -> None:
        """A task of a group is in another state, or, if it was in none, in its first one."""
        key = task.key
        if start:
            counts.leave(key, start, size)
        else:
            counts.total += size
        if finish == "waiting":
            if start in FURTHER:
                counts.retried += size
            if task.waiting_on:
                self._held.add(key)
                counts.waiting += size
        elif finish == "forgotten":
            counts.cancel(size)
        elif finish == "erred":
            by_itself = task.exception_blame in (None, task)
            worker = next(iter(task.erred_on or ()), "")
            counts.fail(key, size, (task.exception_text or "it failed") if by_itself else "", worker)
        elif finish == "memory":
            counts.find(size)

    def _let_go(self, key: Any) -> None:
        """A task waits for others no longer, if it has."""
        if key in self._held:
            self._held.remove(key)
            known = self._scheduler.tasks[key].annotations
            if counts := self._groups.get(known[WORK][0]):
                counts.waiting -= known.get(SIZE) or 1

    def _enter(self) -> None:
        """Enter what was put down."""
        ended, self._ended = self._ended, []
        begun, self._begun = self._begun, {}
        tallies, self._tallies = self._tallies, {}
        done: dict[str, list[Done]] = {}
        for (task, told), seconds in zip(ended, self._history.took(ended), strict=True):
            key, known = task.key, task.annotations
            begun.pop(key, None)
            tallies.pop(key, None)
            if tally := (told.get("metadata") or {}).get(TALLY):
                task.metadata = None  # it would be there as long as the task
            if known and (named := known.get(WORK)):
                some = done.get(named[0]) or done.setdefault(named[0], [])
                some.append((key, known.get(SIZE), seconds, told["worker"], tally))
        for group, some in done.items():
            if counts := self._groups.get(group):
                counts.finish(some)
        self._go_on(begun, tallies)

    def _go_on(self, begun: dict[Any, float], tallies: dict[Any, dict[str, Any]]) -> None:
        """Tasks have gone to a worker, or their worker has told how far it is, and they have not ended."""
        for key, since in begun.items():
            if counts := self._counts(key):
                counts.running[key] = since
        for key, tally in tallies.items():
            if (counts := self._counts(key)) and key in counts.running:
                counts.tell(key, tally)

    def _counts(self, key: Any) -> Counts | None:
        """Those of a task's group."""
        task = self._scheduler.tasks.get(key)
        named = ((task is not None and task.annotations) or {}).get(WORK)
        return self._groups.get(named[0]) if named else None

    def _new(self, id: str, label: str) -> Counts:
        if len(self._groups) >= MOST:
            over = (one for one, counts in self._groups.items() if counts.ended and one not in self._lookers)
            del self._groups[next(over, next(iter(self._groups)))]
        made = self._groups[id] = Counts(id, label, self._name)
        return made

    def _name(self, address: str) -> str:
        worker = self._scheduler.workers.get(address)
        return str(worker.name) if worker else ""

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        for group in list(self._lookers):
            self._look_away(group, client)

    def restart(self, scheduler: Scheduler) -> None:
        for known in (self._groups, self._left, self._held, self._begun, self._tallies, self._ended):
            known.clear()

    # -- what workers and clients tell ---------------------------------------------------------------------------------

    def _told(self, key: Any, worker: str, cached: int = 0, **tally: Any) -> None:
        if cached:
            if counts := self._counts(key):
                counts.cached += cached
        else:
            self._tallies[key] = tally
        if self._timer is None:
            self._show_soon()

    def _look(self, group: str, client: str) -> None:
        self._enter()
        self._lookers.setdefault(group, set()).add(client)
        self._show(group)

    def _look_away(self, group: str, client: str) -> None:
        lookers = self._lookers.get(group, set())
        lookers.discard(client)
        if not lookers:
            self._lookers.pop(group, None)
            self._last.pop(group, None)

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

    def _show_soon(self) -> None:
        pause = max(0.0, self._at + INTERVAL - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(pause, self._show_all)

    def _show_all(self) -> None:
        """Show the groups that somebody looks at, those of which there is something new."""
        self._timer, self._at = None, time.monotonic()
        self._enter()
        for group in self._lookers:
            counts = self._groups.get(group)
            if counts is not None and counts.figures != self._last.get(group):
                self._show(group)

    def _show(self, group: str) -> None:
        counts = self._groups.get(group) or Counts(group, "", self._name)
        self._last[group] = counts.figures
        told = {"op": SUMMARY, "summary": to_message(self._summary(counts))}
        for client in self._lookers[group]:
            self._scheduler.report(told, client=client)

    def _summary(self, counts: Counts) -> Summary:
        return counts.summary(self._scheduler.total_nthreads, self._beside(counts.id), self._where)

    def _where(self, key: Any) -> str:
        """The worker that has a task."""
        task = self._scheduler.tasks.get(key)
        return str(task.processing_on.name) if task is not None and task.processing_on is not None else ""

    def _beside(self, group: str) -> int:
        """Tasks that run without a core."""
        workers = self._scheduler.workers.values()
        tasks = (task for worker in workers for task in worker.long_running)
        return sum((task.annotations or {}).get(WORK, ("",))[0] == group for task in tasks)
