"""What the scheduler tells the pilot: that it listens, its workers, and how much there is to do."""

from __future__ import annotations

from collections import Counter
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler
from tornado.ioloop import PeriodicCallback

from hpcnb.pilot.events import emit

INTERVAL = 250
"""Milliseconds between two summaries: four a second at most, and none while nothing changes."""


class Load(SchedulerPlugin):
    """Publishes a summary of constant size, whatever the number of tasks.

    Counters move with each transition (O(1)); no task list is ever walked.
    """

    name = "hpcnb-load"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._tasks: Counter[str] = Counter()
        self._published: dict[str, Any] = {}

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        self._tasks[start] -= 1
        self._tasks[finish] += 1

    def publish(self) -> None:
        """Emit the summary if it differs from the last one."""
        workers = self._scheduler.workers.values()
        states = ("waiting", "queued", "no-worker", "processing", "memory", "erred")
        summary = {
            "workers": len(workers),
            "cores": sum(w.nthreads for w in workers),
            "tasks": {s: self._tasks[s] for s in states if self._tasks[s] > 0},
        }
        if summary != self._published:
            self._published = summary
            emit("load", **summary)


async def dask_setup(scheduler: Scheduler) -> None:
    """Dask calls this once the scheduler listens (``--preload``)."""
    plugin = Load(scheduler)
    scheduler.add_plugin(plugin)
    scheduler.periodic_callbacks["hpcnb-load"] = PeriodicCallback(plugin.publish, INTERVAL)
    emit("scheduler", address=scheduler.address)
