"""A task in several versions: the scheduler takes a worker that suits one of them, and the worker runs that one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed.scheduler import Scheduler, TaskState, WorkerState
from distributed.utils import thread_state  # type: ignore[attr-defined]
from distributed.worker import get_worker

from hpcnb.pilot.scheduler.suspects import APART
from hpcnb.pilot.worker.cores import CORES

__all__ = ["Chooser", "Versions", "choice"]

VERSION = "hpcnb_version"
"""The annotation of a task that says which of its versions its worker is to run."""
SOME = 256
"""Tasks of a worker that are looked at to know what they need."""


class Versions:
    """One task in several versions, as the function of a task of Dask's.

    Parameters
    ----------
    calls : sequence of callable
        The best first; all take the same arguments.
    needs : sequence of mapping
        What each needs of a worker.
    """

    isolates = True  # as each of the calls says to the scheduler

    def __init__(self, calls: Sequence[Callable[..., Any]], needs: Sequence[Mapping[str, float]]) -> None:
        self._calls = tuple(calls)
        # Each has a core at least, so that to Dask the task always has constraints.
        self.needs = tuple({CORES: 1, **one} for one in needs)
        self.__name__ = calls[0].__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the version that the scheduler has chosen."""
        task = get_worker().state.tasks[thread_state.key]
        return self._calls[(task.annotations or {}).get(VERSION, 0)](*args, **kwargs)


def choice(needs: Sequence[Mapping[str, float]], offered: Mapping[str, float], used: Mapping[str, float]) -> int | None:
    """Which version a worker runs: the first for which it has room now, else the one that has to wait for the least.

    Parameters
    ----------
    needs : sequence of mapping
        Of each version, the best first.
    offered, used : mapping
        What the worker has, and what of it the tasks that it was given need, which may be more.

    Returns
    -------
    int or None
        None: it suits none of them.

    Examples
    --------
    >>> needs = [{"cores": 1, "gpus": 1}, {"cores": 1}]
    >>> [choice(needs, {"cores": 4, "gpus": 1}, {"cores": n, "gpus": n}) for n in (0, 1)]
    [0, 1]
    >>> choice(needs, {"cores": 4, "gpus": 0}, {})
    1
    """
    loads = {
        number: max(
            ((used.get(name, 0) + amount) / offered[name] for name, amount in one.items() if amount), default=0.0
        )
        for number, one in enumerate(needs)
        if all(offered.get(name, -1) >= amount for name, amount in one.items())
    }
    free = [number for number, load in loads.items() if load <= 1]
    return min(free) if free else min(loads, key=lambda number: loads[number], default=None)


class Chooser:
    """Has the scheduler choose for such a task among the workers that suit any of its versions."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        chooses: Any = scheduler
        self._valid, self._acquire, self._send = (
            scheduler.valid_workers,
            scheduler.acquire_resources,
            scheduler.send_task_to_worker,
        )
        chooses.valid_workers, chooses.acquire_resources = self._suited, self._acquired
        chooses.send_task_to_worker = self._stolen

    def _suited(self, task: TaskState) -> set[WorkerState] | None:
        needs = _needs(task)
        if not needs:
            return self._valid(task)
        asked, found = task.resource_restrictions, set[WorkerState]()
        for one in needs:
            task.resource_restrictions = dict(one)
            found |= self._valid(task) or set()
        task.resource_restrictions = asked
        return found

    def _acquired(self, task: TaskState, worker: WorkerState) -> None:
        _choose(task, worker)
        self._acquire(task, worker)

    def _stolen(self, worker: str, task: TaskState) -> None:
        """Choose anew for a task that one worker takes from another."""
        _choose(task, self._scheduler.workers[worker])
        self._send(worker, task)


def _needs(task: TaskState) -> Sequence[Mapping[str, float]]:
    needs: Sequence[Mapping[str, float]] = getattr(getattr(task.run_spec, "func", None), "needs", ())
    if needs and (apart := (task.annotations or {}).get(APART)):
        return [{**one, CORES: apart} for one in needs]
    return needs


def _choose(task: TaskState, worker: WorkerState) -> None:
    if needs := _needs(task):
        number = choice(needs, worker.resources, _used(worker, but=task)) or 0
        task.resource_restrictions = dict(needs[number])
        task.annotations = {**(task.annotations or {}), VERSION: number}


def _used(worker: WorkerState, but: TaskState) -> dict[str, float]:
    """What all that a worker was given needs, of many tasks roughly; Dask's own book of it goes wrong with tasks that are stolen."""
    some = list(itertools.islice(worker.processing, SOME))
    used: dict[str, float] = {}
    for task in some:
        for name, amount in {CORES: 1, **(task.resource_restrictions or {})}.items():
            used[name] = used.get(name, 0) + (amount if task is not but else 0)
    return {name: amount * len(worker.processing) / len(some) for name, amount in used.items()}
