"""An exception as it leaves a worker: of its own type where that can travel, with the lines at which it was raised."""

from __future__ import annotations

import linecache
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import tblib.pickling_support
from cloudpickle import cloudpickle

from hpcnb.errors import TaskFailed

__all__ = ["HEAD", "Line", "RemoteTraceback", "Trace", "between", "is_ours", "portable"]

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"
HEAD = "Traceback (most recent call last"
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


class RemoteTraceback(Exception):
    """The cause of an exception that was raised elsewhere: the lines at which it was."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.trace = trace

    def __str__(self) -> str:
        # Where this is shown there is the source of a notebook's cells, which a worker does not have.
        return "\n" + "\n".join(_plain(self.trace))


def between(trace: Trace) -> tuple[str, str, str]:
    """What Python prints between an exception and the one that it led to."""
    return "", CAUSE if trace.cause else CONTEXT, ""


def _plain(trace: Trace) -> Iterator[str]:
    if trace.earlier is not None:
        yield from (*_plain(trace.earlier), *between(trace))
    yield f"{HEAD}, in {trace.where}):" if trace.where else f"{HEAD}):"
    stack = traceback.StackSummary.from_list([_summary(line) for line in trace.lines])
    yield from "".join(stack.format()).splitlines()
    yield trace.last


def _summary(line: Line) -> traceback.FrameSummary:
    make: Any = traceback.FrameSummary  # its stubs know nothing of columns
    summary: traceback.FrameSummary = make(
        line.file,
        line.line,
        line.function,
        line=line.text or linecache.getline(line.file, line.line) or None,
        end_lineno=line.end_line,
        colno=line.column,
        end_colno=line.end_column,
    )
    return summary


def portable(error: BaseException, *, name: str, where: str) -> BaseException:
    """Return the error with its `Trace` as its cause, or one that says the same where it cannot travel or would end the worker.

    Parameters
    ----------
    error : BaseException
    name : str
        The function's.
    where : str
        Task, host and batch job.
    """
    if isinstance(error.__cause__, RemoteTraceback):  # from a process of the call's own, where this was done
        return error
    user = _below(error.__traceback__)
    told = _ending(error, name, where) or error
    trace = _trace(error, user, where)
    _carry(told, trace, _short(user))
    if _travels(told):
        return told
    told = TaskFailed(
        f"{name} raised {type(error).__qualname__}, which cannot be pickled: {error}",
        where=where,
        evidence=trace.last,
        remedy="Let its class have __reduce__, or leave out what cannot travel.",
    )
    _carry(told, trace, None)
    return told


def _ending(error: BaseException, name: str, where: str) -> TaskFailed | None:
    """What is said of an exception that would end the worker."""
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return TaskFailed(f"{name} called sys.exit({code})", where=where)
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        return TaskFailed(f"{name} raised {type(error).__name__}", where=where)
    return None


def _carry(error: BaseException, trace: Trace, tb: TracebackType | None) -> None:
    # As its cause, for so it comes along however its class is pickled; what led to it is in there.
    error.__cause__, error.__context__ = RemoteTraceback(trace), None
    error.__traceback__ = tb


def _travels(error: BaseException) -> bool:
    """Whether it is the same behind a journey, made as Dask will make it."""
    tblib.pickling_support.install(error)
    try:
        back = pickle.loads(cloudpickle.dumps(error))  # noqa: S301 - it was made here
        return type(back) is type(error) and str(back) == str(error)
    except Exception:  # whatever its class does in there
        return False


def _trace(error: BaseException, tb: TracebackType | None, where: str = "") -> Trace:
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    whole = traceback.TracebackException(type(error), error, tb, lookup_lines=False, max_group_width=15)
    last = "".join(whole.format_exception_only())
    if isinstance(error, BaseExceptionGroup):
        last = "".join(traceback.format_exception(type(error), error, None))
    return Trace(
        lines=tuple(_line(summary) for summary in whole.stack),
        last=last.rstrip("\n"),
        earlier=None if earlier is None else _trace(earlier, _below(earlier.__traceback__)),
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


def _below(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without what is ours at its head, which tells the user nothing."""
    while tb is not None and is_ours(tb.tb_frame):
        tb = tb.tb_next
    return tb


def is_ours(frame: FrameType) -> bool:
    """Whether code that runs is hpcnb's."""
    return str(frame.f_globals.get("__name__")).startswith("hpcnb.")


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
