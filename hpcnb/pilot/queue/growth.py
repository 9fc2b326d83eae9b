"""How a queue grows by its own tasks: what one of them has said is entered in the transaction of its end."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hpcnb.pilot.queue.action import ADDED, merged
from hpcnb.pilot.queue.contents import Contents, digest
from hpcnb.pilot.queue.states import ENDED, TaskState

_BRANCH = """
WITH RECURSIVE branch (id) AS (
  SELECT child FROM edge JOIN task ON task.id = child WHERE parent = ? AND met = 0 AND state = 0
  UNION SELECT child FROM branch JOIN edge ON parent = branch.id JOIN task ON task.id = child WHERE met = 0 AND state = 0)
UPDATE task SET state = 5 WHERE id IN (SELECT id FROM branch)
"""
_ABOVE = """
WITH RECURSIVE above (id) AS (
  SELECT parent FROM edge WHERE child = ? AND met = 0
  UNION SELECT parent FROM above JOIN edge ON child = above.id WHERE met = 0)
SELECT id FROM above
"""

_Adding = Sequence[tuple[str, dict[str, Any]]]
"""What a task adds: how, and the line."""


class Growth:
    """What tasks add to their queue and pass to their children.

    Parameters
    ----------
    db : sqlite3.Connection
    add_after : callable
        Adds tasks with what they wait for, as `Store.add_after` does.
    moved : callable
        Told of how many tasks went from one state into another.
    again : callable
        Has tasks carried out again, as `Store.again` does.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        add_after: Callable[..., tuple[int, int]],
        moved: Callable[[TaskState | None, TaskState, int], None],
        again: Callable[[Sequence[TaskState], Sequence[int]], int],
    ) -> None:
        self._db = db
        self._add_after = add_after
        self._moved = moved
        self._again = again
        self._contents = Contents(db)
        self._passing = bool(db.execute("SELECT EXISTS (SELECT 1 FROM passed)").fetchone()[0])

    def enter(self, parent: int, lines: Iterable[dict[str, Any]]) -> None:
        """Enter what a task has said that has succeeded, before those that wait for it are told so."""
        lines = list(lines)
        if any(line.get("defuse") for line in lines):
            killed = self._db.execute(_BRANCH, (parent,)).rowcount
            self._moved(TaskState.WAITING, TaskState.KILLED, killed)
        waiting = self._waiting(parent)
        sql = "SELECT priority, policy FROM task WHERE id = ?"
        priority, policy = self._db.execute(sql, (parent,)).fetchone()
        adding = [(kind, line) for line in lines for kind in ADDED if kind in line]
        before = self._before(parent, adding)
        if again := [id for id in before if id]:
            self._again(ENDED, again)
        added: list[int] = []
        for (kind, line), id in zip(adding, before, strict=True):
            above = [] if kind == "add" else [parent]
            more = {"priority": line.get("priority", priority), "policy": policy}
            added.append(id or self._added(line, kind, above, added, **more))
            if kind == "detour":
                self._detour(added[-1], waiting)
        self._remember(parent, adding, added)
        self._pass(parent, lines)

    def _before(self, parent: int, adding: _Adding) -> list[int]:
        """What a task has added by the same words when it ran before; 0 where that is nothing, or is not its own."""
        known = dict(self._db.execute("SELECT name, task FROM added WHERE parent = ?", (parent,)))
        if not known:
            return [0] * len(adding)
        found: list[int] = []
        for name, (_, line) in zip(_names(adding, found), adding, strict=True):
            found.append(0 if line.get("unique") else known.get(name, 0))
        return found

    def _remember(self, parent: int, adding: _Adding, added: list[int]) -> None:
        named = zip(_names(adding, added), adding, added, strict=True)
        rows = [(parent, name, id) for name, (_, line), id in named if not line.get("unique")]
        self._db.executemany("INSERT OR IGNORE INTO added VALUES (?, ?, ?)", rows)

    def _added(self, line: dict[str, Any], kind: str, above: list[int], added: list[int], **more: Any) -> int:
        text = _text(line[kind])
        if line.get("unique") and (known := self._contents.task_with(text)):
            return known
        requires, after = ([added[number - 1] for number in line.get(word, ())] for word in ("requires", "after"))
        return self._add_after([(text, [*above, *requires], after)], **more)[0]

    def _waiting(self, parent: int) -> list[int]:
        sql = "SELECT child FROM edge JOIN task ON id = child WHERE parent = ? AND met = 0 AND state = 0"
        return [row[0] for row in self._db.execute(sql, (parent,))]

    def _detour(self, id: int, waiting: list[int]) -> None:
        """Have those who wait for a task wait for one that it has added, too."""
        state = self._db.execute("SELECT state FROM task WHERE id = ?", (id,)).fetchone()[0]
        if state == TaskState.SUCCEEDED:  # it was there before
            return
        above = {row[0] for row in self._db.execute(_ABOVE, (id,))} | {id}  # may be, if something was there before
        sql = (
            "INSERT INTO edge (parent, child, succeed) VALUES (?, ?, 1) "
            "ON CONFLICT DO UPDATE SET met = 0 WHERE met AND succeed"  # of a detour that is made again
        )
        later = [child for child in waiting if child not in above and self._db.execute(sql, (id, child)).rowcount]
        self._db.executemany("UPDATE task SET needs = needs + 1 WHERE id = ?", ((child,) for child in later))

    def _pass(self, parent: int, lines: list[dict[str, Any]]) -> None:
        values, push = ({k: v for line in lines for k, v in line.get(word, {}).items()} for word in ("values", "push"))
        self._db.execute("DELETE FROM passed WHERE parent = ?", (parent,))
        if values or push:
            self._db.execute("INSERT INTO passed VALUES (?, ?)", (parent, json.dumps([values, push])))
            self._passing = True

    def passed(self, task: int) -> dict[str, Any]:
        """What its parents have passed to a task."""
        if not self._passing:
            return {}
        sql = "SELECT said FROM edge JOIN passed USING (parent) WHERE child = ? ORDER BY parent"
        return merged(json.loads(row[0]) for row in self._db.execute(sql, (task,)))

    def with_passed(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Tasks as they are given out, with what was passed to them at the end, where something was."""
        if not self._passing:
            return rows
        return [(*row, values) if (values := self.passed(row[0])) else row for row in rows]


def _text(task: Any) -> str:
    return json.dumps(task, separators=(",", ":"))


def _names(adding: _Adding, added: Sequence[int]) -> Iterator[bytes]:
    """What tells the tasks that one adds apart: their content, what they wait for, and which of the same it is; `added` may still grow."""
    same: Counter[str] = Counter()
    for kind, line in adding:
        above = [[added[number - 1] for number in line.get(word, ())] for word in ("requires", "after")]
        one = f"{kind} {digest(_text(line[kind])).hex()} {above}"
        same[one] += 1
        yield hashlib.blake2b(f"{one} {same[one]}".encode(), digest_size=8).digest()
