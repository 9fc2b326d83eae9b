"""What has become of tasks: their attempts, and where the one that runs does so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from hpcnb.pilot.queue.records import Outcome

_ATTEMPTS = (
    "SELECT a.number, a.state, a.began, a.ended, a.code, a.error, w.host, w.job, w.name AS worker, a.fence, "
    "a.out_from, a.out_to, a.err_from, a.err_to FROM attempt a LEFT JOIN worker w ON w.id = a.worker "
    "WHERE a.task = ? ORDER BY a.number"
)
_RUNNING = (
    "SELECT attempt AS number, w.host, w.job, w.name AS worker FROM task JOIN worker w ON w.id = worker "
    "WHERE task.id = ? AND state = 2"
)
_PRINTED = (
    "UPDATE attempt SET out_from = ?, out_to = ?, err_from = ?, err_to = ? "
    "WHERE task = ? AND number = ? AND worker = ? AND state = 'Lost'"
)


def attempts(db: sqlite3.Connection, task: int) -> list[dict[str, Any]]:
    """The attempts at a task that have ended."""
    return _rows(db.execute(_ATTEMPTS, (task,)))


def running(db: sqlite3.Connection, task: int) -> dict[str, Any] | None:
    """The attempt that runs, or is about to: its number, and whose it is."""
    return next(iter(_rows(db.execute(_RUNNING, (task,)))), None)


def _rows(found: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def told_late(db: sqlite3.Connection, worker: int, outcomes: Iterable[Outcome]) -> None:
    """Of attempts that do not count, since their tasks were taken away, keep what they have printed."""
    db.executemany(_PRINTED, ((*one.output, one.task, one.attempt, worker) for one in outcomes))
