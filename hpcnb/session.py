"""`Session`: a persistent IPython kernel inside an allocation, as the notebook sees it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from hpcnb.agent.loop import run_on
from hpcnb.cell import KERNEL, Message, Reply, Running
from hpcnb.errors import HPCError, TaskLost, Unreachable

if TYPE_CHECKING:
    from distributed import Security

    from hpcnb.pilot.rpc import Peer

__all__ = ["Message", "Reply", "Running", "Session"]

POLL = 30.0
"""Seconds that the host keeps a question for messages before it answers that there are none."""
ANSWER = 4 << 20
"""Bytes of messages in one answer."""
PATIENCE = 60.0
REMEMBERED = 1000
"""Cells whose late output still finds its place."""

T = TypeVar("T")


class Session:
    """A persistent IPython kernel inside an allocation.

    Coroutines are for the loop that the session lives on; the other methods are for everybody else.

    Parameters
    ----------
    address : str
        Of the session host, as `distributed` writes addresses.
    security : distributed.Security
    loop : asyncio.AbstractEventLoop
        One that runs, in another thread than the user's.
    name : str
        Several sessions of one cluster run beside each other.
    notebook : str
        The name under which its cells are known to the notebook's next kernel.
    awaited : callable
        Makes a context that is entered while somebody waits for a cell.
    patience : float
        Seconds without an answer after which cells that wait are given up.

    Examples
    --------
    >>> session = cluster.session                    # doctest: +SKIP
    >>> session.push({"a": 1})                       # doctest: +SKIP
    >>> session.pull(["a"])                          # doctest: +SKIP
    {'a': 1}
    """

    def __init__(
        self,
        address: str,
        *,
        security: Security,
        loop: asyncio.AbstractEventLoop,
        name: str = "main",
        notebook: str = "",
        awaited: Callable[[], AbstractContextManager[None]] = nullcontext,
        patience: float = PATIENCE,
    ) -> None:
        self.name = name
        self.loop = loop
        self.awaited = awaited
        self._address = address
        self._security = security
        self._patience = patience
        self._sender = {"notebook": notebook, "kernel": KERNEL}
        self._peer: Peer | None = None
        self._opening = asyncio.Lock()
        self._poll: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._seen = 0
        self._cells: OrderedDict[str, Running] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Session {self.name!r} at {self._address}>"

    # -- for everybody: each waits, and Ctrl-C ends the wait ------------------------------------------------------------

    def wait(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run one of the session's coroutines from another thread, and wait for it."""
        return run_on(self.loop, work, timeout)

    def start(self, cell: Running) -> None:
        """Send a cell that needs nothing from here, without waiting; should that fail, the cell ends so."""

        def sent(sending: concurrent.futures.Future[list[str]]) -> None:
            error = sending.exception()
            if error is not None and not cell.reply.done():
                cell.reply.set_exception(error)

        asyncio.run_coroutine_threadsafe(self.submit(cell), self.loop).add_done_callback(sent)

    def push(self, values: Mapping[str, Any]) -> None:
        """Bind variables in the session, whatever their size.

        Raises
        ------
        CannotSerialize
            Names the variable that cannot be sent.
        """
        from hpcnb.pilot.rpc import in_frames
        from hpcnb.pilot.values import pack

        self.wait(self._call("push", names=list(values), frames=in_frames(pack(values))))

    def pull(self, names: Iterable[str], namespace: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return variables of the session, by value; functions of its own get `namespace` for their globals."""
        from hpcnb.pilot.rpc import frames_of
        from hpcnb.pilot.values import unpack

        answer = self.wait(self._call("pull", names=list(names)))
        found: dict[str, Any] = unpack(frames_of(answer["frames"]), namespace)
        return found

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return which of the names the session lacks."""
        answer = self.wait(self._call("missing", names=list(names)))
        return list(answer["names"])

    def interrupt(self) -> bool:
        """Interrupt the cell that runs, whoever sent it; False if there was none."""
        return bool(self.wait(self._call("interrupt"))["interrupted"])

    def restart(self) -> None:
        """Begin anew: the session's variables are gone, and cells that run or wait end with `TaskLost`."""
        self.wait(self._call("restart"))

    def close(self) -> None:
        """End the session: its kernel, its variables, what its cells have started."""
        self.wait(self._close())

    # -- coroutines, for the session's loop ----------------------------------------------------------------------------

    async def open(self) -> Peer:
        """Connect, and have a session there; is done by the first of the other methods."""
        async with self._opening:
            if self._peer is None:
                from hpcnb.pilot.rpc import Peer

                peer = Peer(self._address, self._security.get_connection_args("client"))
                try:
                    known = await peer.call("open", session=self.name)
                except BaseException:
                    await peer.close()
                    raise
                self._peer = peer
                # What an earlier kernel has not shown is shown when it is asked for (`unseen`, `follow`).
                self._seen = min(self._seen, known["seq"]) if self._seen else known["seq"]
            if self._poll is None or self._poll.done():
                self._poll = asyncio.ensure_future(self._listen(self._peer))
                self._poll.add_done_callback(self._stopped)
            return self._peer

    async def submit(
        self,
        cell: Running,
        *,
        needs: Sequence[str] = (),
        names: Sequence[str] = (),
        always: Sequence[str] = (),
        frames: Sequence[Any] = (),
    ) -> list[str]:
        """Send a cell, unless the session lacks some of the names it needs: these are returned, and nothing was sent.

        Parameters
        ----------
        cell : Running
        needs : sequence of str
            Names that the notebook could send.
        names, frames : sequence
            Variables that come along, as `hpcnb.pilot.values.pack` gives them.
        always : sequence of str
            Those of them that are bound even where the session has them.
        """
        from hpcnb.pilot.rpc import in_frames

        self._cells[cell.id] = cell
        request = {**cell.request(), **self._sender, "names": list(names), "always": list(always)}
        async with cell.sending:
            answer = await self._call_surely("execute", cell=request, needs=list(needs), frames=in_frames(frames))
        self._forget()
        return list(answer["missing"])

    async def execute(
        self, code: str, *, count: int = 0, on_message: Callable[[Message], None], timeout: float | None = None
    ) -> Reply:
        """Run a cell and return how it ended."""
        cell = Running(code=code, count=count, on_message=on_message, timeout=timeout)
        await self.submit(cell)
        return await asyncio.wrap_future(cell.reply)

    async def interrupt_cell(self, cell: Running) -> bool:
        """Interrupt one cell; False if it has ended."""
        async with cell.sending:  # else the interrupt may overtake it
            return bool((await self._call("interrupt", cell=cell.id))["interrupted"])

    async def answer(self, value: str, question: int) -> None:
        """Answer the question that a cell asked by the message of this number."""
        await self._call_surely("input", value=value, question=question)

    async def collect(self, cell_id: str) -> list[Any]:
        """Return the values, pickled, that a cell was to bring back."""
        from hpcnb.pilot.rpc import frames_of

        return frames_of((await self._call("collect", cell=cell_id))["frames"])

    async def unseen(self, page: str, sent: float) -> list[dict[str, Any]]:
        """The cells of this notebook, of all sessions, whose output its user may not have seen; `page` is the one who asks.

        `hpcnb.pilot.session.cells.Cells.unseen` says which these are.
        """
        peer = await self.open()
        return list((await peer.call("unseen", page=page, sent=sent, **self._sender))["cells"])

    async def follow(self, cell_id: str) -> AsyncIterator[Message]:
        """All messages of a cell that somebody sent, from its first to its reply, and as they come if it still runs."""
        async for message in self._messages(await self.open(), 0, cell=cell_id):
            yield message
            if message.type == "reply":
                return

    async def all_sessions(self) -> list[dict[str, Any]]:
        """What the sessions of the cluster do: ``name``, ``running`` and so on."""
        peer = await self.open()
        return list((await peer.call("list"))["sessions"])

    async def shown(self, cell_id: str) -> None:
        """Note that the output of a cell has been shown."""
        peer = await self.open()
        await peer.call("shown", cells=[cell_id])

    async def disconnect(self) -> None:
        """Listen no more; the session and its cells go on."""
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.wait([self._poll])
        peer, self._peer, self._poll = self._peer, None, None
        if peer is not None:
            await peer.close()
        self.lose(TaskLost("this notebook has let go of the session", where=self.name))

    def lose(self, error: HPCError) -> None:
        """End the cells that wait: the session, or the cluster, is gone (call it on the session's loop)."""
        for cell in self._cells.values():
            if not cell.reply.done():
                cell.reply.set_exception(error)

    # -- within --------------------------------------------------------------------------------------------------------

    async def _call(self, name: str, **request: Any) -> dict[str, Any]:
        peer = await self.open()
        return await peer.call(name, session=self.name, **request)

    async def _call_surely(self, name: str, **request: Any) -> dict[str, Any]:
        """Say something again when a connection broke meanwhile: served or not, the host knows what it has had."""
        try:
            return await self._call(name, **request)
        except Unreachable:
            return await self._call(name, **request)

    async def _close(self) -> None:
        await self._call("close_session")
        await self.disconnect()

    async def _listen(self, peer: Peer) -> None:
        async for message in self._messages(peer, self._seen, kernel=self._sender["kernel"]):
            self._seen = message.seq
            self._dispatch(message)

    async def _messages(self, peer: Peer, seen: int, **which: str) -> AsyncIterator[Message]:
        """The messages after a number, as they come."""
        loop = asyncio.get_running_loop()
        heard, pause = loop.time(), 0.1
        while True:
            request = {"session": self.name, "since": seen, "wait": POLL, "max_bytes": ANSWER, **which}
            try:
                answer = await peer.call("messages", **request)
            except Unreachable:
                if loop.time() - heard > self._patience:
                    raise
                await asyncio.sleep(pause)  # the other end may come back
                pause = min(2 * pause, 5.0)
                continue
            heard, pause = loop.time(), 0.1
            for seq, cell, kind, content, buffers in answer["messages"]:
                yield Message(seq=seq, cell=cell, type=kind, content=_decoded(content), buffers=tuple(buffers))
            seen = answer["upto"]

    def _stopped(self, poll: asyncio.Task[None]) -> None:
        if poll.cancelled() or (error := poll.exception()) is None:
            return
        if (peer := self._peer) is not None:
            self._peer = None  # the next use connects anew
            self._closing = asyncio.ensure_future(peer.close())
        what = error.what if isinstance(error, HPCError) else f"{type(error).__name__}: {error}"
        self.lose(
            TaskLost(
                f"the session is gone: {what}",
                where=f"session {self.name}",
                remedy="Its variables are gone too, unless `%hpc attach` finds it again.",
            )
        )

    def _dispatch(self, message: Message) -> None:
        cell = self._cells.get(message.cell)
        if cell is None:
            return
        if message.type != "reply":
            try:
                cell.on_message(message)
            except Exception as error:  # the view's fault must not silence all the other cells
                if not cell.reply.done():
                    cell.reply.set_exception(error)
        elif not cell.reply.done():
            cell.reply.set_result(Reply.from_content(message.content))

    def _forget(self) -> None:
        ended = (key for key, cell in self._cells.items() if cell.reply.done())
        if len(self._cells) > REMEMBERED and (oldest := next(ended, "")):
            del self._cells[oldest]


def _decoded(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(content.decode("utf-8", "replace"))
    return found
