"""Make a socket of an SSH channel: bytes both ways, ends and half-ends too."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import paramiko

from hpcnb.site.ssh_transport import PIECE

_RECEIVE = 1 << 18


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
        try:
            while data := channel.recv(_RECEIVE):
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            channel.status_event.wait()  # paramiko sets it when the channel is closed
        except OSError:
            channel.close()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        up.join()


def _up(sock: socket.socket, channel: paramiko.Channel) -> None:
    with channel, contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := sock.recv(_RECEIVE):
            for at in range(0, len(data), PIECE):
                channel.sendall(data[at : at + PIECE])
        channel.shutdown_write()
        gone = select.poll()
        gone.register(sock, 0)  # reports only that the other end is closed for good
        gone.poll()
