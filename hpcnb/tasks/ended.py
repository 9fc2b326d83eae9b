"""The future of a task that returns nothing: it ends as the task does, and is None."""

from __future__ import annotations

from typing import Any

from hpcnb.future.future import Future

__all__ = ["Ended"]


class Ended(Future):
    """A future whose key has a value, what the task wrote, that is not its result and is not brought for it."""

    __slots__ = ()
    _result = property(lambda self: None)

    def result(self, timeout: float | None = None) -> Any:
        """None; waits for the task's end, and raises what it raised."""
        error = self.exception(timeout)
        if error is None:
            return None
        try:
            raise error
        finally:
            del error, self  # as in `Future.result`
