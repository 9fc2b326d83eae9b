"""Make a socket of an SSH channel: bytes both ways, ends and half-ends too."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import paramiko

from hpcnb.site.ssh_transport import PIECE

_RECEIVE = 1 << 18
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
    threading.Thread(target=_down, args=(channel, ours, up), name="bridge down", daemon=True).start()
    return theirs


def _down(channel: paramiko.Channel, sock: socket.socket, up: threading.Thread) -> None:
    with sock:
        with contextlib.suppress(*_LOST):
            while data := channel.recv(_RECEIVE):
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            channel.status_event.wait()  # set when the channel is closed
        # Either way both ends are done for; `_up` may wait on one or the other.
        with contextlib.suppress(*_LOST):
            sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(*_LOST):
            channel.close()
        up.join()


def _up(sock: socket.socket, channel: paramiko.Channel) -> None:
    with contextlib.suppress(*_LOST), channel:
        while data := sock.recv(_RECEIVE):
            for at in range(0, len(data), PIECE):
                channel.sendall(data[at : at + PIECE])
        channel.shutdown_write()
        gone = select.poll()
        gone.register(sock, 0)  # reports only that the other end is closed for good
        gone.poll()
