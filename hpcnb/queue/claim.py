"""One task that was taken by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.action import told, with_values
from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.states import TaskState


class Claim:
    """A task from `Queue.get`: carry it out, and say how it ended, once.

    Attributes
    ----------
    id : int
    attempt : int
        1 when it was never begun before.
    task : object
        What was added; a dict has what its parents have passed to it, too.
    values : dict
        That alone.
    """

    def __init__(
        self,
        ask: Callable[..., Any],
        worker: str,
        id: int,
        attempt: int,
        text: str,
        values: dict[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.task = with_values(json.loads(text), values)
        self.values = values or {}
        self._ask = ask
        self._worker = worker
        self._began = time.time()

    def __repr__(self) -> str:
        return f"<task {self.id}, attempt {self.attempt}>"

    def succeed(self, result: Any = None) -> None:
        """Record that it succeeded, with a result that JSON has, or with an `Action`."""
        self._end(TaskState.SUCCEEDED, **told(result))

    def fail(self, error: str, *, code: int | None = None) -> None:
        """Record that it failed, and why; with an exit status, if there was one."""
        self._end(TaskState.FAILED, error=str(error), code=code)

    def _end(self, state: TaskState, **said: Any) -> None:
        outcome = Outcome(self.id, self.attempt, state, began=self._began, ended=time.time(), **said)
        if not self._ask("finish", worker=self._worker, outcomes=[outcome]):
            raise QueueError(
                f"task {self.id} is no longer ours: this attempt was ended already, or given to somebody else",
                remedy="What was recorded first counts.",
            )
