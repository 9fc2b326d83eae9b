"""Tasks that no worker can ever run fail, with what their client says of it, and so does what needs them."""

from __future__ import annotations

import asyncio
import pickle
import uuid
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler

__all__ = ["REFUSE", "Refusals"]

REFUSE = "hpcnb-refuse"
"""The message of a client, with an error that is pickled."""


class Refusals(SchedulerPlugin):
    """Ends tasks that wait for a worker in vain."""

    name = "hpcnb-refusals"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler: Any = scheduler
        self._errors: dict[Any, bytes] = {}
        scheduler.stream_handlers[REFUSE] = self._refuse

    def refuse(self, key: Any, error: Exception) -> None:
        """End a task, once it waits for a worker in vain."""
        self._refuse(key, pickle.dumps(error))

    def _refuse(self, key: Any, error: bytes, client: str = "") -> None:
        if key in self._scheduler.tasks:
            self._errors[key] = error
            self._end(key)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        if key in self._errors:
            if finish in ("memory", "erred", "forgotten"):
                del self._errors[key]
            elif finish == "no-worker":  # Dask is in the middle of it
                asyncio.get_running_loop().call_soon(self._end, key)

    def _end(self, key: Any) -> None:
        task = self._scheduler.tasks.get(key)
        if task is not None and task.state == "no-worker" and (error := self._errors.get(key)) is not None:
            stimulus = f"hpcnb-refused-{uuid.uuid4()}"
            then = self._scheduler.transition(key, "erred", exception=error, cause=key, stimulus_id=stimulus)
            self._scheduler.transitions(then, stimulus)
