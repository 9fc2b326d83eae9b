"""How it stands with one task: what it waits for, which worker has it, how often it was begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, TaskState

from hpcnb.pilot.output.capture import ATTEMPT
from hpcnb.pilot.scheduler.keeper import state_of

__all__ = ["Known"]

BEGUN = ("executing", "processing", "memory", "erred")
FEW = 3
"""Keys that are named of those that a task waits for."""


class Known(SchedulerPlugin):
    """Answers a client that asks for one task.

    Parameters
    ----------
    scheduler : Scheduler
    deaths : callable, optional
        Tells of the workers that have died while a task ran on them (see `hpcnb.pilot.scheduler.suspects`).
    """

    name = "hpcnb-known"

    def __init__(self, scheduler: Scheduler, deaths: Callable[[Any], list[str]] = lambda _: []) -> None:
        self._deaths = deaths
        self._scheduler: Any = scheduler
        self._again: Counter[Any] = Counter()
        self._scheduler.handlers["hpcnb_known"] = self.tell

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        if start == "processing" and finish in ("waiting", "released"):  # it was tried in vain, or its worker is gone
            self._again[key] += 1
            if (task := self._scheduler.tasks.get(key)) is not None:  # its worker marks what it prints by it
                task.annotations = {**(task.annotations or {}), ATTEMPT: self._again[key] + 1}
        elif finish == "forgotten" and self._again:
            self._again.pop(key, None)

    def tell(self, key: Any) -> dict[str, Any]:
        """How it stands with a task.

        Returns
        -------
        dict
            ``state`` (Dask's word, ``executing`` or ``forgotten``), ``attempts``, ``worker`` (its name; empty: none), ``needs`` and
            ``first``: how many tasks it waits for, and some of their keys, ``asks``: resources, ``deaths``: of its workers,
            ``before``: names of tasks that run on the worker where it waits.
        """
        task: TaskState | None = self._scheduler.tasks.get(key)
        if task is None:
            return {
                "state": "forgotten",
                "attempts": 0,
                "worker": "",
                "needs": 0,
                "first": [],
                "asks": {},
                "deaths": [],
                "before": [],
            }
        needs = [other.key for other in task.waiting_on or ()]
        state = state_of(task)
        return {
            "state": state,
            "attempts": self._again.get(key, 0) + (state in BEGUN and task.exception_blame in (None, task)),
            "worker": self._worker(task),
            "needs": len(needs),
            "first": [str(other) for other in needs[:FEW]],
            "asks": dict(task.resource_restrictions or {}),
            "deaths": self._deaths(key),
            "before": _before(task),
        }

    def _worker(self, task: TaskState) -> str:
        if task.processing_on is not None:
            return str(task.processing_on.name)
        if task.who_has:
            return str(next(iter(task.who_has)).name)
        addresses = [address for address in task.erred_on or () if address in self._scheduler.workers]
        return str(self._scheduler.workers[addresses[-1]].name) if addresses else ""


def _before(task: TaskState) -> list[str]:
    worker = task.processing_on
    names = {
        key_split(other.key): None for other in (worker.executing if worker is not None else ()) if other is not task
    }
    return [str(name) for name in names][:FEW]
