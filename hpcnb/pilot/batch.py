"""Several calls as one task of Dask's, each with its own outcome; and calls whose arguments come from such a task."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from dask.utils import funcname
from distributed.protocol import pickle as dask_pickle

__all__ = ["Calls", "Filled", "Outcomes", "Place", "executing", "pick"]

PLAIN = frozenset({bool, bytes, complex, float, int, str, type(None)})
"""What pickle itself does as well as anything else, and much faster than Dask's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an argument is: the batch, by its number among the task's dependencies, and the call in it."""

    batch: int
    index: int


class Outcomes:
    """What came of the calls of a batch, each pickled by itself: one that cannot be read harms no other.

    Parameters
    ----------
    values : list of bytes
        Empty where there is none.
    errors : dict
        Exceptions with their tracebacks, likewise, by the number of the call.
    seconds : float
        That a call took, on average.
    """

    __slots__ = ("errors", "seconds", "values")

    def __init__(self, values: list[bytes], errors: dict[int, bytes], seconds: float) -> None:
        self.values, self.errors, self.seconds = values, errors, seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return Outcomes, (self.values, self.errors, self.seconds)

    def __sizeof__(self) -> int:
        return 48 * len(self.values) + sum(map(len, self.values)) + sum(map(len, self.errors.values()))

    def get(self, index: int) -> Any:
        """The value of one call; raises what it has raised."""
        if index in self.errors:
            error, traceback = pickle.loads(self.errors[index])  # noqa: S301 - of the user's own worker
            raise error.with_traceback(traceback)
        return pickle.loads(self.values[index])  # noqa: S301 - likewise


class Calls:
    """Several calls of one function, as the function of one task.

    Parameters
    ----------
    fn : callable
    rows : list of tuple
        The arguments of each call; a `Place` is taken from the task's own arguments, which are `Outcomes`.
    retries : int
        How often a call is tried again when it raises.
    """

    __slots__ = ("__name__", "_call", "_retries", "_rows", "_size")

    def __init__(self, fn: Callable[..., Any], rows: Sequence[tuple[Any, ...]], retries: int = 0) -> None:
        self.__name__: str = funcname(fn)
        self._size = len(rows)
        self._retries = retries
        # The scheduler carries bytes, and needs nothing of the user's to read them.
        self._call = dask_pickle.dumps(fn)
        self._rows = dask_pickle.dumps(rows)

    @property
    def nbytes(self) -> int:
        """How much travels for it."""
        return len(self._call) + len(self._rows)

    def __call__(self, *batches: Outcomes) -> Outcomes:
        """Run them, one after the other."""
        call, rows = pickle.loads(self._call), pickle.loads(self._rows)  # noqa: S301 - of the user's own client
        values: list[bytes] = []
        errors: dict[int, bytes] = {}
        start = time.perf_counter()
        for index, row in enumerate(rows):
            value, error = self._outcome(call, row, batches)
            values.append(value)
            if error:
                errors[index] = error
        return Outcomes(values, errors, (time.perf_counter() - start) / max(1, self._size))

    def _outcome(
        self, call: Callable[..., Any], row: tuple[Any, ...], batches: Sequence[Outcomes]
    ) -> tuple[bytes, bytes]:
        try:
            arguments = fill(row, batches) if batches else row
        except BaseException as error:  # of a call that this one needs
            return b"", _portable(error, error.__traceback__)
        for left in range(self._retries, -1, -1):
            try:
                return _packed(call(*arguments)), b""
            except BaseException as error:
                if not left:
                    return b"", _portable(error, error.__traceback__)
        raise AssertionError  # not reached: the last try returns


class Filled:
    """One call of a function, some of whose arguments come from batches.

    Parameters
    ----------
    fn : callable
    """

    __slots__ = ("__name__", "_fn")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.__name__: str = funcname(fn)
        self._fn = fn

    def __reduce__(self) -> tuple[Any, ...]:
        return Filled, (self._fn,)

    def __call__(self, batches: Sequence[Outcomes], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run it."""
        return self._fn(*fill(args, batches), **fill(kwargs, batches))


def pick(outcomes: Outcomes, index: int) -> Any:
    """One value of a batch."""
    return outcomes.get(index)


def executing(dask_worker: Any) -> list[Any]:
    """The keys of the tasks that a worker runs at this moment (for `distributed.Client.run`)."""
    return [task.key for task in dask_worker.state.executing]


def fill(value: Any, batches: Sequence[Outcomes]) -> Any:
    """A value with what stands at each `Place` in it."""
    if type(value) is Place:
        return batches[value.batch].get(value.index)
    if type(value) in (list, tuple, set):
        return type(value)(fill(one, batches) for one in value)
    if type(value) is dict:
        return {key: fill(one, batches) for key, one in value.items()}
    return value


def _packed(value: Any) -> bytes:
    if type(value) in PLAIN:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    packed: bytes = dask_pickle.dumps(value)
    return packed


def _portable(error: BaseException, traceback: TracebackType | None) -> bytes:
    """An exception as it can travel, without the frames of this module."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    for one in (error, RuntimeError(repr(error))):
        try:
            packed: bytes = dask_pickle.dumps((one.with_traceback(None), traceback))
            pickle.loads(packed)  # noqa: S301 - made a line above
            return packed
        except Exception:  # noqa: S112 - one of the user's that cannot travel: its words can
            continue
    return pickle.dumps((RuntimeError(repr(error)), None))
