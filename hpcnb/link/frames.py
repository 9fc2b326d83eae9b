"""Frames: how one message of a link is laid out on a pipe.

A frame is a header of 17 bytes (kind, stream, sequence number, length of the payload; big-endian) and the
payload. Frames that must arrive (open, data, window, close, reset) are numbered 1, 2, 3 … over all streams of
one direction. The others (ack, ping, pong, bye) speak of the pipe they travel on, and may be lost with it;
their header's sequence number carries their one value.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

__all__ = ["HEADER", "PIECE", "Decoder", "Frame", "FrameError", "Kind", "encode"]

HEADER = struct.Struct("!BIQI")
PIECE = (64 << 10) - HEADER.size
"""The largest payload, and so the most that one stream sends before the next has its turn; its frame fills whole TLS records."""
_BUFFER, _LEAST = 512 << 10, 128 << 10


class Kind(enum.IntEnum):
    """What a frame says; below 16 are the kinds that must arrive."""

    OPEN = 1  # payload: the stream's name
    DATA = 2
    WINDOW = 3  # payload: how many bytes the stream may send in all
    CLOSE = 4  # no more data in this direction
    RESET = 5  # the stream is over in both directions; payload: why
    ACK = 16  # sequence number: the last frame received
    PING = 17  # sequence number: what the pong brings back
    PONG = 18
    BYE = 19  # every stream is over; payload: why

    @property
    def must_arrive(self) -> bool:
        return self < 16


_KINDS = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One frame."""

    kind: Kind
    stream: int
    seq: int
    payload: bytes


class FrameError(ConnectionError):
    """The other end of a pipe does not speak as a link does; the pipe is of no more use."""


def encode(kind: Kind, *, stream: int = 0, seq: int = 0, payload: bytes | memoryview = b"") -> bytes:
    """Return the bytes of a frame."""
    return HEADER.pack(kind, stream, seq, len(payload)) + payload


class Decoder:
    """Turns the bytes of one pipe, however they are cut, into frames.

    It holds less than one frame.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0  # of what is not a whole frame yet

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes.

        Raises
        ------
        FrameError
            The bytes are no frames.
        """
        frames, rest = [], memoryview(data)
        while rest:
            room = self.room()[: len(rest)]
            room[:] = rest[: len(room)]
            frames += self.came(len(room))
            rest = rest[len(room) :]
        return frames

    def room(self) -> memoryview:
        """Where the next bytes may be put without a copy in between; there is always some."""
        if self._start and len(self._buffer) - self._end < _LEAST:
            rest = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._buffer[self._end :]

    def came(self, size: int) -> list[Frame]:
        """Return the frames that `size` bytes in `room` complete, as `feed` does."""
        self._end += size
        view = self._buffer[: self._end]
        frames = []
        while (frame := _frame_at(view, self._start)) is not None:
            frames.append(frame)
            self._start += HEADER.size + len(frame.payload)
        if self._start == self._end:
            self._start = self._end = 0
        return frames


def _frame_at(view: memoryview, start: int) -> Frame | None:
    body = start + HEADER.size
    if len(view) < body:
        return None
    number, stream, seq, length = HEADER.unpack_from(view, start)
    kind = _KINDS.get(number)
    if kind is None or length > PIECE:
        raise FrameError(f"a frame of kind {number} with {length} bytes is none of a link's")
    end = body + length
    return Frame(kind, stream, seq, bytes(view[body:end])) if len(view) >= end else None
