"""The connection between a queue's owner and a worker: mutual TLS, and JSON values with their length before them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import ssl
from typing import Any

from hpcnb.pilot.queue.place import Place

OWNER, WORKER = "scheduler", "worker"
"""The roles in their certificates, as in a cluster."""
_LENGTH = 8


def context(place: Place, role: str) -> ssl.SSLContext:
    """TLS for one end; the other one must have a certificate of the queue's own authority."""
    server = role == OWNER
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_cert_chain(place / f"tls/{role}.pem", place / f"tls/{role}.key")
    made.load_verify_locations(place / "tls/ca.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    if server:
        made.num_tickets = 0  # a ticket would wake a worker that waits for what its owner says
    return made


def alert(connection: socket.socket) -> None:
    """Have the system notice within 16 s that the other machine is gone.

    It answers for a process that lives but is stopped, or computes without a break, as no heartbeat of ours would.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 16_000)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def packed(value: Any) -> bytes:
    """A value as it is sent."""
    data = json.dumps(value, separators=(",", ":")).encode()
    return len(data).to_bytes(_LENGTH, "big") + data


async def received(reader: asyncio.StreamReader) -> Any:
    """The next value; raises `asyncio.IncompleteReadError` at the end."""
    length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
    return json.loads(await reader.readexactly(length))


class Connection:
    """A worker's end; blocks.

    Parameters
    ----------
    place : Place
    address : sequence of str and int
        Where the owner listens.
    """

    def __init__(self, place: Place, address: tuple[str, int]) -> None:
        plain = socket.create_connection(address, timeout=10)
        try:
            alert(plain)
            self._socket = context(place, WORKER).wrap_socket(plain, server_hostname=f"{OWNER}.hpcnb")
        except BaseException:
            plain.close()
            raise
        self._socket.settimeout(None)
        self._is_cut = False

    def send(self, value: Any) -> None:
        self._check()
        self._socket.sendall(packed(value))

    def receive(self) -> Any:
        """The next value; raises `OSError` when the connection is lost."""
        return json.loads(self._exactly(int.from_bytes(self._exactly(_LENGTH), "big")))

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._check()
            if not (piece := self._socket.recv(min(length - len(data), 2**20))):
                raise ConnectionResetError("the owner has closed the connection")
            data += piece
        return bytes(data)

    def _check(self) -> None:
        if self._is_cut:
            raise ConnectionResetError("the connection was cut")

    def fileno(self) -> int:
        return self._socket.fileno()

    def readable(self) -> bool:
        """Whether the owner has said something, or is gone."""
        return bool(self._is_cut or self._socket.pending() or select.select([self._socket], [], [], 0)[0])

    def cut(self) -> None:
        """Have whoever reads or writes fail, now or later, in any thread."""
        self._is_cut = True
        with contextlib.suppress(OSError):  # it is cut already
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # the method of TLS would go on in the clear

    def close(self) -> None:
        self._socket.close()
