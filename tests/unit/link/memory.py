"""Pipes in memory, and a loop whose clock stands still until it is told to go: nothing happens but what a test does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TURNS = 1000
"""Turns of the loop in which whatever happens must have had all its consequences."""


class StillLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes only in `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.failures: list[dict[str, object]] = []
        super().__init__()
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(TURNS):
            self.stop()  # makes it run one turn, without waiting
            self.run_forever()
            if not self._ready:
                return
        raise AssertionError("it never comes to rest")

    def do(self, act: Callable[..., T], *args: object) -> T:
        """Do something inside the loop, with all its consequences."""

        async def doing() -> T:
            return act(*args)

        task = self.create_task(doing())
        self.settle()
        return task.result()

    def advance(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass."""
        while seconds > 0:
            self.now += min(step, seconds)
            seconds -= step
            self.settle()


class Half(asyncio.Transport):
    """One end of a pipe in memory; what it has written stays in `sent` until somebody delivers it.

    It takes as much as it is given, but says so when it is more than the limit, as the transports of sockets do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.reader = asyncio.StreamReader(loop=loop)
        self._protocol: asyncio.BaseProtocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        self.writer = asyncio.StreamWriter(self, self._protocol, self.reader, loop)
        self.sent = bytearray()
        self.closed = False
        self._loop = loop
        self._high = 1 << 16
        self._paused = False
        self._protocol.connection_made(self)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 1 << 16

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.sent += data
            if len(self.sent) > self._high and not self._paused:
                self._paused = True
                self._protocol.pause_writing()

    def take(self, size: int) -> bytes:
        """Take bytes that are on their way."""
        data = bytes(self.sent[:size])
        del self.sent[:size]
        if self._paused and not self.closed and len(self.sent) <= self._high // 4:
            self._paused = False
            self._protocol.resume_writing()
        return data

    def came(self, data: bytes) -> None:
        """Let this end receive bytes."""
        while data and not self.closed:
            if isinstance(self._protocol, asyncio.BufferedProtocol):
                room = self._protocol.get_buffer(-1)
                size = min(len(room), len(data))
                room[:size] = data[:size]
                self._protocol.buffer_updated(size)
                data = data[size:]
            else:
                self._protocol.data_received(data)
                return

    def ended(self) -> None:
        """Let this end see that the other will send nothing more."""
        if not self.closed and not self._protocol.eof_received():
            self.close()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, cause: Exception | None = None) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(lambda: self._protocol.connection_lost(cause))

    def abort(self) -> None:
        self.close()
