"""The socket under an SSH connection, for two readers that take turns, and for writers that never wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable

_BUFFER = 1 << 19
FULL = 1 << 16
"""Bytes waiting for the kernel above which nobody should write more."""


def nothing() -> None:
    """Stand in for a callback that nobody gave."""


class Wire:
    """What paramiko takes for its socket.

    Either paramiko's thread reads (`recv`, which waits) or the loop (`listen`, then `fill` whenever there is something);
    whoever begins to read finds what the other has left. Writing is for all threads, one at a time.

    Parameters
    ----------
    sock : socket
        Connected, and closed by `close`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # A descriptor of the loop's own, which nobody closes, or gives to another file, while the loop looks at it.
        self._own = sock.dup()
        self._own.setblocking(False)
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0
        self._lock = threading.Lock()
        self._waiting: deque[memoryview] = deque()  # for the kernel to take it
        self.backlog = 0
        """How many bytes wait for the kernel."""
        self._closed = False
        self.drained: Callable[[], None] = nothing
        """Called in the loop when nothing waits any more."""
        self.ended: Callable[[], None] = nothing
        """Called in the loop when the wire was closed."""

    # Reading.

    def recv(self, size: int) -> bytes:
        """Return at most `size` bytes, for which the kernel may be waited for."""
        if self._start == self._end:
            self._start, self._end = 0, self._sock.recv_into(self._buffer)
        piece = bytes(self._buffer[self._start : min(self._start + size, self._end)])
        self._start += len(piece)
        return piece

    def listen(self, heard: Callable[[], None]) -> None:
        """Have the loop call `heard` whenever there is something to read."""
        if not self._closed:
            self._loop.add_reader(self._own, heard)

    def unlisten(self) -> None:
        """Leave the reading to somebody else."""
        self._loop.remove_reader(self._own)

    def fill(self) -> None:
        """Read what the kernel has, without waiting; raises `EOFError` at the end."""
        if self._start:
            rest = bytes(self.held())
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        with contextlib.suppress(BlockingIOError):
            size = self._own.recv_into(self._buffer[self._end :])
            if not size:
                raise EOFError
            self._end += size

    def held(self) -> memoryview:
        """What was read and not yet taken."""
        return self._buffer[self._start : self._end]

    def take(self, size: int) -> None:
        """Drop so many bytes of what is held."""
        self._start += size

    # Writing.

    def send(self, data: bytes | memoryview) -> int:
        """Send all of it, at once or as soon as there is room."""
        with self._lock:
            sent = 0
            if not self._waiting:
                with contextlib.suppress(BlockingIOError):
                    sent = self._own.send(data)
                if sent == len(data):
                    return sent
                self._loop.call_soon_threadsafe(self._watch)
            rest = memoryview(bytes(data[sent:]))
            self._waiting.append(rest)
            self.backlog += len(rest)
            return len(data)

    def _watch(self) -> None:
        if not self._closed:
            self._loop.add_writer(self._own, self._flush)

    def _flush(self) -> None:
        with self._lock:
            try:
                while self._waiting:
                    sent = self._own.send(self._waiting[0])
                    self.backlog -= sent
                    self._waiting[0] = self._waiting[0][sent:]
                    if not self._waiting[0]:
                        self._waiting.popleft()
            except BlockingIOError:
                return
            except OSError:
                self._waiting.clear()  # whoever reads finds out
            self._loop.remove_writer(self._own)
        self.drained()

    def close(self) -> None:
        """Close the socket, from any thread; the loop lets go of it in its own time."""
        self._sock.close()
        if threading.get_ident() == self._loop_thread:
            self._let_go()
            return
        try:
            self._loop.call_soon_threadsafe(self._let_go)
        except RuntimeError:  # the loop is closed
            self._own.close()

    def _let_go(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._own)
            self._loop.remove_writer(self._own)
            self._own.close()
            self.ended()
