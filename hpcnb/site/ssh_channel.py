"""An SSH channel as asyncio knows a connection; all of it happens in the loop, and no thread wakes up for it."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import paramiko

from hpcnb.site.shell import Pipe

if TYPE_CHECKING:
    from hpcnb.site.ssh_carriers import Carriers

_HIGH = 1 << 16


class ChannelTransport(asyncio.Transport):
    """The transport of one channel.

    Parameters
    ----------
    carriers : Carriers
        Of the connection that the channel is of.
    """

    _start_tls_compatible = True  # what `loop.start_tls` asks for

    def __init__(self, carriers: Carriers) -> None:
        super().__init__()
        self.number = -1  # until the connection has given it one
        self._carriers = carriers
        self._loop = asyncio.get_running_loop()
        self.channel: paramiko.Channel | None = None
        self._protocol: asyncio.BaseProtocol | None = None
        self._reading = True
        self._came: deque[bytes] = deque()  # while nobody wants it
        self._gathered = 0  # bytes in the protocol's buffer, of which it does not know yet
        self._ended = self._told = False  # the other end; and the protocol knows
        self._gone = False  # the channel is closed
        self._backlog: deque[memoryview] = deque()
        self._size = 0  # of the backlog
        self._high, self._low = _HIGH, _HIGH // 4
        self._full = False  # the protocol was told to pause
        self._ending = False  # after the backlog, our end
        self._closing = False  # after the backlog, all
        self._lost = False

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """Carry what comes to `protocol`, now that the channel is open."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._loop.call_soon(self._deliver)

    # What asyncio asks for.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast("asyncio.BaseProtocol", self._protocol)

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def is_reading(self) -> bool:
        return self._reading and not self.is_closing()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = _HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._size

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._ending or self._gone or self.is_closing() or not data:
            return
        self._backlog.append(memoryview(data))
        self._size += len(data)
        self.push()
        if self._backlog:
            self._backlog[-1] = memoryview(bytes(self._backlog[-1]))  # the caller may change what is his
            if self._size > self._high and not self._full:
                self._full = True
                cast("asyncio.Protocol", self._protocol).pause_writing()

    def write_eof(self) -> None:
        if not self._ending:
            self._ending = True
            self.push()

    def close(self) -> None:
        if not self.is_closing():
            self._closing = self._ending = True
            self._came.clear()
            self.push()

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._backlog.clear()
            self._came.clear()
            self._size = 0
            self._loop.call_soon(self._call_connection_lost, error)

    def _call_connection_lost(self, error: Exception | None) -> None:
        self._carriers.remove(self)
        if self.channel is not None:
            self.channel.close()
        self.get_protocol().connection_lost(error)

    # What the connection reports.

    def came(self, data: memoryview) -> None:
        """Take what came over the channel."""
        if self._reading and not self._came and self._protocol is not None:
            self._feed(data)
        else:
            self._came.append(bytes(data))

    def came_eof(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._loop.call_soon(self._deliver)

    def lose(self) -> None:
        """The channel, or all of the connection, is closed; what came is still there."""
        self._gone = self._ended = True
        if self._backlog:
            self._force_close(ConnectionResetError("the SSH channel was closed"))
        else:
            self._loop.call_soon(self._deliver)

    def push(self) -> None:
        """Send what there is room for; what is left goes when the connection says that there is room."""
        try:
            while self._backlog and (sent := self._send(self._backlog[0])):
                self._size -= sent
                self._backlog[0] = self._backlog[0][sent:]
                if not self._backlog[0]:
                    self._backlog.popleft()
        except (OSError, EOFError, paramiko.SSHException):
            self._force_close(ConnectionResetError("the SSH channel was closed"))
            return
        if self._full and self._size <= self._low:
            self._full = False
            cast("asyncio.Protocol", self._protocol).resume_writing()
        if not self._backlog and self._ending and not self._lost:
            self._end()

    def _send(self, data: memoryview) -> int:
        return 0 if self.channel is None else self._carriers.send(self.channel, data)

    def _end(self) -> None:
        if self._closing:
            self._force_close(None)
        elif self.channel is not None:
            self.channel.shutdown_write()

    # What the protocol is told.

    def _deliver(self) -> None:
        if self._protocol is None:
            return  # `begin` comes back to it
        while self._came and self._reading and not self.is_closing():
            self._feed(memoryview(self._came.popleft()))
            self.settle()
        if self._came or not self._reading or self._lost:
            return
        if self._ended and not self._told:
            self._told = True
            if not cast("asyncio.Protocol", self._protocol).eof_received():
                self.close()
        if self._gone:
            self._force_close(None)

    def _feed(self, data: memoryview) -> None:
        if self.is_closing():
            return
        if not isinstance(self._protocol, asyncio.BufferedProtocol):
            self._tell(cast("asyncio.Protocol", self._protocol).data_received, bytes(data))
            self._credit(len(data))
            return
        while data:
            room = memoryview(self._protocol.get_buffer(-1))
            part = data[: len(room) - self._gathered]
            room[self._gathered : self._gathered + len(part)] = part
            self._gathered += len(part)
            data = data[len(part) :]
            if data:
                self.settle()

    def settle(self) -> None:
        """Tell the protocol what was put into its buffer."""
        if size := self._gathered:
            self._gathered = 0
            self._tell(cast("asyncio.BufferedProtocol", self._protocol).buffer_updated, size)
            self._credit(size)

    def _tell(self, what: Callable[[Any], None], argument: Any) -> None:
        try:
            what(argument)
        except Exception as error:
            told = {"message": "a protocol failed", "exception": error, "transport": self, "protocol": self._protocol}
            self._loop.call_exception_handler(told)
            self._force_close(error)

    def _credit(self, size: int) -> None:
        if self.channel is not None:
            self._carriers.give_credit(self.channel, size)


def streams(carrier: ChannelTransport) -> Pipe:
    """A channel's two directions, as `asyncio.open_connection` gives those of a socket."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    carrier.begin(protocol)
    return reader, asyncio.StreamWriter(carrier, protocol, reader, asyncio.get_running_loop())


async def bridge(carrier: ChannelTransport) -> socket.socket:
    """Make a socket of a channel, for whoever needs one."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    near, far = _Half(), _Half()
    near.other = carrier
    far.other, _ = await asyncio.get_running_loop().create_connection(lambda: near, sock=ours)
    carrier.begin(far)
    return theirs


class _Half(asyncio.Protocol):
    """What comes from one connection goes to another."""

    other: asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self.other.write(data)

    def eof_received(self) -> bool:
        self.other.write_eof()
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        self.other.close()

    def pause_writing(self) -> None:
        self.other.pause_reading()

    def resume_writing(self) -> None:
        self.other.resume_reading()
