"""A file that is appended to and read anywhere: what does not fit on the disk leaves nothing of itself behind."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["Appended"]

PIECE = 4096
"""Bytes that are read at once to find the end of a line."""


class Appended:
    """A file of the user's alone, 0600.

    Nothing waits in a buffer: one that a full disk keeps from being emptied would stand in the way of all that is read later.

    Parameters
    ----------
    path : Path
        Is made, unless it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.end = os.fstat(self._descriptor).st_size

    def append(self, data: bytes) -> int:
        """Write data behind all that is there, and return where it begins.

        Raises
        ------
        OSError
            There is no room for it; the file is as it was.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.end)
            raise
        begin, self.end = self.end, self.end + len(data)
        return begin

    def line(self, at: int) -> bytes:
        """The line that begins there, with its end."""
        found = b""
        while b"\n" not in found and (piece := os.pread(self._descriptor, PIECE, at + len(found))):
            found += piece
        head, end, _ = found.partition(b"\n")
        return head + end

    def read(self, at: int, size: int) -> bytes:
        """So many bytes from there on."""
        found = bytearray()
        while len(found) < size and (piece := os.pread(self._descriptor, size - len(found), at + len(found))):
            found += piece
        return bytes(found)

    def clear(self) -> None:
        """Keep nothing of it."""
        os.ftruncate(self._descriptor, 0)
        self.end = 0

    def close(self) -> None:
        """Write no more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # a quota may be told of as late as this
                os.close(descriptor)
