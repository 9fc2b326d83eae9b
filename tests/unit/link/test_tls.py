"""The link's own TLS: against OpenSSL as asyncio uses it, and against those who speak something else."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl

import pytest
import trustme

from hpcnb.link import secure

DEADLINE = 60


@pytest.fixture(scope="module")
def contexts():
    """What a server and a client show and believe; the server is called localhost."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@contextlib.asynccontextmanager
async def pipes():
    """Both ends of a connection."""
    async with contextlib.AsyncExitStack() as stack:
        ends = [await asyncio.open_connection(sock=sock) for sock in socket.socketpair()]
        for _, writer in ends:
            stack.callback(writer.transport.abort)
        async with asyncio.timeout(DEADLINE):
            yield ends


async def test_against_asyncio(contexts):
    """It is TLS as others speak it: megabytes each way, in pieces of any size, and the end of the other side is an end here."""
    server, client = contexts
    data = random.Random(1).randbytes(3_000_000)
    async with pipes() as (near, far):
        handshake = asyncio.create_task(far[1].start_tls(client, server_hostname="localhost"))
        reader, writer = await secure(*near, server, server_side=True)
        await handshake
        far[1].write(data)
        assert await reader.readexactly(len(data)) == data
        writer.writelines([data[:17], data[17:70_000], data[70_000:]])
        assert await far[0].readexactly(len(data)) == data
        far[1].close()
        assert await reader.read() == b""
        await writer.wait_closed()


async def test_first_words_that_came_early(contexts):
    """What the other end said before anybody listened is not lost."""
    server, client = contexts
    async with pipes() as (near, far):
        handshake = asyncio.create_task(secure(*far, client, server_hostname="localhost"))
        while not near[0]._buffer:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        here = await secure(*near, server, server_side=True)  # a writer that nobody holds closes its connection
        there = await handshake
        there[1].write(b"hello")
        assert await here[0].readexactly(5) == b"hello"


async def test_another_name(contexts):
    """A server that is not the one that was asked for is refused."""
    server, client = contexts
    async with pipes() as (near, far):
        serving = asyncio.create_task(secure(*near, server, server_side=True))
        with pytest.raises(ssl.SSLCertVerificationError):
            await secure(*far, client, server_hostname="elsewhere")
        with pytest.raises(OSError):
            await (await serving)[0].readexactly(1)


async def test_nonsense(contexts):
    """Who does not speak TLS is let go."""
    async with pipes() as (near, far):
        far[1].write(b"GET / HTTP/1.0\r\n\r\n" * 100)
        with pytest.raises(ssl.SSLError):
            await secure(*near, contexts[0], server_side=True)
        with contextlib.suppress(ConnectionResetError):
            await far[0].read()
        assert near[1].transport.is_closing()


async def test_an_early_end(contexts):
    """A connection that ends during the handshake is reported as lost."""
    async with pipes() as (near, far):
        far[1].close()
        with pytest.raises(ConnectionResetError):
            await secure(*near, contexts[0], server_side=True)


async def test_a_broken_record(contexts):
    """What was altered on its way breaks the connection, and none of it is passed on."""
    server, client = contexts
    async with pipes() as (near, far):
        handshake = asyncio.create_task(secure(*far, client, server_hostname="localhost"))
        here = await secure(*near, server, server_side=True)  # a writer that nobody holds closes its connection
        there = await handshake
        there[1].transport._below.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            await here[0].read()


@pytest.mark.parametrize("shown", ["nothing", "of another authority"])
async def test_who_is_not_trusted(shown):
    """Who has no certificate, or one of somebody else's authority, is told nothing and heard of nothing."""
    authority = trustme.CA()
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    strict.verify_mode = ssl.CERT_REQUIRED
    known = trustme.CA()
    known.configure_trust(strict)
    known.issue_cert("localhost").configure_cert(strict)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    known.configure_trust(ours)
    if shown != "nothing":
        authority.issue_cert("agent").configure_cert(ours)
    async with pipes() as (near, far):
        serving = asyncio.create_task(secure(*near, strict, server_side=True))
        # By TLS 1.3 who comes is done before the other one has seen its certificate.
        there = await secure(*far, ours, server_hostname="localhost")
        there[1].write(b"hello")
        with pytest.raises(ssl.SSLError):
            await serving
        with pytest.raises(OSError):
            await there[0].readexactly(1)
