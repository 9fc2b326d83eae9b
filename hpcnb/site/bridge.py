"""Make a socket of an SSH channel: bytes both ways, ends and half-ends too."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import paramiko

from hpcnb.site.ssh_transport import PIECE, Transport

_RECEIVE = 1 << 18
_MOMENT = 50
"""Milliseconds that the transport's thread waits for a reader that is only busy."""
_LOST = (OSError, EOFError, paramiko.SSHException)


def bridge(channel: paramiko.Channel) -> socket.socket:
    """Turn a channel into a connected, non-blocking socket of the caller's; two threads move the bytes.

    Either side waits while the other does not read. What one side ends, ends for the other; when both ways have
    ended, or either side is gone, nothing is left.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    up = threading.Thread(target=_up, args=(ours, channel), name="bridge up", daemon=True)
    up.start()
    threading.Thread(target=_Down(channel, ours).run, args=(up,), name="bridge down", daemon=True).start()
    return theirs


class _Down:
    """From the channel to the socket.

    The transport's own thread passes the bytes on, for each change of threads costs more than the rest; but it must
    not wait for long, so what the socket has no room for is left in the channel, to a thread that may.
    """

    def __init__(self, channel: paramiko.Channel, sock: socket.socket) -> None:
        self._channel = channel
        self._sock = sock
        self._lock = threading.Lock()
        self._room = select.poll()
        self._room.register(sock, select.POLLOUT)
        self._direct = False  # nothing is left in the channel, or in the hands of the thread

    def run(self, up: threading.Thread) -> None:
        transport = self._channel.get_transport()
        with self._sock:
            if isinstance(transport, Transport):
                transport.divert(self._channel, self._take)
            with contextlib.suppress(*_LOST):
                self._pass_on()
                self._sock.shutdown(socket.SHUT_WR)
                self._channel.status_event.wait()  # set when the channel is closed
            # Either way both ends are done for; `_up` may wait on one or the other.
            with contextlib.suppress(*_LOST):
                self._sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(*_LOST):
                self._channel.close()
            up.join()

    def _pass_on(self) -> None:
        while True:
            with self._lock:
                self._direct = not self._channel.recv_ready()
            data = self._channel.recv(_RECEIVE)
            if not data:
                return
            self._sock.sendall(data)

    def _take(self, pieces: list[bytes]) -> int:
        """Take what has come for the channel, in the transport's thread; return how much of it has left again."""
        data, gone = b"".join(pieces), 0
        with self._lock:
            while self._direct and gone < len(data):
                try:
                    gone += self._sock.send(data[gone:], socket.MSG_DONTWAIT)
                except BlockingIOError:
                    self._direct = bool(self._room.poll(_MOMENT))
                except OSError:
                    self._direct = False  # nobody is there, which the thread will find out
            if gone < len(data):
                self._channel.in_buffer.feed(data[gone:])
            return gone


def _up(sock: socket.socket, channel: paramiko.Channel) -> None:
    with contextlib.suppress(*_LOST), channel:
        while data := sock.recv(PIECE):
            channel.sendall(data)
        channel.shutdown_write()
        gone = select.poll()
        gone.register(sock, 0)  # reports only that the other end is closed for good
        gone.poll()
