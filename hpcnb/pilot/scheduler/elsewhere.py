"""A task that is tried again is tried elsewhere: what is wrong may be wrong with its worker or its node."""

from __future__ import annotations

from typing import Any

from distributed.scheduler import Scheduler

__all__ = ["SAME_FIRST", "Elsewhere"]

SAME_FIRST = "hpcnb_same_first"
"""The annotation of a task that is first tried again where it has failed."""


class Elsewhere:
    """Has the next attempt of a failed task avoid the worker on which it has failed, where there is another one.

    A task with constraints goes where these allow: Dask would rather forget them than let it wait.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler: Any = scheduler
        self._erred = scheduler.stream_handlers["task-erred"]
        scheduler.stream_handlers["task-erred"] = self._avoid

    def _avoid(self, key: Any, worker: str, **message: Any) -> None:
        task = self._scheduler.tasks.get(key)
        if task is not None and task.retries > 0 and not (task.resource_restrictions or task.host_restrictions):
            same = {worker}
            first = (task.annotations or {}).get(SAME_FIRST) and not task.worker_restrictions
            task.worker_restrictions = same if first else set(self._scheduler.workers) - same or same
            task.loose_restrictions = True  # whoever is meant may have gone by then
        self._erred(key=key, worker=worker, **message)
