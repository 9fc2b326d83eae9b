"""The calls that a cell has become: they are waited for, and end together; of those that failed the first is raised, and all are named."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from hpcnb.errors import TaskTimeout
from hpcnb.future.future import Future
from hpcnb.future.verbs import wait
from hpcnb.future.work import together, work_now
from hpcnb.notebook.remote_error import shown

if TYPE_CHECKING:
    from hpcnb.future.ledger import Ledger
    from hpcnb.notebook.options import Options

__all__ = ["Calls"]

NAMED = 5
"""Calls that are named of those that failed."""
PATIENCE = 2.0
"""Seconds after which it is said what is waited for."""


class Calls:
    """Those of one cell.

    Parameters
    ----------
    label : str
        What they are called together.
    kind : str
        What each is one of, in the plural.
    names : callable
        What one is called, by its number.
    number : int
    options : Options
        The time of ``--timeout`` is that of all together.
    """

    def __init__(self, label: str, kind: str, names: Callable[[int], str], number: int, options: Options) -> None:
        self._label, self._kind, self._named, self._number = label, kind, names, number
        self._options = options
        self._futures: list[Future] = []

    def run(
        self,
        ledger: Ledger,
        submit: Callable[[], Sequence[Future]],
        *,
        rest: Callable[[Any, list[Future]], str] = lambda error, futures: "",
        late: Callable[[list[Future]], object] = lambda futures: None,
    ) -> list[Any]:
        """Submit them, and wait; the values in order.

        Parameters
        ----------
        ledger : Ledger
        submit : callable
        rest : callable, optional
            Told of the error with which the cell ends, and of all of them: says what becomes of the others' results.
        late : callable, optional
            Told of those that have not ended after a while, once.

        Raises
        ------
        TaskTimeout
            The time was over; what had not ended was cancelled.
        BaseException
            What the first has raised that failed; the others have ended, too.
        """
        stopped: KeyboardInterrupt | TaskTimeout | None = None
        errors: dict[int, BaseException] = {}
        with together(self._label, shown=not self._options.quiet):
            work = work_now()
            try:
                self._futures = list(submit())
                self._wait(late)
                errors = self._errors()
            except (KeyboardInterrupt, TaskTimeout) as error:
                ledger.cancel_work(work.id)
                stopped = error
            except BaseException:
                ledger.cancel_work(work.id)
                raise
        # Raised here, and without what waited: what was raised last is kept by Python, and would keep all results with it.
        if stopped is not None:
            raise self._with_notes(self._stopped(stopped), "", rest)
        if errors:
            raise self._with_notes(*self._failure(errors), rest)
        return [future.result() for future in self._futures]

    def _wait(self, late: Callable[[list[Future]], object]) -> None:
        limit = self._options.timeout
        deadline = math.inf if limit is None else time.monotonic() + limit
        left = self._left(min(PATIENCE, deadline - time.monotonic()))
        if left and time.monotonic() < deadline:
            late(left)
            left = self._left(None if limit is None else max(0.0, deadline - time.monotonic()))
        if left:
            raise TaskTimeout(f"the cell did not end within its {limit:g} s")

    def _left(self, timeout: float | None) -> list[Future]:
        left = wait(self._futures, timeout).not_done
        return [future for future in self._futures if future in left] if left else []

    def _errors(self) -> dict[int, BaseException]:
        """What was raised, by the number of the call; waits for all."""
        for batch in {future.batch: None for future in self._futures}:
            batch.want()  # all of them, before the first is waited for
        found = {}
        for number, future in enumerate(self._futures):
            try:
                error = future.exception()
            except CancelledError as cancelled:
                error = cancelled
            if error is not None:
                found[number] = error
        return found

    def _stopped(self, error: KeyboardInterrupt | TaskTimeout) -> BaseException:
        ended = sum(future.done() and not future.cancelled() for future in self._futures)
        said = f"{ended:,} of {self._number:,} {self._kind} had ended, the others are cancelled"
        if not self._futures:
            said = "the cell was not sent as a whole; what was sent is cancelled"
        if isinstance(error, TaskTimeout):
            return TaskTimeout(f"{error.what}: {said}")
        return KeyboardInterrupt(said)

    def _failure(self, errors: dict[int, BaseException]) -> tuple[BaseException, str]:
        number, first = next(iter(errors.items()))
        some = "; ".join(map(self._named, list(errors)[:NAMED]))
        more = f"; and {len(errors) - NAMED:,} more" if len(errors) > NAMED else ""
        whose = f" This is the error of {self._named(number)}." if len(errors) > 1 else ""
        note = f"{len(errors):,} of {self._number:,} {self._kind} failed: {some}{more}.{whose}"
        return first.with_traceback(None), note

    def _with_notes(self, error: BaseException, note: str, rest: Callable[[Any, list[Future]], str]) -> BaseException:
        """The error as it is shown: with whose it was, and with what becomes of the others' results."""
        render = getattr(error, "_render_traceback_", lambda: [f"{type(error).__name__}: {error}"])
        futures, self._futures = self._futures, []
        notes = [text for text in (note, rest(error, futures) if futures else "") if text]
        for text in notes:
            error.add_note(text)
        return shown(error, [*render(), *notes])
