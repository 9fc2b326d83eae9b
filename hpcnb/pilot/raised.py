"""An exception as it leaves a worker: of its own type where that can travel, with the lines at which it was raised."""

from __future__ import annotations

import linecache
import pickle
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from cloudpickle import cloudpickle

from hpcnb.errors import TaskFailed

__all__ = ["TRACE", "Line", "Trace", "portable"]

TRACE = "_hpcnb_trace"
"""The attribute of an exception that holds its `Trace`."""
LONGEST = 60
"""Entries of the traceback that Dask sends; it pickles them one inside the other, and gives up at some hundreds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One entry of a traceback.

    Parameters
    ----------
    file, function : str
    line, end_line : int
    column, end_column : int or None
        In bytes, as Python has them.
    text : str
        The line; empty where the worker has no source, as for a notebook's cell.
    """

    file: str
    function: str
    line: int
    end_line: int | None
    column: int | None
    end_column: int | None
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What Python shows of an exception, as plain values.

    Parameters
    ----------
    lines : tuple of Line
        Of the user's code only, the outermost first.
    last : str
        Type and message, with notes.
    earlier : Trace, optional
        Of its cause, or of what was handled when it was raised.
    cause : bool
        Whether ``earlier`` is its cause.
    where : str
        Task, host and batch job.
    """

    lines: tuple[Line, ...]
    last: str
    earlier: Trace | None = None
    cause: bool = False
    where: str = ""


def portable(error: BaseException, *, name: str, where: str, ours: frozenset[str]) -> BaseException:
    """Return the error with its `Trace`, or one that says the same where it cannot travel or would end the worker.

    Parameters
    ----------
    error : BaseException
    name : str
        The function's.
    where : str
        Task, host and batch job.
    ours : frozenset of str
        Files whose entries at the head of the traceback tell the user nothing.
    """
    if hasattr(error, TRACE):  # from a process of the call's own, where this was done
        return error
    user = _below(error.__traceback__, ours)
    if isinstance(error, SystemExit):
        told: BaseException = TaskFailed(
            f"{name} called sys.exit({'' if error.code is None else repr(error.code)})", where=where
        )
    elif isinstance(error, KeyboardInterrupt | GeneratorExit):
        told = TaskFailed(f"{name} raised {type(error).__name__}", where=where)
    else:
        told = error
    trace = _trace(error, user, ours, where)
    _shorten(error, user)
    if not _travels(told):
        told = TaskFailed(
            f"{name} raised {type(error).__qualname__}, which cannot be pickled: {error}",
            where=where,
            evidence=trace.last,
            remedy="Its class needs __reduce__, or an __init__ that takes its args.",
        )
    _attach(told, trace)
    return told.with_traceback(error.__traceback__)


def _attach(error: Any, trace: Trace) -> None:
    try:
        setattr(error, TRACE, trace)
    except (AttributeError, TypeError):
        return  # it takes no attributes: what Dask sends of its traceback has to do


def _travels(error: BaseException) -> bool:
    try:
        back = pickle.loads(cloudpickle.dumps(error))  # noqa: S301 - it was made here
        return type(back) is type(error) and str(back) == str(error)
    except Exception:  # whatever its class does in there
        return False


def _trace(error: BaseException, tb: TracebackType | None, ours: frozenset[str], where: str = "") -> Trace:
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    whole = traceback.TracebackException(type(error), error, tb, lookup_lines=False, max_group_width=15)
    last = "".join(whole.format_exception_only())
    if isinstance(error, BaseExceptionGroup):
        last = "".join(traceback.format_exception(type(error), error, None))
    return Trace(
        lines=tuple(_line(summary) for summary in whole.stack),
        last=last.rstrip("\n"),
        earlier=None if earlier is None else _trace(earlier, _below(earlier.__traceback__, ours), ours),
        cause=error.__cause__ is not None,
        where=where,
    )


def _line(summary: traceback.FrameSummary) -> Line:
    at: Any = summary  # what Python knows of columns, its stubs do not
    number = summary.lineno or 0
    return Line(
        file=summary.filename,
        function=summary.name,
        line=number,
        end_line=at.end_lineno,
        column=at.colno,
        end_column=at.end_colno,
        text=linecache.getline(summary.filename, number),
    )


def _below(tb: TracebackType | None, ours: frozenset[str]) -> TracebackType | None:
    """A traceback without what is ours at its head."""
    while tb is not None and tb.tb_frame.f_code.co_filename in ours:
        tb = tb.tb_next
    return tb


def _shorten(error: BaseException, user: TracebackType | None) -> None:
    """Let Dask be able to pickle the tracebacks of an error and of those that led to it."""
    error.__traceback__ = _short(user)
    seen = [error]
    while (earlier := seen[-1].__cause__ or seen[-1].__context__) is not None and earlier not in seen:
        earlier.__traceback__ = _short(earlier.__traceback__)
        seen.append(earlier)


def _short(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without its middle, if it is long: that of an endless recursion, say."""
    entries = []
    while tb is not None:
        entries.append(tb)
        tb = tb.tb_next
    if len(entries) > LONGEST:
        entries = entries[: LONGEST // 2] + entries[-LONGEST // 2 :]
    short = None
    for entry in reversed(entries):
        short = TracebackType(short, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return short
