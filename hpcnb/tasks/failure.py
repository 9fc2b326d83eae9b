"""What happens when a task fails: it is tried again, ignored, or ends others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Reschedule

from hpcnb import serializing
from hpcnb.future.constraints import Constraints
from hpcnb.future.gpus import Pinned
from hpcnb.pilot.worker.cache import Cached
from hpcnb.pilot.worker.packed import unpacked
from hpcnb.tasks.body import Argument, Body, leaves, only
from hpcnb.tasks.staging import Content

__all__ = ["CANCEL_SUCCESSORS", "FAIL", "IGNORE", "POLICIES", "RETRY", "Options", "called"]

RETRY, CANCEL_SUCCESSORS, FAIL, IGNORE = POLICIES = ("RETRY", "CANCEL_SUCCESSORS", "FAIL", "IGNORE")
TWICE = 2
"""How often a task that says RETRY, and not how often, is tried again."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a task is run; see `hpcnb.task`."""

    returns: int = 1
    timeout: float | None = None
    retries: int | None = None
    priority: int = 0
    isolate: bool = False
    on_failure: str | None = None
    default: Any = None
    cache: bool = False
    constraints: Constraints = field(default_factory=Constraints)

    def __post_init__(self) -> None:
        if self.on_failure is not None and self.on_failure not in POLICIES:
            raise ValueError(f"on_failure={self.on_failure!r}: it is one of {', '.join(POLICIES)}")

    @property
    def again(self) -> int:
        """How often it is tried again."""
        return (TWICE if self.on_failure == RETRY else 0) if self.retries is None else self.retries


def called(body: Body, options: Options, needed: Mapping[str, float]) -> Any:
    """What one worker does: call, and where the policy says so call again and at last give what a failure is worth."""
    ignored = options.on_failure == IGNORE
    # A thread that is late may be stuck where nothing else than the end of its process helps.
    isolate = options.isolate or (ignored and options.timeout is not None)
    work: Any = Cached(fn=body, code=body.code(), content=body.content) if options.cache else body
    call: Any
    if gpus := int(needed.get("gpus", 0)):
        call = Pinned(work, gpus, options.timeout)
    else:
        call = serializing.call(work, timeout=options.timeout, isolate=isolate)
    return Attempts(call, options.again, Instead(body.arguments, options.returns, options.default)) if ignored else call


class Attempts:
    """A call that is tried again where it has failed, and does not fail.

    Parameters
    ----------
    call : callable
    again : int
    instead : callable
        Gives what it is worth when all attempts have failed.
    """

    isolates = True  # as the call itself says to the scheduler

    def __init__(self, call: Callable[..., Any], again: int, instead: Callable[[Sequence[Any]], Any]) -> None:
        self._call, self._again, self._instead = call, again, instead
        self.__name__ = call.__name__

    def __call__(self, values: Sequence[Any]) -> Any:
        for _ in range(1 + self._again):
            try:
                return self._call(values)
            except Reschedule:  # it was cancelled
                raise
            except Exception:  # noqa: S112 - which is what was asked for
                continue
        return self._instead(unpacked(values))


class Instead:
    """The outputs of a task whose failure is ignored: its default, and what it should have written as it was before.

    Parameters
    ----------
    arguments : sequence of Argument
    returns : int
    default : object
        Of each value that it returns; or a tuple of them.
    """

    def __init__(self, arguments: Sequence[Argument], returns: int, default: Any) -> None:
        self._arguments = tuple(arguments)
        one_each = isinstance(default, tuple) and len(default) == returns > 1
        self._defaults = list(default) if one_each else [default] * returns

    def __call__(self, values: Sequence[Any]) -> Any:
        return only([*self._defaults, *self._unwritten(values)])

    def _unwritten(self, values: Sequence[Any]) -> Iterator[Any]:
        for value, argument in zip(values, self._arguments, strict=True):
            direction = argument.direction
            if direction.writes:
                for leaf in leaves(value, direction.depth):
                    empty = direction.is_path and not direction.is_shared and leaf is None
                    yield Content(kind=direction.kind) if empty else leaf
