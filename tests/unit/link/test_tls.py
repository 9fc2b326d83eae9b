"""TLS under a link: what is said arrives whole, and whoever has not the right certificate says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl

import pytest
import trustme

from hpcnb.link import secure

NAME = "gateway.hpcnb"


def context(side, authority, identity=None, *, trusts=None):
    """One end: whom it trusts, and what it shows."""
    made = ssl.SSLContext(side)
    made.verify_mode = ssl.CERT_REQUIRED
    (trusts or authority).configure_trust(made)
    if identity:
        identity.configure_cert(made)
    return made


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
async def meet(authority):
    """Has two ends meet, each with its own context; gives what each of them got: a connection, or an error."""
    server_side = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue_cert(NAME))
    servers, writers = [], []

    async def meet(client):
        accepted = asyncio.get_running_loop().create_future()

        async def accept(reader, writer):
            writers.append(writer)
            try:
                pair = await secure(reader, writer, server_side, server_side=True)
                writers.append(pair[1])
                # By TLS 1.3 the one who came is done before the other has seen its certificate.
                accepted.set_result((pair, await pair[0].read(5)))
            except OSError as error:
                accepted.set_result(error)

        servers.append(await asyncio.start_server(accept, "127.0.0.1"))
        reader, writer = await asyncio.open_connection(*servers[-1].sockets[0].getsockname())
        writers.append(writer)
        pair = await client(reader, writer)
        return pair, accepted

    yield meet
    for one in (*writers, *servers):
        one.close()


def client_of(ours):
    """Shakes hands as an agent does, and greets."""

    async def client(reader, writer):
        pair = await secure(reader, writer, ours, server_hostname=NAME)
        pair[1].write(b"hello")
        return pair

    return client


async def test_all_that_is_said_arrives(authority, meet):
    """Megabytes both ways at once, in pieces of any size, beside each other."""
    ours = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue_cert("agent.hpcnb"))
    here, accepted = await meet(client_of(ours))
    there, greeting = await accepted
    assert greeting == b"hello"
    data = random.Random(1).randbytes(3_000_000)

    async def say(writer):
        at = 0
        while at < len(data):
            size = random.Random(at).choice((1, 100, 16_384, 200_000))
            writer.write(data[at : at + size])
            await writer.drain()
            at += size

    _, _, *heard = await asyncio.gather(
        say(here[1]), say(there[1]), here[0].readexactly(len(data)), there[0].readexactly(len(data))
    )
    assert heard == [data, data]
    here[1].close()
    assert await there[0].read() == b""


@pytest.mark.parametrize("wrong", ["no certificate", "another's", "another name"])
async def test_who_is_not_trusted_says_nothing(authority, meet, wrong):
    """Without a certificate, with one of another authority, and for a server of another name there is no connection."""
    stranger = trustme.CA()
    shown = {"no certificate": None, "another's": stranger.issue_cert("agent.hpcnb")}
    shown["another name"] = authority.issue_cert("agent.hpcnb")
    ours = context(ssl.PROTOCOL_TLS_CLIENT, authority, shown[wrong])

    async def client(reader, writer):
        name = "other.hpcnb" if wrong == "another name" else NAME
        with contextlib.suppress(OSError):
            pair = await secure(reader, writer, ours, server_hostname=name)
            pair[1].write(b"hello")
            assert await pair[0].read() == b""

    _, accepted = await meet(client)
    assert isinstance(await accepted, OSError)


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100_000])
async def test_who_speaks_no_tls_is_refused(meet, first):
    """The end of the connection, another protocol, and what only begins like TLS end in an error at once."""

    async def client(reader, writer):
        writer.write(first)
        writer.close()

    _, accepted = await meet(client)
    assert isinstance(await accepted, OSError)
