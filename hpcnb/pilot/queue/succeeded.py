"""How the attempts that went well, which are nearly all, are recorded: by two statements for all of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.states import TaskState

ATTEMPT = "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE = "UPDATE task SET state = 3, result = ? WHERE id = ?"
_TITLES = {state: state.title for state in TaskState}


def parted(outcomes: Iterable[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Those that are only to be recorded, and those of which more follows."""
    plain: list[Outcome] = []
    others: list[Outcome] = []
    for one in outcomes:
        (plain if one.state == TaskState.SUCCEEDED and not one.action else others).append(one)
    return plain, others


def recorded(db: sqlite3.Connection, fence: int, worker: int, outcomes: list[Outcome]) -> list[int]:
    """Record attempts that succeeded; returns the tasks of those that were still this worker's. An attempt counts once."""
    held = dict(
        db.execute("SELECT id, attempt FROM task WHERE state = 2 AND worker = ?", (worker,)) if outcomes else ()
    )
    ours = [one for one in outcomes if held.pop(one.task, None) == one.attempt]
    db.executemany(_UPDATE, ((one.result, one.task) for one in ours))
    db.executemany(ATTEMPT, (row(worker, fence, one) for one in ours))
    return [one.task for one in ours]


def row(worker: int, fence: int, one: Outcome) -> tuple[Any, ...]:
    """An attempt as its table has it."""
    times = (one.began, one.ended, one.code, one.error or None)
    return (one.task, one.attempt, _TITLES[one.state], worker, fence, *times, *one.output)
