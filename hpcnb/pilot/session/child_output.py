"""What child processes and C code write to stdout and stderr: read whole, and all of it before the cell ends.

ipykernel's own reader takes a thousand bytes at a time, breaks characters in two where these end, and may still have to
take a child's last words when the cell has ended already.
"""

from __future__ import annotations

import array
import codecs
import fcntl
import os
import select
import sys
import termios
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ipykernel.iostream import OutStream

__all__ = ["install", "settle"]

CHUNK = 64 << 10
PATIENCE = 0.2
"""Seconds that a cell's end waits; a child that still writes then is a background process."""

LINE = 0.02
"""Seconds that what ends within a line waits for its end: a child writes that by itself, and what the cell prints is not to come between."""

_idle: weakref.WeakKeyDictionary[OutStream, threading.Event] = weakref.WeakKeyDictionary()


def install() -> None:
    """Take the place of ipykernel's reader, in all streams made from now on.

    Not a subclass: libraries know a notebook by the module of the stream's class.
    """
    OutStream._watch_pipe_fd = _watch  # type: ignore[method-assign]  # noqa: SLF001
    # ipykernel flushes both streams three times a cell, and each time waits for another thread.
    OutStream.flush = _flush  # type: ignore[method-assign]


def _flush(stream: OutStream, _flush: Callable[[OutStream], None] = OutStream.flush) -> None:
    if stream._buffers:  # noqa: SLF001 - else there is nothing to wait for: what was handed on goes out in order
        _flush(stream)


def _watch(stream: OutStream) -> None:
    source: Any = stream._fid  # noqa: SLF001
    copy = stream._original_stdstream_copy  # noqa: SLF001
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    idle = _idle[stream] = threading.Event()
    try:
        while stream._should_watch:  # noqa: SLF001 - who closes it writes a byte, which may come with the rest of a line
            idle.set()
            select.select([source], [], [])
            # The pipe is not empty until this is said, so that `settle` sees the one or the other.
            idle.clear()
            data = os.read(source, CHUNK)
            if not data or not stream._should_watch:  # noqa: SLF001
                return
            if not data.endswith(b"\n") and select.select([source], [], [], LINE)[0]:
                rest = os.read(source, CHUNK)
                data += rest if stream._should_watch else b""  # noqa: SLF001
            stream.write(decoder.decode(data))
            os.write(copy, data)
    finally:
        idle.set()


def settle() -> None:
    """Wait until everything that is in the pipes by now has become output."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, OutStream) and (idle := _idle.get(stream)):
            while (_waiting(stream._fid) or not idle.is_set()) and time.monotonic() < deadline:  # noqa: SLF001
                pause.wait(0.0005)


def _waiting(source: Any) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(source, termios.FIONREAD, count)
    return count[0]
