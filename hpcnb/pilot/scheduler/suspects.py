"""Tasks whose worker died: which of them may have done it is not known, so each that may is run where it can harm nobody."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import distributed
from distributed.core import rpc
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, TaskState, WorkerState

from hpcnb.pilot.events import emit
from hpcnb.pilot.worker.cores import CORES

__all__ = ["APART", "SUSPECT", "Suspects", "tell_of_death"]

SUSPECT = "hpcnb_suspect"
"""The annotation of a task that ran on a worker that has died."""
APART = "hpcnb_apart"
"""That of one which has its worker for itself, with the number of its cores."""
REMEMBERED = 20
"""Deaths that are told of a task; in a storm of them, most say nothing about it."""
RECENT = 100
"""Deaths that are remembered, of whatever."""
POISON = 2
"""So many workers may die of what a suspect runs; with the one whose death made it a suspect, they are three."""
STORM = 600.0
"""Seconds for which a worker that died of something else makes it likelier that the next one does so, too."""
DOUBT = 2
"""So many more may die for each of those; for `MOST` of them, and no more: what kills workers in a storm is named as well."""
MOST = 4
PATIENCE = 5.0
"""Seconds that a node has to say how its worker died; who says nothing by then has died as well."""
JUST = 1.0
"""Seconds for which a death is what has just happened."""
TELLING = 60.0
"""Seconds that a new worker tries to say how the one before it died; then it ends, for it would be taken for that one."""


@dataclass(kw_only=True, eq=False)
class Death:
    """The end of a worker that nobody had asked for.

    Parameters
    ----------
    worker, host : str
    how : str
        In the words of its node's supervisor; empty: it has said nothing (yet).
    """

    worker: str
    host: str
    how: str = ""
    at: float = field(default_factory=time.monotonic)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def __str__(self) -> str:
        return f"its worker {self.worker} on {self.host} {self.how or 'died'}"


class Suspects(SchedulerPlugin):
    """Has the tasks that ran on a dead worker run in processes of their own.

    Dask counts each death of a worker against all tasks that were with it, and gives up those that it has counted four times, even if
    each time it was the batch system that ended the worker. A task of ours is not counted: what it breaks when it
    runs by itself says whether it was to blame (`hpcnb.pilot.worker.call`). Tasks of plain Dask are treated as ever.

    What kills its worker even from a process of its own has a worker for itself the next time; if that dies as well, and its node
    lives to say so, nothing else can have been to blame: the task is poison.
    """

    name = "hpcnb-suspects"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler: Any = scheduler
        self._histories: dict[Any, deque[Death]] = {}
        self._last: dict[str, Death] = {}  # of each worker's name
        self._recent: deque[Death] = deque(maxlen=RECENT)
        self._begun: dict[Any, tuple[str, Any]] = {}
        self._blamed: defaultdict[Any, dict[Any, list[Death]]] = defaultdict(dict)
        # Dask tells plugins of it when it has already sent the tasks elsewhere.
        self._remove_worker = scheduler.remove_worker
        told: Any = scheduler
        told.remove_worker = self._remove
        told.handlers.update(hpcnb_begin=self.begin, hpcnb_died=self.died)

    async def _remove(self, address: str, *, expected: bool = False, **more: Any) -> Any:
        worker = self._scheduler.workers.get(self._scheduler.coerce_address(address))
        if worker is not None and not expected:
            self._suspect(worker)
        return await self._remove_worker(address, expected=expected, **more)

    def _suspect(self, worker: WorkerState) -> None:
        ours = [task for task in worker.processing if _is_ours(task)]
        death = self._last[str(worker.name)] = Death(worker=str(worker.name), host=worker.host)
        self._recent.append(death)
        for task in ours:
            task.suspicious -= 1  # Dask adds one
        begun = {task for task in ours if self._begun.get(task.key, ("",))[0] == worker.address}
        for task in begun | _started(worker, ours):
            self._histories.setdefault(task.key, deque(maxlen=REMEMBERED)).append(death)
            task.annotations = {**(task.annotations or {}), SUSPECT: True}
        for task in begun:
            _, member = self._begun.pop(task.key)
            self._blamed[task.key].setdefault(member, []).append(death)
            self._set_apart(task)

    def _set_apart(self, task: TaskState) -> None:
        """Let a task have all cores of its worker."""
        needed = task.resource_restrictions or {}
        offers = [worker.resources for worker in self._scheduler.workers.values()]
        fit = [offer[CORES] for offer in offers if all(offer.get(name, 0) >= needed[name] for name in needed)]
        if cores := max(fit, default=0):
            task.resource_restrictions = {**needed, CORES: cores}
            task.annotations = {**(task.annotations or {}), APART: cores}

    # -- what workers and nodes say ------------------------------------------------------------------------------------

    async def died(self, worker: str, how: str) -> None:
        """How a worker died, in the words of its node's supervisor."""
        if seen := self._scheduler.aliases.get(worker):  # it is heard of sooner than its connection's end is
            await self._remove(seen, stimulus_id=f"hpcnb-died-{worker}")
        if (last := self._last.get(worker)) is not None and not last.how:
            last.how = how
            last.told.set()
        if not worker.startswith("0-") and not how.endswith("exit status 0"):
            # The pilot of a further job has no link by which it could say so itself.
            emit("worker-exit", worker=f"worker-{worker}", how=how, code=None)

    async def begin(self, key: Any, member: Any, worker: str) -> dict[str, Any]:
        """A suspect is about to run in a process of its own.

        Returns
        -------
        dict
            ``history``: of the workers that have died while it ran on them, a sentence each; ``poison``: it must not run again.
        """
        await _told(list(self._histories.get(key, ())))
        self._begun[key] = (worker, member)
        return {"history": self.history(key), "poison": self._is_poison(key, member)}

    async def how_died(self, worker: str) -> str:
        """What there is to say of a worker that has gone just now; empty: it was asked to."""
        death = self._last.get(worker)
        if death is None or time.monotonic() - death.at > JUST:
            return ""
        await _told([death])
        return str(death)

    def _is_poison(self, key: Any, member: Any) -> bool:
        mine, now = self._histories.get(key, ()), time.monotonic()
        others = sum(death not in mine and now - death.at < STORM for death in self._recent)
        blamed = self._blamed.get(key, {}).get(member, [])
        if sum(bool(death.how) for death in blamed) < POISON + DOUBT * min(others, MOST):
            return False
        for death in mine:  # they are explained
            if death in self._recent:
                self._recent.remove(death)
        return True

    def history(self, key: Any) -> list[str]:
        """Of the workers that have died while a task ran on them, a sentence each."""
        return [str(death) for death in self._histories.get(key, ())]

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        if finish == "forgotten" and self._histories:
            self._histories.pop(key, None)
            self._blamed.pop(key, None)
        if finish in ("memory", "erred", "forgotten") and self._begun:
            self._begun.pop(key, None)


