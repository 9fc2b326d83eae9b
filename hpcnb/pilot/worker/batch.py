"""Several calls as one task of Dask's, each with its own outcome; and calls whose arguments come from such a task."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cloudpickle import cloudpickle
from distributed.protocol import pickle as dask_pickle

from hpcnb.pilot.worker.call import Call, Outcome
from hpcnb.pilot.worker.tally import Tally

__all__ = ["Calls", "Filled", "Outcomes", "Place", "are_plain", "executing", "kept", "pick"]

PLAIN = frozenset({bool, bytes, complex, float, int, str, type(None)})
"""What pickle itself does as well as anything else, and much faster than Dask's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an argument is: the batch, by its number among the task's dependencies, and the call in it."""

    batch: int
    index: int


def are_plain(values: Iterable[Any]) -> bool:
    """Whether all of these are Python's own plain values: of a million numbers it is known at once that none is a future."""
    return PLAIN.issuperset(map(type, values))


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
    call : Call
    rows : list of tuple
        The arguments of each; a `Place` is taken from the task's own arguments, which are `Outcomes`.
    retries : int
        How often a call is tried again when it raises.
    """

    __slots__ = ("__name__", "_call", "_only", "_retries", "_rows")
    isolates = True

    def __init__(self, call: Call, rows: Sequence[tuple[Any, ...]], retries: int = 0) -> None:
        self.__name__: str = call.__name__
        self._call = call
        self._retries = retries
        self._only: tuple[int, ...] = ()
        # The scheduler carries bytes, and needs nothing of the user's to read them.
        self._rows: bytes = cloudpickle.dumps(rows, protocol=pickle.HIGHEST_PROTOCOL)

    def only(self, indices: Sequence[int]) -> Calls:
        """Some of them."""
        other = copy.copy(self)
        other._only = tuple(self._only[index] if self._only else index for index in indices)  # noqa: SLF001 - its twin
        return other

    @property
    def nbytes(self) -> int:
        """How much travels for it."""
        return len(self._call.payload) + len(self._rows)

    def __call__(self, *batches: Outcomes) -> Outcomes:
        """Run them, one after the other."""
        rows = pickle.loads(self._rows)  # noqa: S301 - of the user's own client
        rows = [rows[index] for index in self._only] or rows

        def work(run: Callable[[int, Sequence[Any]], Outcome]) -> Outcomes:
            tally = Tally(len(rows))
            values: list[bytes] = []
            errors: dict[int, bytes] = {}
            for number, row in enumerate(rows):
                outcome, attempts = self._outcome(run, number, row, batches)
                value, error = _packed(outcome)
                values.append(value)
                if error:
                    errors[number] = error
                tally.add(outcome.error, attempts)
            tally.end()
            return Outcomes(values, errors, tally.mean)

        return self._call.together(work)

    def _outcome(
        self,
        run: Callable[[int, Sequence[Any]], Outcome],
        number: int,
        row: tuple[Any, ...],
        batches: Sequence[Outcomes],
    ) -> tuple[Outcome, int]:
        """What came of a call, and how often it was begun."""
        if batches:
            try:
                row = fill(row, batches)
            except Exception as error:  # of a call that this one needs
                return Outcome(error=error), 1
        for attempt in range(1, self._retries + 1):
            outcome = run(number, row)
            if outcome.error is None:
                return outcome, attempt
        return run(number, row), self._retries + 1


class Filled:
    """One call, some of whose arguments come from batches."""

    __slots__ = ("__name__", "_call")
    isolates = True

    def __init__(self, call: Call) -> None:
        self.__name__: str = call.__name__
        self._call = call

    def __call__(self, batches: Sequence[Outcomes], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run it."""
        return self._call(*fill(args, batches), **fill(kwargs, batches))


def pick(outcomes: Outcomes, index: int) -> Any:
    """One value of a batch."""
    return outcomes.get(index)


def kept(value: Any) -> Any:
    """The call that gives a value which other calls need."""
    return value


def executing(dask_worker: Any) -> list[Any]:
    """The keys of the tasks that a worker runs at this moment (for `distributed.Client.run`)."""
    return [task.key for task in dask_worker.state.executing]


def fill(value: Any, batches: Sequence[Outcomes]) -> Any:
    """A value with what stands at each `Place` in it."""
    if type(value) is Place:
        return batches[value.batch].get(value.index)
    if type(value) in (list, tuple, set):
        return value if are_plain(value) else type(value)(fill(one, batches) for one in value)
    if type(value) is dict:
        return {key: fill(one, batches) for key, one in value.items()}
    return value


def _packed(outcome: Outcome) -> tuple[bytes, bytes]:
    """A value or an error, as it travels."""
    if outcome.error is None:
        if type(outcome.value) in PLAIN:
            return pickle.dumps(outcome.value, pickle.HIGHEST_PROTOCOL), b""
        try:
            return dask_pickle.dumps(outcome.value), b""
        except Exception as error:  # it is of those that Dask sends by means of its own
            return b"", dask_pickle.dumps((error, None))
    return b"", dask_pickle.dumps((outcome.error, outcome.error.__traceback__))
