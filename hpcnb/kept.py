"""A notebook's Dask client: its futures are held under the notebook's name, and come back to the next kernel."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import itertools
import logging
import pickle
import uuid
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from dask._expr import LLGExpr
from distributed import Client
from distributed import Future as DaskFuture
from distributed.comm.core import CommClosedError
from distributed.spans import SpanMetadata

from hpcnb.errors import NotReady, Unreachable
from hpcnb.farewell import FAREWELL, leave
from hpcnb.future.batch import Batch
from hpcnb.future.batches import Sent
from hpcnb.future.future import Future
from hpcnb.future.graph import annotated, node
from hpcnb.future.ledger import Ledger
from hpcnb.future.work import Looks, Work, work_now
from hpcnb.handle import Handle
from hpcnb.notebook_name import notebook_name, shell
from hpcnb.pilot.output.outbox import LINES, TAKEN
from hpcnb.pilot.scheduler.early import VALUE
from hpcnb.pilot.scheduler.keeper import SIZE, TAG, client_name
from hpcnb.pilot.scheduler.once import HEARD
from hpcnb.pilot.scheduler.refusals import REFUSE
from hpcnb.pilot.scheduler.work import SUMMARY
from hpcnb.pilot.worker.batch import executing, pick
from hpcnb.pilot.worker.tally import WORK
from hpcnb.pilot.worker.turns import DROP
from hpcnb.printed import Printed
from hpcnb.said import Said

__all__ = ["NotebookClient"]

# That a connection broke is told by the cluster's state; Dask's log would put a traceback of it under the cell.
logging.getLogger("distributed.batched").setLevel(logging.WARNING)

ENDED = ("memory", "erred")
PATIENCE = 30.0
"""Seconds that the scheduler has to answer."""
PAUSE = 1.0
"""Seconds between two attempts to reach the scheduler again."""
PROMPT = 0.0005
"""Seconds that a message to the scheduler waits for others to travel with (Dask: 10 ms)."""


class NotebookClient(Client):
    """A Dask client whose end is not the end of its futures.

    Parameters
    ----------
    cluster : Cluster
    handle : Handle, optional
        Of the same cluster, where it is one of ours.
    """

    def __init__(self, cluster: Any, handle: Handle | None = None) -> None:
        self.notebook = notebook_name()
        self.ledger = Ledger(self)
        self.looks = Looks(self)
        self.printed = Printed(lambda size: self.call(self._send_to_scheduler, {"op": TAKEN, "size": size}))
        self.handle = handle
        self._back: dict[Any, Batch] = {}
        self._asking, self._let_go = 0, set[Any]()  # how many ask what is held; what was released meanwhile
        self._early: deque[Any] = deque()
        self._said = Said()
        self._greeted: Any = None
        self._questions: deque[tuple[asyncio.Future[dict[str, Any]], dict[str, Any]]] = deque()
        # Everything goes through the scheduler: a worker's address means nothing on this machine.
        super().__init__(cluster, name=client_name(self.notebook), direct_to_workers=False, set_as_default=False)
        told = {HEARD: self._said.heard, VALUE: self.ledger.told, SUMMARY: self.looks.told, LINES: self.printed.take}
        self._stream_handlers |= {"hpcnb-kept": self._answered, **told}
        atexit.register(leave, weakref.ref(self))

    # -- its beginning: what is submitted meanwhile waits in order -------------------------------------------------------

    def start(self, **more: Any) -> None:
        """Begin to connect, and do not wait for it."""
        if self.asynchronous:
            super().start(**more)
        elif self.status == "newly-created":
            self._loop_runner.start()
            loop: Any = self.loop
            self._connected = asyncio.run_coroutine_threadsafe(self._start(**more), loop.asyncio_loop)

    def wait_until_connected(self) -> None:
        """Wait for it; raises the `HPCError` with which the cluster has ended instead, or an `OSError`."""
        with self.awaited():
            self._connected.result()

    def when_connected(self, then: Callable[[], object]) -> None:
        """Have something quick done once it is; never, if it cannot be."""

        def heard(connected: concurrent.futures.Future[Any]) -> None:
            if not connected.cancelled() and connected.exception() is None:
                then()

        self._connected.add_done_callback(heard)

    def awaited(self) -> contextlib.AbstractContextManager[Any]:
        """While somebody waits for what the cluster has, he is asked for whatever a lost connection needs."""
        return self.handle.awaited() if self.handle else contextlib.nullcontext()

    async def _start(self, timeout: Any = None, **more: Any) -> Any:
        cluster: Any = self.cluster
        try:
            if self.handle is not None:  # Dask writes into the log why it cannot be had, and goes on
                await cluster.become_ready()
            return await super()._start(timeout, **more)
        except Exception as error:  # whatever it is, who waits for a future is told
            self.ledger.close(error)
            await self._close(fast=True)
            raise

    async def _ensure_connected(self, timeout: Any = None) -> None:
        await super()._ensure_connected(timeout)
        if (comm := self.scheduler_comm) is not None:
            comm.interval = PROMPT
        if (since := self.printed.returning()) is not None:
            self._send_to_scheduler({"op": TAKEN, "since": since})
        with contextlib.suppress(CommClosedError):  # lost again already
            self._send_early()

    def _send_to_scheduler_safe(self, msg: Any) -> None:
        # By Dask's own, what is said in the moment of the connection overtakes what was kept until then, and what is said in the
        # moment of its end is lost.
        if lasting := self._said.lasting(msg):
            msg = self._said.note(msg)
        if self.status not in ("connecting", "newly-created"):
            with contextlib.suppress(CommClosedError):  # the next connection begins with what must be heard
                if not (self._send_early() and lasting):
                    super()._send_to_scheduler_safe(msg)
        elif not lasting:
            self._early.append(msg)

    def _send_early(self) -> bool:
        """Begin a connection, unless that was done, with what was said before it."""
        begins = self._greeted is not self.scheduler_comm
        if begins:
            self._greeted = self.scheduler_comm
            self._early.extendleft(reversed(self._said.again()))
        while self._early:
            super()._send_to_scheduler_safe(self._early.popleft())
        return begins

    async def _close(self, fast: bool = False) -> None:
        if self.status == "running" and not fast and self.looks.shown:
            await asyncio.to_thread(self.looks.settle, FAREWELL)
        await super()._close(fast)
        self.ledger.close(NotReady("the client of this cluster was closed", remedy="Submit it again."))

    # -- what it is told ---------------------------------------------------------------------------------------------------

    def send(
        self,
        tasks: Sequence[Sent],
        *,
        tag: str = "",
        priority: int = 0,
        retries: int | None = None,
        resources: Mapping[str, float] | None = None,
        work: Sequence[str] = (),
    ) -> None:
        """Have tasks run, in order, as soon as that can be; the one way by which all of ours go.

        Parameters
        ----------
        tasks : list of Sent
        tag : str
        priority : int
        retries : int, optional
            As in `hpcnb.submit`.
        resources : mapping, optional
            What they need of what workers offer (see `hpcnb.pilot.node`).
        work : id and label, optional
            With which others they are shown; by default as where this is called.
        """
        shown = Work(id=work[0], label=work[1]) if work else work_now()
        # Not by Dask's own `submit`, which would take arguments of some names for its own.
        self.printed.expect(task.batch.named for task in tasks)
        for size, some in itertools.groupby(tasks, lambda task: task.batch.size):
            sent, made = list(some), dict[Any, Any]()
            keys = [task.batch.key for task in sent]
            nodes = {task.batch.key: node(task) for task in sent}
            for task in sent:  # the scheduler reads a graph in a thread, and hears meanwhile what is released
                task.batch.needs = [DaskFuture(key, self) for key in nodes[task.batch.key].dependencies]
            try:
                with annotated(**{TAG: tag, SIZE: size, WORK: (shown.id, shown.label) if shown.id else None}):
                    made = self._graph_to_futures(
                        LLGExpr(nodes, _determ_token=uuid.uuid4().hex),
                        keys,
                        internal_priority={key: place for place, key in enumerate(keys)},
                        user_priority=priority,
                        retries=retries,
                        resources=resources,
                        span_metadata=SpanMetadata(collections=[{"type": "Future"}]),
                    )
                for task in sent:
                    task.batch.work = shown.id
                    self.ledger.hold(task.batch, made[task.batch.key])
            except BaseException as error:
                for task in tasks:
                    task.batch.dask = made.get(task.batch.key, task.batch.dask)
                    self.ledger.forget(task.batch, error)
                raise
        if tasks:
            self.looks.sent(shown, sum(task.batch.size or 1 for task in tasks))

    def pick(self, batch: Batch, index: int) -> Any:
        """A future of Dask's for one call of a batch; no one of the notebook's own."""
        with annotated(**{SIZE: 0}):
            return self.submit(pick, batch.dask, index, key=f"{batch.key}-{index}")

    def executing(self) -> set[Any]:
        """The keys that run at this moment, as the workers say."""
        found = self.run(executing, on_error="ignore") if self.connected else {}
        return {key for keys in found.values() for key in keys}

    def known(self, key: Any) -> dict[str, Any]:
        """How it stands with a key (see `hpcnb.pilot.scheduler.known.Known.tell`)."""
        scheduler: Any = self.scheduler
        told: dict[str, Any] = self.sync(scheduler.hpcnb_known, key=key)
        return told

    def finish_connecting(self, within: float | None) -> None:
        """Wait so long for the connection (None: until it is made), and raise what kept it from being made."""
        self._connected.result(within)

    @property
    def connected(self) -> bool:
        """Whether the scheduler can be heard of soon."""
        return bool(self.status == "running")

    @property
    def cores(self) -> int:
        """Of all workers, as last heard."""
        return int(self._scheduler_identity.get("total_threads", 0))

    def call(self, work: Callable[..., Any], *args: Any) -> None:
        """Run something on this client's loop, soon."""
        loop: Any = self.loop
        loop.add_callback(work, *args)

    def tell(self, message: dict[str, Any]) -> None:
        """Tell the scheduler something, behind all that it was told before."""
        self._send_to_scheduler(message)

    def collect(self, keys: list[Any]) -> Awaitable[dict[str, Any]]:
        """The values of keys, or which of them are lost."""
        scheduler: Any = self.scheduler
        answer: Awaitable[dict[str, Any]] = scheduler.gather(keys=keys)
        return answer

    def cancel_soon(self, future: DaskFuture[Any]) -> None:
        """Have the scheduler cancel a key."""
        self.call(self._cancel, [future])

    def refuse(self, key: Any, error: Exception) -> None:
        """Have the scheduler end a key that no worker can run, and what needs it, with an error."""
        self._send_to_scheduler({"op": REFUSE, "key": key, "error": pickle.dumps(error)})

    def drop(self, key: Any, index: int | None) -> None:
        """Have the worker of a batch end one of its calls, or not begin it."""
        self._send_to_scheduler({"op": DROP, "key": key, "index": index})

    def release(self, key: Any) -> None:
        """Hold a key of an earlier kernel no longer."""
        self._back.pop(key, None)

    # -- what it hears -----------------------------------------------------------------------------------------------------

    def _handle_key_in_memory(self, key: Any = None, type: Any = None, workers: Any = None) -> None:
        super()._handle_key_in_memory(key, type, workers)
        self.ledger.finished(key)

    def _handle_retried_key(self, key: Any = None) -> None:
        super()._handle_retried_key(key)
        self.ledger.retried(key)

    def _handle_task_erred(self, key: Any = None, exception: Any = None, traceback: Any = None) -> None:
        super()._handle_task_erred(key, exception, traceback)
        self.ledger.erred(key)

    def _handle_cancelled_keys(self, keys: Iterable[Any], reason: str | None = None, msg: str | None = None) -> None:
        super()._handle_cancelled_keys(keys, reason, msg)
        for key in keys:
            self.ledger.erred(key)

    def _handle_restart(self) -> None:
        keys = list(self.futures)
        super()._handle_restart()
        for key in keys:
            self.ledger.erred(key)

    async def _cancel(self, futures: Any, *args: Any, **more: Any) -> None:
        await super()._cancel(futures, *args, **more)
        for future in futures:
            self.ledger.erred(future.key)

    # -- what there is -----------------------------------------------------------------------------------------------------

    def kept(self, adopt: str = "") -> dict[str, Any]:
        """What is held for this notebook (see `hpcnb.pilot.scheduler.keeper.Keeper.kept`), with what is held for one that is away."""
        return dict(self.sync(self._kept, adopt))

    def all_futures(self) -> list[Future]:
        """This notebook's futures in order of submission, those of its earlier kernels among them.

        The latter stay until they are released by ``future.release()``: nothing else in this kernel refers to them.
        """
        return list(self.sync(self._all_futures))

    async def _kept(self, adopt: str = "") -> dict[str, Any]:
        await asyncio.sleep(0)  # what was dropped before is said before
        self._questions.append((asyncio.get_running_loop().create_future(), {"op": "hpcnb-kept", "adopt": adopt}))
        asked, question = self._questions[-1]
        self._send_to_scheduler(question)
        try:
            return await asyncio.wait_for(asked, PATIENCE)
        except TimeoutError:
            raise Unreachable(
                f"the scheduler has not answered for {PATIENCE:.0f} s",
                remedy="`%hpc` shows whether the cluster still runs.",
            ) from None

    def _answered(self, answer: dict[str, Any]) -> None:
        asked, _ = self._questions.popleft()
        if not asked.done():
            asked.set_result(answer)

    async def _all_futures(self) -> list[Future]:
        self._asking += 1
        try:
            answer = (await self._kept())["futures"]
        finally:
            self._asking -= 1
        held = [row for row in answer if row[0] in self.futures or row[0] not in self._let_go]
        self._let_go = self._let_go if self._asking else set()
        known = {key: {"tag": tag, "size": size} for key, _, tag, _, size, _ in held}
        new = {key: state for key, *_, state in held if key not in self.futures}
        # What was submitted just now may not have reached the keeper.
        mine = [batch.key for batch in self.ledger.known() if batch.key in self.futures]
        found = [self.batch_of(key, **known.get(key, {})) for key in dict.fromkeys([*known, *mine])]
        self._back.update({batch.key: batch for batch in found if batch.key in new})
        if new:
            self._send_to_scheduler({"op": "client-desires-keys", "keys": list(new)})
        for batch in found:
            if new.get(batch.key) in ENDED:
                await batch.dask._state.wait()
        return [Future(batch, index) for batch in found for index in batch.indices]

    def batch_of(self, key: Any, **more: Any) -> Batch:
        """The batch of a key that was submitted before, in whichever way."""
        batch, new = self.ledger.batch(key, **more)
        if new:
            self.ledger.hold(batch, DaskFuture(key, self))
        return batch

    def _release_key(self, key: Any) -> None:
        self._let_go.update([key] if self._asking else ())
        # IPython clears its variables when it ends: that drops nothing, for the user did not.
        if not getattr(shell(), "_atexit_once_called", False):
            super()._release_key(key)

    async def _reconnect(self) -> None:
        """Come back to the scheduler as a new client of the same notebook, with all futures: the keeper has them.

        Dask's own way is to cancel all of them, for to it the end of a connection is the end of a client.
        """
        keys, asked = list(self.futures), [question for _, question in self._questions]
        self.status, self.scheduler_comm = "connecting", None
        # The scheduler may hear of the old connection's end after the new one's beginning, and would drop the new one.
        self.id = f"{self.id[:-36]}{uuid.uuid1()}"
        while self.status == "connecting":  # until the cluster ends, which closes this client
            try:
                await self._ensure_connected(timeout=PATIENCE)
            except OSError:
                await asyncio.sleep(PAUSE)
            except Exception as error:  # as at the beginning
                self.ledger.close(error)
                await self._close(fast=True)
        if self.status == "running":
            self._send_to_scheduler({"op": "client-desires-keys", "keys": keys})
            for question in asked:
                self._send_to_scheduler(question)
            self.looks.again()
