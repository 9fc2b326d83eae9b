"""A stream joined with a connection at each end, as the agent and the pilot's gateway do it."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from hpcnb.link import StreamError, splice

DEADLINE = 60


@pytest.fixture
async def forward(pair, tmp_path):
    """``forward(serve)`` returns a connector to a unix socket that leads over a link to the TCP service `serve`."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(serve):
            service = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.push_async_callback(service.wait_closed)
            stack.callback(service.close)
            host, port = service.sockets[0].getsockname()

            async def gateway(name, stream):
                await splice(stream, *await asyncio.open_connection(host, port))

            here, _, _ = await pair(gateway)

            async def enter(reader, writer):
                await splice(here.open("service"), reader, writer)

            entrance = await asyncio.start_unix_server(enter, tmp_path / "s")
            stack.push_async_callback(entrance.wait_closed)
            stack.callback(entrance.close)
            return lambda: asyncio.open_unix_connection(tmp_path / "s")

        yield make


async def test_bulk_both_ways(forward):
    """Megabytes go through and come back whole, with both directions busy."""

    async def echo(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    reader, writer = await (await forward(echo))()
    data = random.Random(1).randbytes(10_000_000)

    async def send():
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(send())
        answer = group.create_task(reader.read())
    assert answer.result() == data
    writer.close()


async def test_half_close(forward):
    """The end of a request is passed on, and the answer still comes back."""

    async def count(reader, writer):
        writer.write(str(len(await reader.read())).encode())
        writer.close()

    reader, writer = await (await forward(count))()
    writer.write(bytes(12345))
    writer.write_eof()
    assert await reader.read() == b"12345"
    writer.close()


async def test_break_is_passed_on(forward):
    """A connection that breaks at the service breaks at the client, and the other way round."""
    broken = asyncio.Event()

    async def serve(reader, writer):
        request = await reader.readexactly(1)
        if request == b"a":
            writer.transport.abort()
        else:
            with contextlib.suppress(OSError):
                while await reader.read(100):
                    pass
            broken.set()
            writer.close()

    connect = await forward(serve)
    reader, writer = await connect()
    writer.write(b"a")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    reader, writer = await connect()
    writer.write(b"b")
    await writer.drain()
    writer.transport.abort()
    async with asyncio.timeout(DEADLINE):
        await broken.wait()


async def test_back_pressure(forward):
    """A service that does not read stops the client instead of filling memory."""
    wake, seen = asyncio.Event(), asyncio.Queue()

    async def lazy(reader, writer):
        await wake.wait()
        seen.put_nowait(len(await reader.read()))
        writer.close()

    _, writer = await (await forward(lazy))()
    size = 40_000_000
    writer.write(bytes(size))
    sending = asyncio.create_task(writer.drain())
    done, _ = await asyncio.wait({sending}, timeout=0.3)
    assert not done
    assert writer.transport.get_write_buffer_size() > size // 2
    wake.set()
    async with asyncio.timeout(DEADLINE):
        await sending
        writer.write_eof()
        assert await seen.get() == size
    writer.close()


async def test_cancelled(pair, wire):
    """Cancelling breaks both sides off."""
    here, _, _ = await pair(lambda name, stream: stream.read())
    stream, connection = here.open("x"), await wire()
    task = asyncio.create_task(splice(stream, *connection.ends[0]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(StreamError, match="given up"):
        await stream.read()
    assert await connection.ends[1][0].read() == b""
