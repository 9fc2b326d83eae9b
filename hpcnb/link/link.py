"""A link: streams between two processes that do not notice when the pipe that carries them dies and is replaced."""

from __future__ import annotations

import asyncio
import enum
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hpcnb.errors import HPCError
from hpcnb.link import handshake
from hpcnb.link.flow import Flow
from hpcnb.link.handshake import ACCEPTOR, HELLO_SIZE, INITIATOR, PROOF_SIZE, REFUSAL, LinkRefused, Proof
from hpcnb.link.pipe import Pipe
from hpcnb.link.protocol import Core
from hpcnb.link.stream import Stream

__all__ = ["Link", "LinkState"]

_HANDSHAKE = 10.0


class LinkState(enum.StrEnum):
    """How a link is doing."""

    LOST = "lost"  # there is no pipe (yet): streams stay open, writes wait
    UP = "up"
    SUSPECT = "suspect"  # the other end is silent: attach another pipe, the first to answer carries on
    CLOSED = "closed"  # for good


class Link:
    """One end of a link.

    Parameters
    ----------
    name : str
        The same at both ends; 1 to 32 bytes.
    secret : bytes
        What both ends must know; it is never sent.
    initiator : bool
        Whether this end opens the streams; the other end is given them.
    on_stream : coroutine function, optional
        Called with the name and the `Stream` that the initiator has opened; the stream is closed when it returns.
        An `OSError` or `HPCError` that it raises refuses the stream, and its message is what the opener sees.
    on_state : callable, optional
        Called with each new `LinkState`.
    interval : float
        Seconds between pings.

    Attributes
    ----------
    lost : asyncio.Event
        Set while there is no pipe.
    cause : str
        Why the last pipe was lost, or the link closed.
    rtt : float or None
        Seconds that the last ping took there and back.
    """

    def __init__(
        self,
        name: str,
        secret: bytes,
        *,
        initiator: bool,
        on_stream: Callable[[str, Stream], Awaitable[None]] | None = None,
        on_state: Callable[[LinkState], None] | None = None,
        interval: float = 1.0,
    ) -> None:
        self.name = name
        self.lost = asyncio.Event()
        self.lost.set()
        self.cause = ""
        self.rtt: float | None = None
        self._secret = secret
        self._initiator = initiator
        self._on_stream = on_stream or _refuse
        self._on_state = on_state
        self._interval = interval
        self._state = LinkState.LOST
        self._pipe: Pipe | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._parting: set[asyncio.Task[None]] = set()
        self._session: bytes
        self._known: bool
        self._core: Core
        self._begin(secrets.token_bytes(16))

    def __repr__(self) -> str:
        return f"<Link {self.name} {self._state}>"

    @property
    def state(self) -> LinkState:
        """How the link is doing."""
        return self._state

    def open(self, name: str) -> Stream:
        """Open a stream, pipe or no pipe; if the other end refuses it, reading and writing raise `StreamError`."""
        return Stream(self._core, self._core.open(name))

    async def attach(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Shake hands over a new pipe and carry on over it; the pipe in use is disturbed only then, and closed.

        Raises
        ------
        LinkRefused
            The other end has another secret, version or link; dialling again would not help.
        OSError
            The pipe died, or the other end no longer knows the streams of this one, which are reset; dial again.
        """
        try:
            self._check_open()
            async with asyncio.timeout(_HANDSHAKE):
                received = await (self._join if self._initiator else self._admit)(reader, writer)
        except asyncio.IncompleteReadError as error:
            writer.close()
            raise ConnectionResetError("the other end closed the pipe during the handshake") from error
        except BaseException:
            writer.close()
            raise
        self._adopt(reader, writer, received)

    async def close(self, reason: str = "the link is closed") -> None:
        """End the link and its streams, at both ends if there is a pipe; an acceptor there may be joined again."""
        self._finish(reason)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, *self._parting, return_exceptions=True)

    # The handshake; see `hpcnb.link.handshake`.

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        mine = handshake.hello(self.name, secrets.token_bytes(32))
        writer.write(mine)
        theirs = await reader.readexactly(HELLO_SIZE)
        handshake.check_hello(mine, theirs)
        session = self._session
        claim = Proof(session=session, known=self._known, received=self._core.received)
        writer.write(claim.sign(self._secret, INITIATOR, mine + theirs))
        answer = Proof.verify(await reader.readexactly(PROOF_SIZE), self._secret, ACCEPTOR, mine + theirs)
        self._check_open()
        if session != self._session:
            raise ConnectionAbortedError("the link was begun anew over another pipe")
        if not answer.known:
            self._restart(secrets.token_bytes(16), "the other end of the link was restarted or taken over")
            raise ConnectionResetError("the other end no longer knows the link's streams; dial again")
        self._known = True
        return answer.received

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        mine = handshake.hello(self.name, secrets.token_bytes(32))
        theirs = await reader.readexactly(HELLO_SIZE)
        writer.write(mine)
        handshake.check_hello(mine, theirs)
        message = await reader.readexactly(PROOF_SIZE)
        try:
            claim = Proof.verify(message, self._secret, INITIATOR, theirs + mine)
        except LinkRefused:
            writer.write(REFUSAL)
            raise
        self._check_open()
        if claim.session != self._session and not claim.known:
            self._restart(claim.session, "the link was taken over by another process")
        known = claim.session == self._session
        answer = Proof(session=claim.session, known=known, received=self._core.received)
        writer.write(answer.sign(self._secret, ACCEPTOR, theirs + mine))
        if not known:
            raise ConnectionResetError("the joiner's streams are not known here")
        return claim.received

    # Sessions and pipes.

    def _check_open(self) -> None:
        if self._state is LinkState.CLOSED:
            raise ConnectionAbortedError(self.cause)

    def _begin(self, session: bytes) -> None:
        self._session = session
        self._known = False
        self._core = Core(
            initiator=self._initiator,
            wake=self._wake,
            flush=self._flush,
            opened=self._opened,
            pong=self._pong,
            bye=self._farewell,
        )

    def _restart(self, session: bytes, reason: str, *, told: bool = False) -> None:
        self._part(reason, told=told)
        self._begin(session)

    def _adopt(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: int) -> None:
        self._core.attach(received)
        if self._pipe is not None:
            self._pipe.close()
        self._pipe = Pipe(self._core, reader, writer, interval=self._interval, doubted=self._doubted, died=self._drop)
        self.lost.clear()
        self._become(LinkState.UP)

    def _drop(self, cause: str) -> None:
        self.cause = cause
        self._pipe = None
        self.lost.set()
        self._become(LinkState.LOST)

    def _part(self, reason: str, *, told: bool) -> None:
        """End the streams, and the pipe, over which the other end is told unless it told us."""
        last = self._core.end(reason)
        if self._pipe is not None:
            if told:
                self._pipe.close()
            else:
                self._pipe.stop()
                _start(self._pipe.part(last), self._parting)
            self._drop(reason)

    def _finish(self, reason: str, *, told: bool = False) -> None:
        if self._state is not LinkState.CLOSED:
            self._part(reason, told=told)
            self.cause = reason
            self._become(LinkState.CLOSED)

    def _become(self, state: LinkState) -> None:
        if state is not self._state:
            self._state = state
            if self._on_state is not None:
                self._on_state(state)

    # What the pipe and the core report.

    def _doubted(self, suspect: bool) -> None:
        self._become(LinkState.SUSPECT if suspect else LinkState.UP)

    def _wake(self) -> None:
        if self._pipe is not None:
            self._pipe.wake()

    def _flush(self) -> None:
        if self._pipe is not None:
            self._pipe.push()

    def _pong(self, stamp: int) -> None:
        self.rtt = asyncio.get_running_loop().time() - stamp / 1e6

    def _farewell(self, reason: str) -> None:
        if self._initiator:
            self._finish(reason, told=True)
        else:
            self._restart(secrets.token_bytes(16), reason, told=True)

    def _opened(self, flow: Flow) -> None:
        _start(self._serve(Stream(self._core, flow)), self._serving)

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._on_stream(stream.name, stream)
        except (OSError, HPCError) as error:
            stream.reset(str(error))
        except BaseException as error:
            stream.reset(f"the stream's server failed: {type(error).__name__}")
            raise
        stream.close()


def _start(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)  # the loop itself would let it be collected
    task.add_done_callback(tasks.discard)


async def _refuse(name: str, _: Any) -> None:
    raise ConnectionRefusedError(f"no stream {name!r} is served here")
