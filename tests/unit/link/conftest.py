"""Pipes that tests can cut, freeze and count, and links that are closed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from hpcnb.link import Link

SECRET = b"s" * 32


class Wire:
    """A pipe between two ends with a relay in the middle.

    `ends` are the two (reader, writer) pairs. The relay passes on `allowance` bytes and then cuts the pipe.
    """

    def __init__(self, allowance: int | None = None) -> None:
        self.allowance = allowance
        self.ends: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._relays: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> Wire:
        """Make the sockets and start the relay."""
        for _ in range(2):
            near, far = socket.socketpair()
            self.ends.append(await asyncio.open_connection(sock=near))
            self._relays.append(await asyncio.open_connection(sock=far))
        (left, right) = self._relays
        self._tasks = [asyncio.create_task(self._relay(*pair)) for pair in ((left[0], right[1]), (right[0], left[1]))]
        return self

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self.flowing.wait()
                writer.write(data[: self.allowance])
                await writer.drain()
                if self.allowance is not None:
                    self.allowance -= len(data)
                    if self.allowance <= 0:
                        break
        self.cut()

    def cut(self) -> None:
        """End the pipe as a broken network does: what is on its way is gone."""
        for _, writer in self._relays:
            writer.transport.abort()

    async def close(self) -> None:
        """Leave nothing open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()
        for _, writer in self.ends:
            writer.transport.abort()


@pytest.fixture
async def wire():
    """Make pipes: ``await wire()``."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(allowance=None):
            new = Wire(allowance)
            stack.push_async_callback(new.close)
            return await new.open()

        yield make


@pytest.fixture
async def link():
    """Make one end of a link: ``link(initiator=True)``."""
    async with contextlib.AsyncExitStack() as stack:

        def make(*, initiator, secret=SECRET, **options):
            new = Link("c0ffee", secret, initiator=initiator, **options)
            stack.push_async_callback(new.close)
            return new

        yield make


@pytest.fixture
def join(wire):
    """Attach two ends to a new pipe: ``await join(here, there)`` returns the `Wire`."""

    async def attach(here, there, **options):
        new = await wire(**options)
        await asyncio.gather(here.attach(*new.ends[0]), there.attach(*new.ends[1]))
        return new

    return attach


@pytest.fixture
def pair(link, join):
    """Make both ends of a link and attach them: ``here, there, wire = await pair(on_stream)``."""

    async def make(on_stream=None, **options):
        here, there = link(initiator=True, **options), link(initiator=False, on_stream=on_stream, **options)
        return here, there, await join(here, there)

    return make
