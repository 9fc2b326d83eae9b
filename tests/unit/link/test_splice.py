"""A stream joined with a connection at each end, as the agent and the pilot's gateway do it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from functools import partial

import pytest

from hpcnb.link import Joint, StreamError, splice

DEADLINE = 60


@pytest.fixture
async def forward(pair, tmp_path):
    """``forward(serve)`` returns a connector to a unix socket that leads over a link to the TCP service `serve`."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(serve):
            loop = asyncio.get_running_loop()
            service = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.push_async_callback(service.wait_closed)
            stack.callback(service.close)
            host, port = service.sockets[0].getsockname()

            async def gateway(name, stream):
                await splice(stream, partial(loop.create_connection, host=host, port=port))

            here, _, _ = await pair(gateway)

            entrance = await loop.create_unix_server(lambda: Joint(lambda _: here.open("service")), tmp_path / "s")
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


async def test_cancelled(pair):
    """Cancelling breaks both sides off."""
    here, _, _ = await pair(lambda name, stream: stream.read())
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=far)
    stream, loop = here.open("x"), asyncio.get_running_loop()
    task = asyncio.create_task(splice(stream, partial(loop.create_connection, sock=near)))
    writer.write(b"joined")
    while not stream._flow.sent:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(StreamError, match="given up"):
        await stream.read()
    assert await reader.read() == b""
    writer.close()


async def test_not_admitted(tmp_path):
    """A connection that is not admitted is closed."""

    def refuse(_):
        raise PermissionError

    loop = asyncio.get_running_loop()
    async with await loop.create_unix_server(partial(Joint, refuse), tmp_path / "door"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "door")
        assert await reader.read() == b""
        writer.close()
