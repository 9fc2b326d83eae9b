"""A task that is one worker's alone fails with that worker: it is run nowhere else, and not twice."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler

from hpcnb.errors import TaskLost
from hpcnb.pilot.scheduler.refusals import Refusals
from hpcnb.pilot.scheduler.suspects import Suspects

__all__ = ["PINNED", "Pinned"]

PINNED = "hpcnb_pinned"
"""The annotation of such a task: the name of its worker."""


class Pinned(SchedulerPlugin):
    """Ends such tasks when their workers have gone; to Dask they wait for a worker at the same address.

    Parameters
    ----------
    scheduler : Scheduler
    suspects : Suspects
        Who knows how the worker died.
    refusals : Refusals
        Who ends tasks.
    """

    name = "hpcnb-pinned"

    def __init__(self, scheduler: Scheduler, suspects: Suspects, refusals: Refusals) -> None:
        self._scheduler: Any = scheduler
        self._suspects, self._refusals = suspects, refusals
        self._ending: set[asyncio.Task[None]] = set()

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        if finish != "no-worker":
            return
        task = self._scheduler.tasks.get(key)
        if task is not None and (worker := (task.annotations or {}).get(PINNED)):
            task.worker_restrictions = {worker}  # no address: whoever gets that one has nothing to do with it
            ending = asyncio.ensure_future(self._end(key, worker))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _end(self, key: Any, worker: str) -> None:
        how = await self._suspects.how_died(worker)
        self._refusals.refuse(
            key,
            TaskLost(
                f"worker {worker} is gone, before it had brought what came of the cell",
                evidence=how,
                remedy="It was not run again. A worker that takes its place has none of its variables.",
            ),
        )
