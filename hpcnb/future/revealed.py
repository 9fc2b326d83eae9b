"""A task's exception as its user sees it: the lines at which it was raised, wherever that was; ours are folded."""

from __future__ import annotations

import contextlib
import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import hpcnb
from hpcnb.notebook_name import shell
from hpcnb.pilot.worker.raised import HEAD, Line, RemoteTraceback, Trace, between

__all__ = ["revealed"]

AROUND = 2
"""Lines that are shown before and after the one that failed."""


def revealed(error: BaseException) -> BaseException:
    """Have an exception that came from a worker shown with the lines at which it was raised there.

    Parameters
    ----------
    error : BaseException
        With a `RemoteTraceback` as its cause.
    """
    if isinstance(error.__cause__, RemoteTraceback) and error.__cause__.trace.lines:
        trace = error.__cause__.trace
        with contextlib.suppress(AttributeError, TypeError):  # it takes no attributes; the cause is shown nevertheless
            cast("Any", error)._render_traceback_ = lambda: list(_shown(error, trace))
    return error


def _shown(error: BaseException, trace: Trace) -> Iterator[str]:
    yield f"{type(error).__name__}: {HEAD})"
    for file, number, _ in _own(error.__traceback__):
        yield f"{_place(file)}, line {number}"
        yield from _excerpt(file, number, "", around=0)
    yield from _remote(trace)
    # What it says now: the worker's own words lack the notes that were added here.
    yield str(error) if hasattr(type(error), "_render_traceback_") else trace.last


def _remote(trace: Trace) -> Iterator[str]:
    if trace.earlier is not None:
        yield from (*_remote(trace.earlier), trace.earlier.last, *between(trace))
    if trace.where:
        yield f"in {trace.where}:"
    for _, same in groupby(trace.lines, key=lambda line: (line.file, line.line, line.function)):
        line, *more = same
        yield f"{_place(line.file)}, line {line.line}, in {line.function}"
        yield from _excerpt(line.file, line.line, line.text, around=AROUND, marks=_marks(line))
        if more:
            yield f"  [the same line {len(more)} more times]"


def _own(tb: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    """The entries of a local traceback that are the user's own."""
    for at in traceback.extract_tb(tb):
        if not _is_ours(at.filename):
            yield at.filename, at.lineno or 0, at.name


def _excerpt(file: str, number: int, text: str, *, around: int, marks: str = "") -> Iterator[str]:
    for at in range(max(1, number - around), number + around + 1):
        source = linecache.getline(file, at) or (text if at == number else "")
        if source:
            yield f"{'---->' if at == number else '     '} {at:>4} {source.rstrip()}"
        if source and at == number and marks:
            yield f"{'':>11}{marks}"


def _marks(line: Line) -> str:
    """What Python puts below the part of a line that failed, unless that is the whole line."""
    if line.column is None or line.end_column is None or line.end_line != line.line:
        return ""
    source = (linecache.getline(line.file, line.line) or line.text).rstrip()
    begin, end = (len(source.encode()[:offset].decode("utf-8", "replace")) for offset in (line.column, line.end_column))
    return "" if source.strip() == source[begin:end] else f"{' ' * begin}{'^' * (end - begin)}"


def _place(file: str) -> str:
    """A file as the user knows it: a cell by its number."""
    running = shell()
    named = running.compile.format_code_name(file) if running is not None else None
    return " ".join(named) if named else f"File {file}"


def _is_ours(file: str) -> bool:
    """Whether code is none of the user's: hpcnb's, Python's own, or a library's."""
    return file.startswith(_LIBRARIES) or file.startswith("<frozen")


_LIBRARIES = (
    str(Path(hpcnb.__file__).parent),
    *{sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")},
    *{str(Path(sysconfig.get_paths()[name]).resolve()) for name in ("stdlib", "purelib", "platlib")},
)
