"""TCP connections from this machine."""

from __future__ import annotations

import asyncio
import socket

import pytest

from hpcnb.errors import ConnectionFailed
from hpcnb.site import tcp


@pytest.fixture
def listening():
    """A port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def addresses(monkeypatch):
    """Let every name have these addresses."""

    def have(*found):
        async def getaddrinfo(host, port, **kwargs):
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in found]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    return have


async def test_small_pieces_go_at_once(listening):
    """A connection sends without delay, and notices a dead peer, but not before a quarter of an hour."""
    host, port = listening.getsockname()
    with await tcp.connect(host, port, timeout=5, where="here") as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 900_000
        assert not sock.getblocking()


async def test_the_first_address_that_answers_will_do(listening, addresses):
    """A host with a dead address and a living one is reached."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        addresses(dead.getsockname(), listening.getsockname())
        with await tcp.connect("host", 1, timeout=5, where="here") as sock:
            assert sock.getpeername() == listening.getsockname()


async def test_each_address_that_failed_is_named(addresses, monkeypatch):
    """The error tells which address refused and which gave no answer, with the seconds."""
    addresses(("192.0.2.1", 1), ("192.0.2.2", 1))

    async def sock_connect(sock, address):
        if address[0] == "192.0.2.1":
            await asyncio.Event().wait()
        raise ConnectionRefusedError(111, "Connect call failed")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    with pytest.raises(ConnectionFailed, match="no connection to host port 1") as caught:
        await tcp.connect("host", 1, timeout=0.01, where="octopus")
    assert caught.value.evidence == "192.0.2.1: no answer within 0.01 s\n192.0.2.2: Connection refused"
    assert caught.value.where == "octopus"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64])
async def test_a_name_without_an_address(host):
    """A name that nobody knows, or that cannot be one, is an error of its own."""
    with pytest.raises(ConnectionFailed, match="has no address"):
        await tcp.connect(host, 1, timeout=5, where="here")


async def test_name_servers_may_be_silent(monkeypatch):
    """A name server that does not answer is not waited for longer than asked."""

    async def getaddrinfo(host, port, **kwargs):
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(ConnectionFailed) as caught:
        await tcp.connect("host", 1, timeout=0.01, where="here")
    assert "within 0.01 s" in caught.value.evidence
