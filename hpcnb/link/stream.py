"""A stream as its user sees it: read, write, close, reset, and splice with another connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import cast

from hpcnb.link.flow import NOTHING, Flow
from hpcnb.link.frames import PIECE
from hpcnb.link.protocol import Core

__all__ = ["Joint", "Stream", "splice"]


class _Room(threading.local):
    """Where the bytes of all connections of a loop arrive: by the time that the next do, they are sent or stored elsewhere."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(2 * PIECE))


_room = _Room()


class Stream:
    """One two-way byte stream of a link; it outlives the pipes that carry it.

    One task may read and one may write at a time. A stream that was refused, reset, or ended with its
    link raises `StreamError` with the reason; what arrived before can still be read.
    """

    def __init__(self, core: Core, flow: Flow) -> None:
        self._core = core
        self._flow = flow
        self._event = asyncio.Event()
        flow.changed = self._event.set

    def __repr__(self) -> str:
        return f"<Stream {self._flow.id} {self.name!r}>"

    @property
    def name(self) -> str:
        """What it was opened by."""
        return self._flow.name

    async def read(self, size: int = PIECE) -> bytes:
        """Return 1 to `size` bytes as soon as there are any, ``b""`` at the end."""
        while (data := self._core.read(self._flow, size)) is None:
            await self._change()
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`; wait while the other end does not read, or there is no pipe."""
        rest = memoryview(data).cast("B")
        while rest:
            if size := self._core.write(self._flow, rest):
                rest = rest[size:]
            else:
                await self._change()

    def write_eof(self) -> None:
        """End this direction; the other end reads ``b""`` after all that was written, and may go on writing."""
        self._core.write_eof(self._flow)

    def close(self) -> None:
        """End both directions; what was written still arrives, what the other end writes from now on is refused."""
        self._core.close(self._flow)

    def reset(self, reason: str) -> None:
        """End both directions at once and drop what is on its way; the other end sees the reason."""
        self._core.reset(self._flow, reason)

    async def _change(self) -> None:
        self._event.clear()
        await self._event.wait()


async def splice(stream: Stream, connect: Callable[[Callable[[], Joint]], Awaitable[object]]) -> None:
    """Join a stream with a connection that `connect` makes, as `loop.create_connection` does, until both directions have ended.

    If the task is cancelled, both are broken off.
    """
    joint = Joint(lambda _: stream)
    try:
        await connect(lambda: joint)
        await joint.over.wait()
    finally:
        joint.give_up()


class Joint(asyncio.BufferedProtocol):
    """The protocol of a connection that is joined with a stream: what comes from one goes to the other at once.

    The end of one direction is passed on and leaves the other open; when either side breaks, the other is broken off too.

    Parameters
    ----------
    admit : callable
        Called with the connection when it is made, returns the stream; an `OSError` that it raises ends the connection.

    Attributes
    ----------
    over : asyncio.Event
        Set when there is nothing more to carry.
    """

    def __init__(self, admit: Callable[[asyncio.Transport], Stream]) -> None:
        self.over = asyncio.Event()
        self._admit = admit
        self._core: Core
        self._flow: Flow
        self._connection: asyncio.Transport
        self._rest = NOTHING  # came from the connection and has no room in the stream yet
        self._ending = self._ended = False  # the connection said its last; and the stream was told
        self._full = False  # the connection takes no more at the moment
        self._joined = False
        self._moving = False  # `_move` is at it
        self._finished = False  # the stream has ended, and the connection was told

    def give_up(self) -> None:
        """Break both sides off, unless they have ended."""
        self._break("the connection behind the stream was given up")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = cast("asyncio.Transport", transport)
        try:
            stream = self._admit(self._connection)
        except OSError:
            self.over.set()
        if self.over.is_set():  # or it was given up meanwhile
            self._connection.abort()
            return
        self._core, self._flow = stream._core, stream._flow  # noqa: SLF001 (the other half of this module)
        self._joined = True
        self._flow.changed = self._move
        self._move()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _room.view

    def buffer_updated(self, nbytes: int) -> None:
        self._rest = _room.view[:nbytes]
        self._move()
        if self._rest and not self.over.is_set():
            self._rest = memoryview(bytes(self._rest))
            self._connection.pause_reading()

    def eof_received(self) -> bool:
        self._ending = True
        self._move()
        return True  # the other direction stays open

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(str(exc or "the connection behind the stream was closed"))

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._move()

    def _move(self) -> None:
        if self.over.is_set() or self._moving:
            return
        self._moving = True
        try:
            self._receive()
            self._send()
        except OSError as error:
            self._break(str(error))
            return
        finally:
            self._moving = False
        if self._ended and self._finished:
            self.over.set()
            self._core.close(self._flow)
            self._connection.close()

    def _break(self, reason: str) -> None:
        if self.over.is_set():
            return
        self.over.set()
        if self._joined:
            self._core.reset(self._flow, reason)
            self._connection.abort()

    def _receive(self) -> None:
        while not (self._full or self._finished) and (data := self._core.read(self._flow, PIECE)) is not None:
            if data:
                self._connection.write(data)
            else:
                self._finished = True
                self._connection.write_eof()

    def _send(self) -> None:
        while self._rest and (size := self._core.write(self._flow, self._rest)):
            self._rest = self._rest[size:]
        if self._rest:
            return
        self._connection.resume_reading()
        if self._ending and not self._ended:
            self._ended = True
            self._core.write_eof(self._flow)
