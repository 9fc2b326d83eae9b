"""What an SSH connection hears: read from the kernel in large pieces, remembered as far as an error message needs it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import paramiko
from paramiko.packet import Packetizer

_RECEIVE = 1 << 18


def _nothing() -> None:
    pass


class _Reader:
    """The transport's socket as paramiko reads it, 16 bytes and then a packet; the kernel is asked for much at once."""

    def __init__(self, sock: socket.socket | paramiko.Channel) -> None:
        self._sock = sock
        self.send = sock.send
        self.close = sock.close
        self._rest = b""
        self._at = 0
        self.before: Callable[[], None] = _nothing
        """Called before the kernel is asked, which may take long."""

    def recv(self, size: int) -> bytes:
        if self._at == len(self._rest):
            self.before()
            self._rest, self._at = self._sock.recv(_RECEIVE), 0
        start, self._at = self._at, min(self._at + size, len(self._rest))
        return self._rest[start : self._at]


class Listener(Packetizer):
    """Remembers the lines before the encryption, for another service is best recognised by its words; then only when."""

    heard = ""
    heard_at = 0.0

    def __init__(self, sock: socket.socket | paramiko.Channel) -> None:
        self.reader = _Reader(sock)
        super().__init__(self.reader)  # type: ignore[arg-type]

    def readline(self, timeout: float) -> str:
        line = super().readline(timeout)
        self.heard += f"{line}\n"
        return line

    def read_message(self) -> tuple[int, paramiko.Message]:
        answer = super().read_message()
        self.heard_at = time.monotonic()
        return answer
