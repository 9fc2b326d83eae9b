"""What the scheduler tells of work, group by group, to those who look: four times a second at most, and only what has changed."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections import OrderedDict
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, TaskState

from hpcnb.pilot.counts import Counts, to_message
from hpcnb.pilot.history import History
from hpcnb.pilot.keeper import SIZE, state_of
from hpcnb.pilot.tally import TALLY, WORK

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
FURTHER = frozenset({"memory", "erred", "processing"})
"""States in which a task has been begun."""
WAITING = frozenset({"waiting", "queued", "no-worker"})
OVER = frozenset({"memory", "erred", "released", ""})
"""States from which it is forgotten without being missed; empty: it never was in any."""


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
        said: dict[str, Any] = {LOOK: self._look, LOOK_AWAY: self._look_away, TALLY: self._told, RETRY: self._retry}
        scheduler.handlers |= {"hpcnb_again": self.again, "hpcnb_running": self.running}
        scheduler.stream_handlers.update(said)

    # -- what the scheduler tells --------------------------------------------------------------------------------------

    def transition(self, key: Any, start: str, finish: str, *args: Any, **more: Any) -> None:
        # Some six times for each task: what is not needed is not done, and what is frequent comes first.
        if finish == "released":
            self._left[key] = start
            return
        if start == "released":
            start = self._left.pop(key, "")
        if finish == "forgotten" and start in OVER:
            return
        task: TaskState = self._scheduler.tasks[key]
        annotations = task.annotations
        if annotations and WORK in annotations and start != finish:
            group = annotations[WORK][0]
            if (counts := self._groups.get(group)) is not None or not start:
                self._moved(counts or self._new(*annotations[WORK]), task, start, finish, more)
                if group in self._lookers and group not in self._due:
                    self._show_soon(group)
        elif start == "processing":
            self._took(key, finish, more)

    def _moved(self, counts: Counts, task: TaskState, start: str, finish: str, more: dict[str, Any]) -> None:
        size = (task.annotations or {}).get(SIZE) or 1
        if finish == "memory" and start == "processing":
            counts.finish(task.key, size, self._took(task.key, finish, more))
        elif finish == "processing":
            worker = task.processing_on
            counts.begin(task.key, STATES.get(start, ""), size, worker and worker.name, again=start in FURTHER)
        elif finish in WAITING and start not in FURTHER:
            counts.count[STATES[finish]] += size
            if start:
                counts.count[STATES[start]] -= size
        else:
            if start == "processing":
                self._took(task.key, finish, more)
            self._entered(counts, task, start, finish, size)

    def _took(self, key: Any, finish: str, more: dict[str, Any]) -> float:
        times = more.get("startstops")
        return self._history.took(key, more.get("worker"), times, failed=finish == "erred") if times else 0.0

    def _entered(self, counts: Counts, task: TaskState, start: str, finish: str, size: int) -> None:
        if start:
            counts.leave(task.key, STATES[start], size)
        if finish == "forgotten":
            counts.cancel(size)
        elif finish == "erred":
            by_itself = task.exception_blame in (None, task)
            worker = self._name(next(iter(task.erred_on or ()), ""))
            counts.fail(task.key, size, (task.exception_text or "it failed") if by_itself else "", worker)
        else:
            counts.enter(STATES[finish], size, again=start in FURTHER)

    def _new(self, id: str, label: str) -> Counts:
        if len(self._groups) >= MOST:
            over = (one for one, counts in self._groups.items() if counts.ended and one not in self._lookers)
            del self._groups[next(over, next(iter(self._groups)))]
        made = self._groups[id] = Counts(id, label)
        return made

    def _name(self, address: str) -> str:
        worker = self._scheduler.workers.get(address)
        return str(worker.name) if worker else ""

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        for group in list(self._lookers):
            self._look_away(group, client)

    def restart(self, scheduler: Scheduler) -> None:
        self._groups.clear()
        self._left.clear()

    # -- what workers and clients tell ---------------------------------------------------------------------------------

    def _told(self, key: Any, worker: str, cached: int = 0, **tally: Any) -> None:
        task = self._scheduler.tasks.get(key)
        named = ((task is not None and task.annotations) or {}).get(WORK)
        if named and (counts := self._groups.get(named[0])):
            counts.cached += cached
            if tally:
                counts.tell(key, tally)
            if counts.id in self._lookers and counts.id not in self._due:
                self._show_soon(counts.id)

    def _look(self, group: str, client: str) -> None:
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
            ``calls``: `hpcnb.pilot.batch.Calls`, pickled; ``needs``: keys of the batches that they take arguments from; ``work``: id and
            label of their group.
        """
        task = self._scheduler.tasks.get(key)
        if task is None or task.state != "memory":
            return {}
        named = (task.annotations or {}).get(WORK) or ("", "")
        if counts := self._groups.get(named[0]):
            counts.take_back(key, len(indices))
        needs = [one.key for one in task.run_spec.args]
        return {"calls": pickle.dumps(task.run_spec.func.only(indices)), "needs": needs, "work": named}

    def running(self, keys: list[Any]) -> list[Any]:
        """Which of some tasks run, as workers have said last."""
        tasks = self._scheduler.tasks
        return [key for key in keys if key in tasks and state_of(tasks[key]) == "executing"]

    # -- what they are shown -------------------------------------------------------------------------------------------

    def _show_soon(self, group: str) -> None:
        """Of a group that somebody looks at, and that is not about to be shown anyway."""
        pause = max(0.0, self._last.get(group, 0.0) + INTERVAL - time.monotonic())
        self._due[group] = asyncio.get_running_loop().call_later(pause, self._show_all, group)

    def _show_all(self, group: str) -> None:
        del self._due[group]
        self._last[group] = time.monotonic()
        self._show(group, tuple(self._lookers.get(group, ())))

    def _show(self, group: str, clients: tuple[str, ...]) -> None:
        counts = self._groups.get(group) or Counts(group, "")
        told = {
            "op": SUMMARY,
            "summary": to_message(counts.summary(self._scheduler.total_nthreads, self._beside(group))),
        }
        for client in clients:
            self._scheduler.report(told, client=client)

    def _beside(self, group: str) -> int:
        """Tasks that run without a core."""
        return sum(
            1
            for worker in self._scheduler.workers.values()
            for task in worker.long_running
            if (task.annotations or {}).get(WORK, ("",))[0] == group
        )
