"""What may be asked of a queue's owner: one function for each request, plain values in and out."""

from __future__ import annotations

import itertools
import json
import socket
import sqlite3
from collections.abc import Callable, Container, Iterator
from typing import IO, Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.lease import began
from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.states import ENDED, TaskState
from hpcnb.pilot.queue.store import Store

READ_ONLY = {"status", "tasks", "task"}
"""What changes nothing, and may be answered twice."""
WALLTIME = "the walltime ran out"
VANISHED = "its worker has vanished"

_Rows = Iterator[str]
_ENDED = {int(state): state for state in ENDED}


def carry_out(store: Store, file: IO[str], present: Container[int] = ()) -> tuple[str, Any]:
    """Carry out the request in a file; returns its name and what is to be answered.

    Parameters
    ----------
    present : container of int
        The workers that are known to live.

    Raises
    ------
    QueueError
        It makes no sense, or asks for what cannot be; nothing was changed that the caller does not roll back.
    """
    try:
        head = json.loads(file.readline())
        call, arguments = _CALLS[head["op"]], dict(head["arguments"])
    except (LookupError, TypeError, ValueError) as exc:
        raise QueueError("a request that makes no sense", evidence=f"{type(exc).__name__}: {exc}") from exc
    if call is _recover:
        arguments["present"] = present
    try:
        return head["op"], call(store, (line.rstrip("\n") for line in file), **arguments)
    except OverflowError as exc:
        raise QueueError("a number is too large for a queue", remedy=f"The largest is {2**63 - 1:,}.") from exc
    except (TypeError, ValueError, LookupError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as exc:
        # What nobody of ours writes. Whoever owns the queue would find it again, and fail by it again.
        raise QueueError(f"the request {head['op']!r} is malformed", evidence=f"{type(exc).__name__}: {exc}") from exc


def _add(
    store: Store,
    lines: _Rows,
    *,
    priority: int,
    edges: bool,
    requires: list[int],
    after: list[int],
    policy: list[Any] | None = None,
    unique: bool = False,
) -> list[int]:
    number = store.policy(*policy) if policy else None
    if unique:
        rows = map(_with_edges, lines) if edges else ((line, requires, after) for line in lines)
        return [_only_one(store, row, priority=priority, policy=number) for row in rows]
    if not (edges or requires or after):
        return list(store.add(lines, priority=priority, policy=number))
    rows = ((line, requires, after) for line in lines) if not edges else map(_with_edges, lines)
    return list(store.add_after(rows, priority=priority, policy=number))


def _only_one(store: Store, row: tuple[str, list[int], list[int]], **more: Any) -> int:
    """The task with this content that there is already, or else a new one."""
    known = store.contents.task_with(row[0])
    return store.add_after([row], **more)[0] if known is None else known


def _graph(store: Store, lines: _Rows, *, priority: int, policy: list[Any] | None) -> list[int]:
    """Add tasks that wait for each other: each names those before it by their places."""
    number = store.policy(*policy) if policy else None
    first = store.next
    for line in lines:
        payload, requires, after, own = json.loads(line)
        row = (payload, [first + place for place in requires], [first + place for place in after])
        store.add_after([row], priority=priority if own is None else own, policy=number)
    return [first, store.next - first]


def _with_edges(line: str) -> tuple[str, list[int], list[int]]:
    payload, requires, after = json.loads(line)
    return payload, requires, after


def _status(store: Store, _lines: _Rows) -> dict[str, Any]:
    return {"paused": store.paused, "ntasks": {state.title: store.counts[state] for state in TaskState}}


def _tasks(store: Store, _lines: _Rows, *, after: int, most: int, state: str | None) -> list[Any]:
    return store.tasks(after=after, most=most, state=TaskState.of(state) if state else None)


def _task(store: Store, _lines: _Rows, *, id: int) -> dict[str, Any]:
    return store.task(id) | {"values": store.growth.passed(id)}


def _again(store: Store, _lines: _Rows, *, states: list[str], ids: list[int] | None) -> int:
    wanted = [TaskState.of(state) for state in states]
    if any(state not in ENDED for state in wanted):
        raise QueueError("only tasks that have ended are done again")
    return store.again(wanted, ids)


def _mark(store: Store, _lines: _Rows, *, state: str, ids: list[int]) -> int:
    return store.mark(TaskState.of(state), ids)


def _prioritize(store: Store, _lines: _Rows, *, priority: int, ids: list[int]) -> int:
    return store.prioritize(priority, ids)


def _pause(store: Store, _lines: _Rows, *, paused: bool) -> None:
    store.paused = paused


def _get(store: Store, _lines: _Rows, *, worker: str, host: str, pid: int) -> list[Any]:
    if store.paused or not store.counts[TaskState.PENDING]:
        return []  # without a trace of who asked
    return list(itertools.chain(*store.take(store.worker(worker, host=host, pid=pid), 1)))


def _finish(store: Store, _lines: _Rows, *, worker: str, outcomes: list[list[Any]], leaves: bool = False) -> list[int]:
    number = store.worker(worker)
    accepted = store.finish(number, told(outcomes))
    if leaves:
        store.release(number, VANISHED)
    return accepted


def told(rows: list[list[Any]]) -> list[Outcome]:
    """Outcomes as they come by wire or by file.

    Raises
    ------
    QueueError
        One is none.
    """
    try:
        outcomes = [Outcome(task, attempt, _ENDED[state], *more) for task, attempt, state, *more in rows]
    except KeyError as exc:
        raise QueueError(f"no attempt ends {TaskState(exc.args[0]).title}") from None
    return [one._replace(error=_writable(one.error)) if one.error else one for one in outcomes]


def _writable(text: str) -> str:
    """Text without halves of characters, as names of files have them, which are not to be had in a file of SQLite."""
    return text.encode(errors="backslashreplace").decode()


def _recover(store: Store, _lines: _Rows, *, present: Container[int]) -> int:
    lost = [w for w in store.running() if w.id not in present and not lives_here(w.host, w.pid)]
    return sum(store.release(worker.id, VANISHED) for worker in lost)


def gone(host: str, pid: int) -> bool:
    """Whether a worker was a process of this machine, and has ended."""
    return host == socket.gethostname() and not began(pid)


def lives_here(host: str, pid: int) -> bool:
    """Whether a worker is a process of this machine that runs."""
    return host == socket.gethostname() and bool(began(pid))


_CALLS: dict[str, Callable[..., Any]] = {
    "add": _add,
    "graph": _graph,
    "status": _status,
    "tasks": _tasks,
    "task": _task,
    "again": _again,
    "mark": _mark,
    "prioritize": _prioritize,
    "pause": _pause,
    "get": _get,
    "finish": _finish,
    "recover": _recover,
}
