"""TLS over any connection, with as little as possible between its records and the protocol above it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from typing import Any, cast

from hpcnb.link.pipe import left_over

__all__ = ["secure"]

_RECORD = 16 << 10
_ARRIVING = 256 << 10
"""Bytes that are taken at once from the connection."""


async def secure(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Shake hands over a connection, which is closed if that fails; return what is to be used in its place.

    asyncio's own TLS does more, and takes twice as long for a message; here, as a link has words for its end, TLS's farewell is left
    out.

    Raises
    ------
    OSError
        The two ends do not agree, or the connection was lost.
    """
    inner = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(inner)
    layer = _Layer(writer, protocol, context, server_side=server_side, server_hostname=server_hostname)
    try:
        await layer.begin(reader)
    except BaseException:
        layer.abandon()
        raise
    return inner, asyncio.StreamWriter(layer, protocol, inner, asyncio.get_running_loop())


class _Layer(asyncio.BufferedProtocol, asyncio.Transport):
    """The protocol of a connection, and the transport of what is said over it."""

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None,
    ) -> None:
        super().__init__()
        self._writer = writer  # one that nobody holds closes its connection
        self._below = cast("asyncio.Transport", writer.transport)
        self._protocol = protocol
        self._room = memoryview(bytearray(_ARRIVING))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cause: Exception | None = None

    async def begin(self, reader: asyncio.StreamReader) -> None:
        """Shake hands; `reader` may hold the first words of the other end."""
        self._below.set_protocol(self)
        self._protocol.connection_made(self)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._shake()
        held, ended = await left_over(reader)
        self._came(held)
        if ended:
            raise ConnectionResetError("the other end closed the connection before the TLS handshake")
        await self._shaken

    def abandon(self) -> None:
        """Break it off before anybody uses it."""
        self._shaken.cancel()  # or its error, which nobody awaits, would be complained of
        self._below.abort()

    # What the connection reports.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._came(self._room[:nbytes])

    def eof_received(self) -> None:
        """Let the connection close itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._shaken.done():
            lost = ConnectionResetError("the connection was lost during the TLS handshake")
            self._shaken.set_exception(self._cause or exc or lost)
        self._protocol.connection_lost(self._cause or exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # Records.

    def _came(self, data: memoryview | bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._shaken.done():
                self._shake()
            if self._shaken.done():
                self._open()
        except ssl.SSLWantReadError:
            pass  # the rest is yet to come
        except OSError as error:
            self._fail(error)

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
            self._shaken.set_result(None)
        finally:
            if self._outgoing.pending:
                self._below.write(self._outgoing.read())

    def _open(self) -> None:
        while (self._incoming.pending or self._tls.pending()) and not self._below.is_closing():
            if isinstance(self._protocol, asyncio.BufferedProtocol):
                room = cast("memoryview", self._protocol.get_buffer(-1))
                if size := self._fill(room):
                    self._protocol.buffer_updated(size)
            elif data := self._tls.read(_RECORD):
                cast("asyncio.Protocol", self._protocol).data_received(data)
            else:
                self.close()  # as the other end says that it does

    def _fill(self, room: memoryview) -> int:
        size, whole = 0, len(room)
        incoming, tls = self._incoming, self._tls
        try:
            while size < whole and (incoming.pending or tls.pending()):
                got = cast("int", tls.read(whole - size, cast("bytearray", room[size:])))
                if not got:
                    self.close()  # as the other end says that it does
                    break
                size += got
        except ssl.SSLWantReadError:
            pass  # the rest is yet to come
        return size

    def _fail(self, error: Exception) -> None:
        self._cause = self._cause or error
        self._below.abort()

    # What asyncio asks for.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        if self._below.is_closing():
            return
        parts = list(list_of_data)
        if sum(map(len, parts)) <= _RECORD:
            parts = [b"".join(parts)]
        for data in parts:
            self._tls.write(data)  # as a whole: what takes it has no limit
        self._below.write(self._outgoing.read())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self._below.close()

    def abort(self) -> None:
        self._below.abort()
