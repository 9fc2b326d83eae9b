"""Tasks whose worker died: which of them may have done it is not known, so each that may is run where it can harm nobody."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, TaskState, WorkerState

from hpcnb.pilot.call import HISTORY

__all__ = ["Suspects"]


REMEMBERED = 10
"""Deaths that are told of a task; in a storm of them, most say nothing about it."""


class Suspects(SchedulerPlugin):
    """Has the tasks that ran on a dead worker run in processes of their own.

    Dask counts each death of a worker against all tasks that were with it, and gives up those that it has counted four times, even if
    each time it was the batch system that ended the worker. A task of ours is not counted: what it breaks when it
    runs by itself says whether it was to blame (`hpcnb.pilot.call`). Tasks of plain Dask are treated as ever.

    Parameters
    ----------
    scheduler : Scheduler
    """

    name = "hpcnb-suspects"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler: Any = scheduler
        self._histories: dict[Any, deque[str]] = {}
        # Dask tells plugins of it when it has already sent the tasks elsewhere.
        self._remove_worker = scheduler.remove_worker
        told: Any = scheduler
        told.remove_worker = self._remove

    async def _remove(self, address: str, *, expected: bool = False, **more: Any) -> Any:
        worker = self._scheduler.workers.get(self._scheduler.coerce_address(address))
        if worker is not None and not expected:
            self._suspect(worker)
        return await self._remove_worker(address, expected=expected, **more)

    def _suspect(self, worker: WorkerState) -> None:
        ours = [task for task in worker.processing if _is_ours(task)]
        for task in ours:
            task.suspicious -= 1  # Dask adds one
        for task in _started(worker, ours):
            self._histories.setdefault(task.key, deque(maxlen=REMEMBERED)).append(
                f"its worker {worker.name} on {worker.host} died"
            )
            task.annotations = {**(task.annotations or {}), HISTORY: tuple(self._histories[task.key])}

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        if finish in ("memory", "erred", "forgotten") and self._histories:
            self._histories.pop(key, None)


def _started(worker: WorkerState, tasks: list[TaskState]) -> set[TaskState]:
    """Which of these may have run: those that it has said run, and those that were next by their priority."""
    told = {task for task in tasks if task in worker.executing or task in worker.long_running}
    return told | set(heapq.nsmallest(2 * worker.nthreads, tasks, key=lambda task: task.priority or ()))


def _is_ours(task: TaskState) -> bool:
    """Whether it runs by a `Call`, or by what else of ours isolates what is suspected."""
    return bool(getattr(getattr(task.run_spec, "func", None), "isolates", False))
