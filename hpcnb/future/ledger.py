"""What a client has asked the cluster for: it hears from the scheduler what is done, and brings values when they are wanted."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from distributed.client import FutureCancelledError

from hpcnb.errors import NotReady
from hpcnb.future.batch import Batch
from hpcnb.future.revealed import revealed
from hpcnb.future.why import node_of
from hpcnb.handle import run
from hpcnb.model import State
from hpcnb.pilot.scheduler.work import RETRY
from hpcnb.views.why import why

if TYPE_CHECKING:
    from hpcnb.kept import NotebookClient

__all__ = ["Ledger"]

AT_ONCE = 1000
"""Values that are asked for in one message, or the calls of one batch more."""
BESIDE = 5
"""Such messages that wait for an answer at the same time."""
PAUSE = 1.0
"""Seconds between two attempts to ask again."""


class Ledger:
    """The batches of one client, each by its key.

    Those that are not finished are held here, so that what was submitted is run, whoever still thinks of it.
    """

    def __init__(self, client: NotebookClient) -> None:
        self.client = client
        self._known: weakref.WeakValueDictionary[Any, Batch] = weakref.WeakValueDictionary()
        self._open: dict[Any, Batch] = {}
        self._wanted: deque[Batch] = deque()
        self._fetching: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._called = False
        self._cause: BaseException | None = None

    # -- what the client says ------------------------------------------------------------------------------------------

    def awaited(self) -> contextlib.AbstractContextManager[Any]:
        """While somebody waits for a future, he is asked for whatever a lost connection needs."""
        return self.client.awaited()

    def batch(self, key: Any, **more: Any) -> tuple[Batch, bool]:
        """The batch of a key, and whether it is a new one."""
        with self._lock:
            if (known := self._known.get(key)) is not None:
                return known, False
            made = self._known[key] = self._open[key] = Batch(self, key, **more)
        return made, True

    def hold(self, batch: Batch, future: Any) -> None:
        """Let a batch have Dask's future of its key, which may be done already."""
        batch.dask = future
        if future.status != "pending":
            self._end(batch.key)

    def forget(self, batch: Batch, error: BaseException) -> None:
        """Have a batch end that could not be sent, or not with all that it was to be sent with."""
        self._open.pop(batch.key, None)
        self._known.pop(batch.key, None)
        batch.settle(error=error)
        if batch.dask is not None:
            batch.dask.release()

    def known(self) -> list[Batch]:
        """Those that are open, or that a future refers to, in order of submission."""
        with self._lock:
            return list(self._known.values())

    # -- what the scheduler says ---------------------------------------------------------------------------------------

    def told(self, key: Any, value: bytes) -> None:
        """A key is about to be in memory, and this is its value."""
        if batch := self._open.get(key):
            batch.early = value

    def finished(self, key: Any) -> None:
        """A key is in memory."""
        batch = self._open.pop(key, None)
        if batch is None:
            return
        if batch.early is None:
            batch.finish()
        else:  # Python's own values, and of ours no more than the outcomes of a batch: see `hpcnb.pilot.scheduler.early`
            batch.settle(pickle.loads(batch.early))  # noqa: S301

    def retried(self, key: Any) -> None:
        """A key that had failed is tried again."""
        batch = self._known.get(key)
        if batch is not None and batch.reopen():
            self._open[key] = batch

    def erred(self, key: Any) -> None:
        """A key has failed, or was cancelled, as Dask's own state of it says."""
        batch = self._open.get(key)
        if batch is not None and (state := self._state(batch)) is not None:
            del self._open[key]
            batch.settle(error=revealed(state.exception.with_traceback(state.traceback)).with_traceback(None))

    def _state(self, batch: Batch) -> Any:
        # The client has forgotten what was cancelled, and the batch has no future of Dask's while it is being sent.
        return self.client.futures.get(batch.key) or (batch.dask and batch.dask._state)  # noqa: SLF001

    def _end(self, key: Any) -> None:
        batch = self._known.get(key)
        if batch is not None and batch.dask.status == "finished":
            self.finished(key)
        elif batch is not None and batch.dask.status in ("error", "cancelled"):
            self.erred(key)

    def close(self, cause: BaseException) -> None:
        """Nothing more will be heard: what is not here now never will be, and this is why."""
        self._cause = self._cause or cause
        self.client.looks.close(self._cause)
        while self._open:
            with contextlib.suppress(KeyError):
                self._open.popitem()[1].settle(error=self._cause)
        while self._wanted:
            self._wanted.popleft().settle(error=self._cause)

    @property
    def closed(self) -> bool:
        """Whether nothing more will be heard."""
        return self._cause is not None

    # -- what futures ask for ------------------------------------------------------------------------------------------

    def cancel(self, batch: Batch) -> None:
        """Have the scheduler cancel a key, and those that need it."""
        self._open.pop(batch.key, None)
        batch.settle(error=FutureCancelledError(batch.key, "cancelled by its user"))
        self.client.cancel_soon(batch.dask)

    def cancel_work(self, work: str) -> None:
        """Have all cancelled that are shown together."""
        self.cancel_all(batch for batch in list(self._open.values()) if batch.work == work)

    def cancel_all(self, batches: Iterable[Batch]) -> None:
        """Have those cancelled that are open: on the client's loop, where no second interrupt ends it half-way."""
        self.client.call(self._cancel_all, batches)

    def _cancel_all(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            if batch.key in self._open:
                batch.cancel(None)

    def again(self, batch: Batch) -> None:
        """Have the scheduler run a key once more that has failed."""
        self.retried(batch.key)
        self.client.tell({"op": RETRY, "key": batch.key})
        self.client.looks.reopen(batch.work)

    def drop(self, batch: Batch, index: int | None) -> None:
        """Have one call of a batch end, or not begin."""
        self.client.drop(batch.key, index)

    def release(self, batch: Batch) -> None:
        """Let the scheduler forget a key."""
        self._open.pop(batch.key, None)
        batch.settle(error=FutureCancelledError(batch.key, "released by its user"))
        self.client.release(batch.key)
        batch.dask.release()

    def pick(self, batch: Batch, index: int) -> Any:
        """A future of Dask's for one of a batch's calls."""
        return self.client.pick(batch, index)

    def tell(self, batch: Batch) -> dict[str, Any]:
        """How it stands with a key at the scheduler, and in which job."""
        known = self.client.known(batch.key)
        return {**known, "job": self._job_of(node_of(known["worker"])) if known["worker"] else ""}

    def _job_of(self, node: str) -> str:
        jobs = self.client.handle.status.jobs if self.client.handle else ()
        found = [job.job_id for job in jobs if node in job.nodes or len(jobs) == 1]
        return found[0] if found else ""

    def settle(self) -> None:
        """Wait until what tasks have printed by now is shown."""
        self.client.printed.settle()

    def printed(self, batch: Batch, index: int | None) -> list[dict[str, Any]]:
        """What a call has printed, by attempts."""
        handle = self.client.handle
        if handle is None:
            raise NotReady("this client belongs to no cluster of hpcnb's, whose logs could be read")
        found: list[dict[str, Any]] = run(handle.printed(str(batch.key), index))
        return found

    def held_up(self) -> str:
        """What holds up all that was submitted, or whatever might be asked about it; empty: nothing."""
        status = self.client.handle.status if self.client.handle else None
        cut = status is not None and status.state is State.UNREACHABLE
        if self.client.connected and not cut:
            return ""
        reason = why(status, time.time()) if status else "nobody is connected"
        return f"{'may go on, unheard' if cut else 'is not sent yet'}: {reason}"

    def fetch(self, batch: Batch) -> None:
        """Bring the value of a key that is in memory; with those that are asked for meanwhile."""
        if self._cause is not None:
            batch.settle(error=self._cause)
            return
        self._wanted.append(batch)
        with self._lock:
            call, self._called = not self._called, True
        if call:
            self.client.call(self._begin)

    def _begin(self) -> None:
        self._called = False
        if len(self._fetching) < BESIDE:
            task = asyncio.ensure_future(self._fetch())
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)

    async def _fetch(self) -> None:
        while self._wanted:
            batches: dict[Any, Batch] = {}
            calls = 0
            while self._wanted and calls < AT_ONCE:
                batch = self._wanted.popleft()
                batches[batch.key] = batch
                calls += batch.size or 1
            await self._bring(batches)

    async def _bring(self, batches: dict[Any, Batch]) -> None:
        try:
            answer = await self._ask(list(batches))
        except Exception as error:  # one of the values cannot be read here: it harms no other
            if len(batches) == 1:
                next(iter(batches.values())).settle(error=self._cause or error)
                return
            for key, batch in batches.items():
                await self._bring({key: batch})
            return
        if answer["status"] == "OK":
            for key, value in answer["data"].items():
                batches[key].settle(value)
            return
        lost = set(answer["keys"])  # with their workers; the scheduler tells when they have been computed again
        for key in lost:
            self._open[key] = batches[key]
            self.client.tell({"op": "report-key", "key": key})
        if rest := {key: batch for key, batch in batches.items() if key not in lost}:
            await self._bring(rest)

    async def _ask(self, keys: list[Any]) -> dict[str, Any]:
        while True:
            try:
                answer: dict[str, Any] = await self.client.collect(keys)
                return answer
            except OSError:  # the connection: the client makes it again
                if self.client.status not in ("running", "connecting"):
                    raise
                await asyncio.sleep(PAUSE)
