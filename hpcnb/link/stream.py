"""A stream as its user sees it: read, write, close, reset, and splice with another connection."""

from __future__ import annotations

import asyncio

from hpcnb.link.frames import PIECE
from hpcnb.link.protocol import Core, Flow

__all__ = ["Stream", "splice"]


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
        while rest := rest[self._core.write(self._flow, rest) :]:
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


async def splice(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Join a stream with a connection until both directions have ended.

    The end of one direction is passed on and leaves the other open; when either side breaks, or the task is
    cancelled, the other side is broken off too.
    """
    broken = "the connection behind the stream was given up"
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_send(reader, stream))
            group.create_task(_receive(stream, writer))
        broken = ""
    except* OSError as errors:
        broken = str(errors.exceptions[0])
    finally:
        if broken:
            stream.reset(broken)
            writer.transport.abort()
        else:
            stream.close()
            writer.close()


async def _send(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(2 * PIECE):
        await stream.write(data)
    stream.write_eof()


async def _receive(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read(2 * PIECE):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()
