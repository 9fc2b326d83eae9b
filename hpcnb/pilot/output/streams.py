"""What stands for `sys.stdout` and `sys.stderr` on a worker, and tells what is logged and warned of by its level."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from hpcnb.pilot.output.capture import FEW, FRAGMENTS, LONG, Capture
from hpcnb.pilot.output.speaker import Speaker, mine
from hpcnb.pilot.output.tape import ERR, OUT

__all__ = ["install"]


class Stream(io.TextIOBase):
    """A text stream whose lines belong to who prints them.

    Parameters
    ----------
    capture : Capture
    number : int
        `OUT` or `ERR`, which are the descriptors, too.
    speaker : Speaker, optional
        Whose all of it is.
    """

    encoding = "utf-8"
    errors = "surrogateescape"
    closed = False

    def __init__(self, capture: Capture, number: int, speaker: Speaker | None = None) -> None:
        self._capture, self._number, self._speaker = capture, number, speaker
        self.name = f"<{'stdout' if number == OUT else 'stderr'}>"
        self.mode = "w"
        self.buffer = _Bytes(self)

    def write(self, text: str, /) -> int:
        """Take some text."""
        if text.__class__ is not str and not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        who = self._speaker or mine.speaker or self._capture.speaker()
        kind = mine.level << 2 | self._number
        if who.kind != kind:
            self._capture.turn_to(who, kind)
        who.parts.append(text)
        # A flood passes here, some million times a second.
        if not who.warm or who.recent < FEW or len(who.parts) > FRAGMENTS or (length := len(text)) > LONG:
            self._capture.heard(who, text)
            length = len(text)
        return length

    def flush(self) -> None:
        """Have it in the log."""
        self._capture.flush(self._speaker)

    def fileno(self) -> int:
        """Where children of this thread may write."""
        tape = self._capture.before_child()
        return tape.descriptor if tape is not None else self._number

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def reconfigure(self, **how: Any) -> None:
        """Nothing to do: that it is UTF-8, and written by lines, cannot be changed."""

    def close(self) -> None:
        """Nothing to do: others print, too."""

    def __del__(self) -> None:
        """Not that of `io`, which would close it."""


class _Bytes(io.BufferedIOBase):
    """What `sys.stdout.buffer` is: bytes, among the text."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, data: Any, /) -> int:
        """Take some bytes."""
        found = bytes(data)
        self._stream.write(found.decode("utf-8", "surrogateescape"))
        return len(found)

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        """As its stream."""

    def __del__(self) -> None:
        """Likewise."""


def install(capture: Capture) -> None:
    """Let whatever this process prints from now on be attributed."""
    before = sys.stderr
    sys.stdout, sys.stderr = Stream(capture, OUT), Stream(capture, ERR)
    own = Stream(capture, ERR, capture.worker)
    for handler in _handlers():
        if handler.stream is before:  # Dask's own, which speaks of the worker in whichever thread
            handler.setStream(own)
    logging.StreamHandler.emit = _with_level(logging.StreamHandler.emit)  # type: ignore[method-assign]
    warnings.showwarning = _warning(warnings.showwarning)
    threading.Thread.start = _inherited(capture, threading.Thread.start)  # type: ignore[method-assign]
    os.register_at_fork(after_in_child=_plain)


def _handlers() -> list[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    return [one for logger in loggers for one in logger.handlers if isinstance(one, logging.StreamHandler)]


def _with_level(emit: Callable[..., None]) -> Callable[..., None]:
    def emit_with_level(self: Any, record: logging.LogRecord) -> None:
        before, mine.level = mine.level, record.levelno
        try:
            emit(self, record)
        finally:
            mine.level = before

    return emit_with_level


def _warning(show: Callable[..., Any]) -> Callable[..., Any]:
    def show_with_level(*args: Any, **more: Any) -> Any:
        before, mine.level = mine.level, logging.WARNING
        try:
            return show(*args, **more)
        finally:
            mine.level = before

    return show_with_level


def _inherited(capture: Capture, start: Callable[..., None]) -> Callable[..., None]:
    def start_for(self: Any) -> None:
        self.hpcnb_speaker = capture.current()
        start(self)

    return start_for


def _plain() -> None:
    """In a child that was forked by a task: it has streams of its own, and their descriptors say whose they are."""
    out, err = (
        io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, "w", closefd=False)), "utf-8", "backslashreplace", line_buffering=True
        )
        for number in (OUT, ERR)
    )
    sys.stdout, sys.stderr = out, err
    # A logger's handler may still have the old ones.
    Stream.write = lambda self, text: (out if self._number == OUT else err).write(text)  # type: ignore[method-assign]
    Stream.flush = lambda self: (out if self._number == OUT else err).flush()  # type: ignore[method-assign]
