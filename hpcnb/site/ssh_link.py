"""Reach a login node: through its jump hosts, each with its own key check and login."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Sequence

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from hpcnb.errors import AuthenticationFailed, ConnectionFailed
from hpcnb.site import ssh_trust, tcp
from hpcnb.site.shell import Ask, Prompt
from hpcnb.site.ssh_auth import log_in
from hpcnb.site.ssh_channel import ChannelTransport, bridge
from hpcnb.site.ssh_config import Endpoint
from hpcnb.site.ssh_transport import FORBIDDEN, HOST_KEYS, Transport


async def reach(route: Sequence[Endpoint], ask: Ask) -> list[Transport]:
    """Connect to each server of a route through the one before it.

    Raises
    ------
    ConnectionFailed, HostKeyMismatch, AuthenticationFailed
        `where` is the server in question.
    """
    links: list[Transport] = []
    try:
        for end in route:
            links.append(await _link(end, links[-1] if links else None, ask))
    except BaseException:
        for link in reversed(links):
            await asyncio.to_thread(link.close)
        raise
    return links


async def _link(end: Endpoint, via: Transport | None, ask: Ask) -> Transport:
    known = await asyncio.to_thread(ssh_trust.read, end)
    transport = Transport(
        await _socket(end, via),
        where=end.alias,
        algorithms=known.algorithms(HOST_KEYS),
        timeout=end.connect_timeout,
    )
    try:
        await _negotiate(transport, end)
        await ssh_trust.check(transport, end, known, ask)
        await log_in(transport, end, _noting(ask, transport))
    except BaseException:
        await asyncio.to_thread(transport.close)
        raise
    return transport


def _noting(ask: Ask, transport: Transport) -> Ask:
    async def noting(prompt: Prompt) -> str:
        transport.dear = True
        return await _while_it_lasts(transport, ask(prompt))

    return noting


async def _while_it_lasts(transport: Transport, answer: Awaitable[str]) -> str:
    """The answer to a question of the server's, which waits for none any more when it has ended the connection."""
    asking, over = asyncio.ensure_future(answer), asyncio.ensure_future(transport.over.wait())
    try:
        await asyncio.wait((asking, over), return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        raise AuthenticationFailed(
            "the server did not wait for the answer any longer",
            where=transport.where,
            evidence=transport.farewell,
            remedy="Connect again, and answer in time (two minutes, unless its LoginGraceTime says otherwise).",
        )
    finally:
        asking.cancel()
        over.cancel()


async def _socket(end: Endpoint, via: Transport | None) -> socket.socket:
    if via is None:
        sock = await tcp.connect(end.host, end.port, timeout=end.connect_timeout, where=end.alias)
        sock.setblocking(True)
        return sock
    # sshd sends small pieces at once only after it has started something on the connection.
    via.submit(_hurry, via)
    return await bridge(await forward(via, end.host, end.port, timeout=end.connect_timeout, where=end.alias))


async def forward(via: Transport, host: str, port: int, *, timeout: float, where: str) -> ChannelTransport:
    """Have an SSH server open a TCP connection for us.

    Raises
    ------
    ConnectionFailed
        It may not, or could not.
    """
    carrier = ChannelTransport(via.carriers)
    try:
        await via.open("direct-tcpip", (host, port), timeout=timeout, carrier=carrier)
    except paramiko.ChannelException as error:
        if error.code == FORBIDDEN:
            raise tcp.Forbidden(
                f"{via.where} forbids TCP forwarding",
                where=where,
                evidence=error.text,
                remedy="Its sshd says so (AllowTcpForwarding, PermitOpen): another route must be taken.",
            ) from None
        raise ConnectionFailed(
            f"{via.where} could not connect to {host} port {port}",
            where=where,
            evidence=error.text,
            remedy="Nothing may listen there, the name may be unknown there, or a firewall is between.",
        ) from None
    return carrier


def _hurry(via: Transport) -> None:
    # A jump host that runs nothing for us still forwards; some answers then come 40 ms later.
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError), via.open_blocking("session") as channel:
        channel.exec_command("exit")


async def _negotiate(transport: Transport, end: Endpoint) -> None:
    place = f"{end.host} port {end.port}"
    try:
        await transport.call(transport.start_client)
    except (paramiko.SSHException, EOFError, OSError) as error:
        what, remedy = _diagnose(error, transport.packetizer.heard)
        evidence = (transport.packetizer.heard + (transport.farewell or str(error))).strip()
        raise ConnectionFailed(f"{place} {what}", where=end.alias, evidence=evidence, remedy=remedy) from None


def _diagnose(error: Exception, heard: str) -> tuple[str, str]:
    if isinstance(error, IncompatiblePeer):
        return "and we have no algorithm in common", "Its SSH server is too old to be safe."
    if heard and "SSH-" not in heard:
        return "does not speak SSH", "Check Port and HostName."
    if isinstance(error.__context__, TimeoutError):
        return "accepts connections but says nothing", "It may be overloaded, or no SSH server."
    return "ended the connection before the login", "There may be too many connections, or this address is blocked."
