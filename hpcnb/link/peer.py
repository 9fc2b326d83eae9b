"""Who is at the other end of a unix socket."""

from __future__ import annotations

import socket
import struct

__all__ = ["peer_uid"]


def peer_uid(sock: socket.socket) -> int:
    """The user there (Linux's SO_PEERCRED: pid, uid, gid)."""
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])
