"""Open a TCP connection from this machine, and say why when that fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from hpcnb.errors import ConnectionFailed

_PATIENCE = 900
"""Seconds that a connection outlives its path: a new login may cost the user a code."""

_TCP_RTO_MAX_MS = 44  # Linux 6.15; not in Python's socket module yet


class NoAnswer(ConnectionFailed):
    """Nobody there has even noticed that we tried."""


class Forbidden(ConnectionFailed):
    """The login node opens no such connection for us, whatever may be at its other end."""


async def connect(host: str, port: int, *, timeout: float, where: str) -> socket.socket:
    """Connect to the first address of a host that answers; the socket is non-blocking and the caller's to close.

    Parameters
    ----------
    host, port : str, int
    timeout : float
        Seconds for the name, and for each of its addresses.
    where : str
        What the error calls the place.

    Raises
    ------
    NoAnswer
        The name is unknown, or no address answers.
    """
    found = []
    for family, kind, protocol, _, address in await _addresses(host, port, timeout, where):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            _tune(sock)
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(sock, address)
            return sock
        except TimeoutError:
            found.append(f"{address[0]}: no answer within {timeout:g} s")
            sock.close()
        except OSError as error:
            found.append(f"{address[0]}: {os.strerror(error.errno or 0)}")
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise NoAnswer(
        f"no connection to {host} port {port}",
        where=where,
        evidence="\n".join(found),
        remedy="Check host, port, network and VPN; a firewall that drops packets shows as no answer.",
    )


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]


async def _addresses(host: str, port: int, timeout: float, where: str) -> list[_Address]:
    remedy = "Check the spelling (HostName in ~/.ssh/config), the network and the VPN."
    try:
        async with asyncio.timeout(timeout):
            loop = asyncio.get_running_loop()
            return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]
    except TimeoutError:
        evidence = f"the name servers gave no answer within {timeout:g} s"
    except (OSError, UnicodeError) as error:
        evidence = str(error)
    raise NoAnswer(f"the name {host} has no address", where=where, evidence=evidence, remedy=remedy)


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    patience = {
        getattr(socket, "TCP_KEEPIDLE", None): 30,
        getattr(socket, "TCP_KEEPINTVL", None): 15,
        getattr(socket, "TCP_KEEPCNT", None): _PATIENCE // 15,
    }
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A flow, old or new, retries with doubling pauses, up to 47 s after the path is back: cap the pause, extend the total.
        patience |= {_TCP_RTO_MAX_MS: 1000, socket.TCP_USER_TIMEOUT: _PATIENCE * 1000}
    for option, value in patience.items():
        if option is not None:
            with contextlib.suppress(OSError):  # an older kernel recovers later, nothing worse
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
