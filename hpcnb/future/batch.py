"""What one key of Dask's stands for: a call, or a batch of calls; its state on this side, and who waits for news of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dask.utils import key_split

from hpcnb.future.revealed import revealed
from hpcnb.pilot.worker.batch import Outcomes

if TYPE_CHECKING:
    from hpcnb.future.batches import Pace
    from hpcnb.future.ledger import Ledger

__all__ = ["CANCELLED", "FINISHED", "PENDING", "Batch"]

CANCELLED = CANCELLED_AND_NOTIFIED

_lock = threading.Lock()
"""One for all, held for a few instructions, in which nothing else is ever waited for: a lock each would be most of a batch."""


class Batch:
    """One key: `PENDING`, then `FINISHED` at the scheduler (or `CANCELLED`), then settled: what came of it is here.

    Parameters
    ----------
    ledger : Ledger
        That of the client which wants it.
    key : str or tuple
    size : int, optional
        The number of calls; None for a single one, whose result is the key's value itself.
    tag : str
    pace : Pace, optional
        What learns from the time that its calls took.
    """

    __slots__ = (
        "__weakref__",
        "_dropped",
        "_errors",
        "_listeners",
        "_released",
        "_traceback",
        "_wanted",
        "again",
        "dask",
        "early",
        "error",
        "key",
        "ledger",
        "needs",
        "pace",
        "settled",
        "size",
        "state",
        "tag",
        "value",
        "work",
        "worker",
    )

    def __init__(
        self, ledger: Ledger, key: Any, *, size: int | None = None, tag: str = "", pace: Pace | None = None
    ) -> None:
        self.ledger = ledger
        self.key = key
        self.size = size
        self.tag = tag
        self.work = ""  # with which others it is shown
        self.worker = ""  # whose alone it is; empty: whoever's
        self.again: dict[int, tuple[Batch, int]] | None = None  # calls that were sent once more, and where they are now
        self.pace = pace
        # Dask's futures of what it depends on, which must not go before the scheduler knows of it.
        self.needs: Sequence[Any] = ()
        self.dask: Any = None
        self.early: bytes | None = None
        self.state = PENDING
        self.settled = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._wanted = False
        self._errors: dict[int, BaseException] = {}
        self._dropped: set[int] = set()
        self._released: set[int] = set()
        self._listeners: list[Callable[[Batch], object]] = []

    # -- what comes of it ----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The scheduler says that its value is in memory."""
        with _lock:
            if self.settled or self.state is CANCELLED:
                return
            self.state, self.needs = FINISHED, ()
            wanted, listeners = self._wanted, tuple(self._listeners)
        if wanted:
            self.ledger.fetch(self)
        for listener in listeners:
            listener(self)

    def settle(self, value: Any = None, error: BaseException | None = None) -> None:
        """Its value has arrived, or it has failed, or somebody has cancelled it."""
        with _lock:
            if self.settled:
                return
            self.settled, self.value, self.error = True, value, error
            self.needs, self.early = (), None
            self._traceback = error.__traceback__ if error else None
            if self.state is PENDING:
                self.state = CANCELLED if isinstance(error, CancelledError) else FINISHED
            listeners, self._listeners = self._listeners, []
        if self.pace is not None and error is None:
            self.pace.learn(value)
        for listener in listeners:
            listener(self)

    def reopen(self) -> bool:
        """It is run again, after it has failed; False: it has not."""
        with _lock:
            if failed := self.error is not None and self.state is FINISHED:
                self.state, self.settled, self.error, self._traceback, self._wanted = PENDING, False, None, None, False
        return failed

    def cancel(self, index: int | None) -> bool:
        """Cancel it, or one of its calls: the key goes when nobody wants anything of it."""
        with _lock:
            if self.state is not PENDING:
                return self.state is CANCELLED or index in self._dropped
            if index is not None:
                self._dropped.add(index)
            if whole := index is None or len(self._dropped) == self.size:
                self.state = CANCELLED
            listeners = tuple(self._listeners)
        if whole:
            self.ledger.cancel(self)
        else:
            self.ledger.drop(self, index)
            for listener in listeners:
                listener(self)
        return True

    # -- what is asked of it -------------------------------------------------------------------------------------------

    @property
    def indices(self) -> Sequence[int | None]:
        """By which its calls are told apart."""
        return range(self.size) if self.size is not None else (None,)

    @property
    def named(self) -> tuple[Any, str, int, str]:
        """What is shown of it: its key, its function's name, the number of its calls, and whose alone it is."""
        return self.key, key_split(self.key), self.size or 1, self.worker

    @property
    def done(self) -> bool:
        """Whether it has ended, with whatever."""
        return self.state is not PENDING

    def drop(self, index: int | None) -> None:
        """Keep no longer what came of one of its calls."""
        if index is not None and isinstance(self.value, list):
            self.value[index] = None

    def state_of(self, index: int | None) -> str:
        """The state of one of its calls."""
        return CANCELLED if index in self._dropped else self.state

    def settled_of(self, index: int | None) -> bool:
        """Whether what came of one of its calls is here."""
        return self.settled or index in self._dropped

    def outcome(self, index: int | None) -> tuple[Any, BaseException | None]:
        """Value and error of one of its calls; it is settled."""
        if index in self._dropped:
            return None, CancelledError()
        if self.error is not None:
            return None, self.error.with_traceback(self._traceback)  # each raise has added its own frames to it
        if index is None:
            return self.value, None
        if isinstance(self.value, Outcomes):
            self._open(self.value)
        member = self._errors.get(index)
        return self.value[index], member and member.with_traceback(None)

    def _open(self, outcomes: Outcomes) -> None:
        """Read what came of its calls; not on the loop, which has other things to do."""
        values: list[Any] = []
        errors: dict[int, BaseException] = {}
        for index in range(len(outcomes.values)):
            value = None
            try:
                value = outcomes.get(index)
            except KeyboardInterrupt:  # the user's own: what a call raises of this kind comes as `TaskFailed`
                raise
            except BaseException as error:
                errors[index] = revealed(error.with_traceback(None))
            values.append(value)
        with _lock:
            if self.value is outcomes:  # else another thread was faster, and its objects are those that are known
                self._errors, self.value = errors, values

    def release(self, index: int | None) -> None:
        """Let the cluster forget it: each of its calls, where there are several."""
        if index is not None:
            self._released.add(index)
        if index is None or len(self._released) == self.size:
            self.ledger.release(self)

    def want(self) -> None:
        """Have its value here as soon as there is one."""
        with _lock:
            if self._wanted or self.settled:
                return
            self._wanted = True
            there = self.state is FINISHED
        if there:
            self.ledger.fetch(self)

    def listen(self, listener: Callable[[Batch], object]) -> bool:
        """Have a quick function called with each news of it, until it is settled; False: it is."""
        with _lock:
            if not self.settled:
                self._listeners.append(listener)
            return not self.settled

    def unlisten(self, listener: Callable[[Batch], object]) -> None:
        """Call it no more."""
        with _lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def wait(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for news until something holds; False: the time is over."""
        heard = threading.Event()

        def listener(_: Batch) -> None:
            if ready():
                heard.set()

        if not self.listen(listener) or ready():
            return True
        try:
            return heard.wait(timeout)
        finally:
            self.unlisten(listener)
