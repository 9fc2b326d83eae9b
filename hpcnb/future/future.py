"""`Future`: a call on the cluster, as a `concurrent.futures.Future` that can be awaited."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import threading
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError
from typing import Any

from dask.utils import key_split

from hpcnb.future.batch import CANCELLED, FINISHED, PENDING, Batch
from hpcnb.future.why import why, why_failed
from hpcnb.views.logs import runs_text

__all__ = ["Future"]

_making = threading.Lock()
_calls: queue.SimpleQueue[tuple[Callable[[Future], object], Future]] = queue.SimpleQueue()
_caller: threading.Thread | None = None


class Watch:
    """What `concurrent.futures` keeps of a future: made for those only that its functions, or callbacks, are used with."""

    __slots__ = ("callbacks", "lock", "state", "waiters")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.state = PENDING
        self.waiters: list[Any] = []
        self.callbacks: list[Callable[[Future], object]] = []


class Future(concurrent.futures.Future[Any]):
    """What `submit` and `map` return: a `concurrent.futures.Future`, which can be awaited, too.

    It is done when the cluster says so; its value comes when somebody asks for it, since it may be large, and only an
    argument of the next call. A call that is wanted by nobody any more is run nevertheless; its result is dropped then.

    Parameters
    ----------
    batch : Batch
        What it stands on.
    index : int, optional
        Which of its calls; None where it is but one.
    """

    __slots__ = ("_batch", "_index", "_watch")

    def __init__(self, batch: Batch, index: int | None = None) -> None:
        # Not what `concurrent.futures` makes at once: a condition for each of a million futures is a gigabyte.
        self._batch = batch
        self._index = index
        self._watch: Watch | None = None

    @property
    def batch(self) -> Batch:
        """What it stands on; where its call was sent again, that."""
        while self._batch.again and self._index in self._batch.again:
            self._batch, self._index = self._batch.again[self._index or 0]
        return self._batch

    @property
    def index(self) -> int | None:
        """Which of the calls of that."""
        return self._index if self.batch.size is not None else None

    # -- the protocol of concurrent.futures ----------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> Any:
        """The value; waits for it.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Raises
        ------
        TimeoutError
        concurrent.futures.CancelledError
        HPCError
            The cluster has ended, and why.
        Exception
            The task's own, as its own type.
        """
        self.batch.want()
        self._wait(self.settled, timeout)
        value, error = self.batch.outcome(self.index)
        if error is None:
            return value
        try:
            raise error
        finally:
            del error, self  # or each error would be in a circle with the frame that raised it

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task has raised, or None; waits for its end."""
        if self.batch.size is not None:
            self.batch.want()
            self._wait(self.settled, timeout)
        else:
            self._wait(self.done, timeout)
        _, error = self.batch.outcome(self.index)
        if isinstance(error, CancelledError):
            raise error
        return error

    def cancel(self) -> bool:
        """Cancel the call, also when it runs already; False: it has ended before."""
        return self.batch.cancel(self.index)

    def cancelled(self) -> bool:
        return bool(self._state == CANCELLED)

    def running(self) -> bool:
        """Always False: whether a call runs or waits, only the cluster knows."""
        return False

    def done(self) -> bool:
        return bool(self._state != PENDING)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn` with this future when its value is here; at once, if it is."""
        watch = self._watched()
        with watch.lock:
            if waits := not self.settled():
                watch.callbacks.append(fn)
        if waits:
            self.batch.want()
        else:
            _call(fn, self)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        with self.batch.ledger.awaited():
            return await asyncio.wrap_future(self)

    def _get_state(self) -> str:
        return self._watch.state if self._watch else self.batch.state_of(self.index)

    # The functions of concurrent.futures, and asyncio's, use these.
    _state = property(_get_state)
    _condition = property(lambda self: self._watched().lock)
    _waiters = property(lambda self: self._watched().waiters)
    _result = property(lambda self: self.batch.outcome(self.index)[0])
    _exception = property(lambda self: self.batch.outcome(self.index)[1])

    # -- beyond it -----------------------------------------------------------------------------------------------------

    @property
    def key(self) -> Any:
        """The task's name at the scheduler."""
        return self.batch.key if self.index is None else f"{self.batch.key}[{self.index}]"

    @property
    def name(self) -> str:
        """The function's."""
        return str(key_split(self.batch.key))

    @property
    def tag(self) -> str:
        """Given when it was submitted."""
        return self.batch.tag

    @property
    def state(self) -> str:
        """``pending``, ``finished``, ``failed`` or ``cancelled``."""
        if not self.done():
            return "pending"
        if self.cancelled():
            return "cancelled"
        return "finished" if self.exception() is None else "failed"

    @property
    def worker(self) -> str:
        """The name of the worker that runs it, or has its result; empty: none."""
        return str(self._known()["worker"])

    @property
    def job_id(self) -> str:
        """The batch job of that worker; empty: none."""
        return str(self._known()["job"])

    @property
    def attempts(self) -> int:
        """How often it was begun; the calls of a batch are begun together."""
        return int(self._known()["attempts"])

    def why(self) -> str:
        """Why it is not done yet, or how it ended, in words."""
        if self.cancelled():
            return f"{self.name} was cancelled"
        if self.settled() and (error := self.exception()) is not None:
            return why_failed(self.name, error)
        if held_up := self.batch.ledger.held_up():
            return f"{self.name} {held_up}"
        known = self._known()
        if known["state"] == "forgotten" and not self.done():  # the scheduler has not read it yet
            return f"{self.name} is on its way to the scheduler"
        return why(self.name, known, job=known["job"])

    def logs(self) -> str:
        """All that it has printed so far, of each of its attempts; also when it, its worker or its cluster has ended.

        Raises
        ------
        HPCError
            The site cannot be reached.
        """
        return runs_text(self.batch.ledger.printed(self.batch, self.index))

    def traceback(self, timeout: float | None = None) -> str:
        """What the task has raised, with the lines where, as text; empty: nothing. Waits for its end."""
        error = self.exception(timeout)
        return "" if error is None else "".join(traceback.format_exception(error))

    @property
    def dask(self) -> Any:
        """A future of Dask's with its value."""
        return self.batch.dask if self.index is None else self.batch.ledger.pick(self.batch, self.index)

    def release(self) -> None:
        """Let the cluster forget it, also when it is one of an earlier kernel's."""
        self.batch.release(self.index)

    def __repr__(self) -> str:
        state = "finished" if self._state == FINISHED else self.state  # what it is exactly may have to be asked for
        return f"<Future {self.name} {state}, key: {self.key}>"

    def __reduce__(self) -> tuple[Any, ...]:
        reduced: tuple[Any, ...] = self.dask.__reduce__()
        return reduced

    def settled(self) -> bool:
        """Whether what came of it is here."""
        return self.batch.settled_of(self.index)

    # -- within --------------------------------------------------------------------------------------------------------

    def _known(self) -> dict[str, Any]:
        if self.batch.ledger.held_up():
            return {"worker": "", "job": "", "attempts": 0, "deaths": []}
        return self.batch.ledger.tell(self.batch)

    def _wait(self, ready: Callable[[], bool], timeout: float | None) -> None:
        if not ready():
            with self.batch.ledger.awaited():
                if not self.batch.wait(ready, timeout):
                    raise TimeoutError
        self.batch.ledger.settle()

    def _watched(self) -> Watch:
        if self._watch is None:
            with _making:
                if self._watch is None:
                    self._watch = Watch()
                    self.batch.listen(self._hear)
                    self._hear(self.batch)
                    if self.batch.size is not None:
                        self.batch.want()
        return self._watch

    def _hear(self, batch: Batch) -> None:
        """Pass news on to whoever waits by the means of `concurrent.futures`; nothing is said twice."""
        watch: Any = self._watch
        with watch.lock:  # before the state is read: of two threads the later one has the later state
            state = batch.state_of(self.index)
            # A call of a batch is done with its arrival: `exception()` of what is done must not have to wait.
            if state == FINISHED and batch.size is not None and not batch.settled:
                return
            if watch.state != state:
                watch.state = state
                for waiter in watch.waiters:
                    self._tell(waiter)
            callbacks: list[Any] = []
            if self.settled():
                callbacks, watch.callbacks = watch.callbacks, []
        for callback in callbacks:
            _call_later(callback, self)

    def _tell(self, waiter: Any) -> None:
        if self.cancelled():
            waiter.add_cancelled(self)
        elif self._exception is not None:
            waiter.add_exception(self)
        else:
            waiter.add_result(self)


def _call(callback: Callable[[Future], object], future: Future) -> None:
    try:
        callback(future)
    except Exception:
        logging.getLogger("concurrent.futures").exception("exception calling callback for %r", future)


def _call_later(callback: Callable[[Future], object], future: Future) -> None:
    """Call it in a thread that is there for it: on the loop it could wait for nothing that the loop has to bring."""
    global _caller
    if _caller is None:  # always on the loop, or under the lock of the future
        _caller = threading.Thread(target=_call_all, name="hpcnb-callbacks", daemon=True)
        _caller.start()
    _calls.put((callback, future))


def _call_all() -> None:
    while True:
        callback, future = _calls.get()
        _call(callback, future)
        del callback, future