async def _told(deaths: Sequence[Death]) -> None:
    """Wait until it is known how workers died, or nobody will say so any more."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            for death in deaths:
                await death.told.wait()
    for death in deaths:
        death.told.set()  # it is not waited for again


def _started(worker: WorkerState, tasks: list[TaskState]) -> set[TaskState]:
    """Which of these may have run: those that it has said run, and those that were next by their priority."""
    told = {task for task in tasks if task in worker.executing or task in worker.long_running}
    return told | set(heapq.nsmallest(2 * worker.nthreads, tasks, key=lambda task: task.priority or ()))


def _is_ours(task: TaskState) -> bool:
    """Whether it runs by a `Call`, or by what else of ours isolates what is suspected."""
    return bool(getattr(getattr(task.run_spec, "func", None), "isolates", False))


def tell_of_death(scheduler: str, worker: str, how: str) -> None:
    """Tell the scheduler how a worker died, before its successor is known there.

    Parameters
    ----------
    scheduler : str
        Its address.
    worker : str
        The name that both have.
    how : str
    """

    async def tell() -> None:
        security: Any = distributed.Security()
        there: Any = rpc(scheduler, connection_args=security.get_connection_args("worker"))
        try:
            async with asyncio.timeout(TELLING):
                await there.hpcnb_died(worker=worker, how=how)
        finally:
            await there.close_rpc()

    try:
        asyncio.run(tell())
    except TimeoutError:
        raise
    except OSError:  # the worker itself will find that there is no scheduler
        return
