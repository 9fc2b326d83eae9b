"""The tasks of one queue: every change is a move inside one transaction of one SQLite file. Knows no clock and no file but that."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue import history
from hpcnb.pilot.queue.contents import Contents
from hpcnb.pilot.queue.growth import Growth
from hpcnb.pilot.queue.records import Outcome, Worker
from hpcnb.pilot.queue.schema import opened
from hpcnb.pilot.queue.states import BY_HAND, ENDED, LOST, TaskState, among, meets
from hpcnb.pilot.queue.succeeded import ATTEMPT, parted, recorded, row

_IN = "id IN (SELECT id FROM chosen)"
ROOM = 4_000_000
"""Characters of tasks that are given out at once, unless a single one is larger."""
REMEMBERED = 1000
"""Requests at least; many more than are carried out at once."""
LONGEST_DELAY = 3600.0
MOST_LOST = 5
"""Workers that a task may cost, before it is taken to be the cause."""
_PENDING = (
    "SELECT id, attempt + 1, payload, attempt AND (SELECT count(*) FROM attempt WHERE task = id AND attempt.state = 'Lost') "
    "FROM task WHERE state = 1 ORDER BY priority DESC, id LIMIT ?"
)


class Store:
    """A queue's tasks. Methods that change anything belong into a `transaction`.

    Parameters
    ----------
    path : Path
        Of the SQLite file; made when it is not there.
    fence : int
        The number of this ownership, kept with every attempt that it records.
    """

    def __init__(self, path: Path, fence: int) -> None:
        self._db = opened(path)
        self._fence = fence
        self._load()
        self.growth = Growth(self._db, self.add_after, self._moved, self.again)
        self.contents = Contents(self._db)

    def _load(self) -> None:
        self.counts = {TaskState(s): n for s, n in self._db.execute("SELECT state, tasks FROM count")}
        settings: dict[str, int] = dict(self._db.execute("SELECT name, value FROM setting"))
        self.next, self._edges, self.paused = settings["next"], settings["edges"], bool(settings["paused"])
        self.due = int(self._db.execute("SELECT count(*) FROM due").fetchone()[0])
        self._kept = self._image()

    def _image(self) -> tuple[Any, ...]:
        return (dict(self.counts), self.next, self._edges, self.paused, self.due)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, on the disk when it ends."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._keep()
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            self._load()
            raise

    @contextlib.contextmanager
    def part(self) -> Iterator[None]:
        """A part of a transaction that may fail without the others."""
        before = self._image()
        self._db.execute("SAVEPOINT part")
        try:
            yield
        except QueueError:
            self._db.execute("ROLLBACK TO part")
            self.counts, self.next, self._edges, self.paused, self.due = before
            raise
        finally:
            if self._db.in_transaction:
                self._db.execute("RELEASE part")

    def _keep(self) -> None:
        if self._image() != self._kept:
            self._db.executemany("UPDATE count SET tasks = ? WHERE state = ?", [(n, s) for s, n in self.counts.items()])
            kept = {"next": self.next, "edges": self._edges, "paused": int(self.paused)}
            self._db.executemany("UPDATE setting SET value = ? WHERE name = ?", [(v, k) for k, v in kept.items()])
            self._kept = self._image()

    def _moved(self, before: TaskState | None, after: TaskState, tasks: int = 1) -> None:
        if before is not None:
            self.counts[before] -= tasks
        self.counts[after] += tasks

    # -- adding --------------------------------------------------------------------------------------------------

    def policy(self, retries: int, delay: float, pattern: str) -> int:
        """What is done when a task fails: its number, for `add`.

        Parameters
        ----------
        retries : int
            How often it is tried again.
        delay : float
            Seconds before the first time; twice as many before each further one.
        pattern : str
            What the error must hold; empty: anything.
        """
        sql = "INSERT INTO policy (retries, delay, pattern) VALUES (?, ?, ?)"
        return self._db.execute(sql, (retries, delay, pattern)).lastrowid or 0

    def add(self, payloads: Iterable[str], *, priority: int = 0, policy: int | None = None) -> tuple[int, int]:
        """Add tasks that wait for nothing; returns the first id and how many, since ids follow each other."""
        first = self.next
        rows = ((id, TaskState.PENDING, priority, policy, text) for id, text in enumerate(payloads, first))
        sql = "INSERT INTO task (id, state, priority, policy, payload) VALUES (?, ?, ?, ?, ?)"
        added = self._db.executemany(sql, rows).rowcount
        self.next += max(0, added)
        self._moved(None, TaskState.PENDING, max(0, added))
        return first, max(0, added)

    def add_after(
        self,
        payloads: Iterable[tuple[str, Sequence[int], Sequence[int]]],
        *,
        priority: int = 0,
        policy: int | None = None,
    ) -> tuple[int, int]:
        """Add tasks, each with those that have to succeed and those that have to finish before."""
        first = self.next
        for text, requires, after in payloads:
            edges = dict.fromkeys(after, 0) | dict.fromkeys(requires, 1)
            unmet = self._add_edges(edges)
            state = TaskState.WAITING if unmet else TaskState.PENDING
            sql = "INSERT INTO task (id, state, priority, needs, policy, payload) VALUES (?, ?, ?, ?, ?, ?)"
            self._db.execute(sql, (self.next, state, priority, unmet, policy, text))
            self._moved(None, state)
            self.next += 1
        return first, self.next - first

    def _add_edges(self, edges: dict[int, int]) -> int:
        rows = []
        for parent, succeed in edges.items():
            found = self._db.execute("SELECT state FROM task WHERE id = ?", (parent,)).fetchone()
            if found is None:
                raise QueueError(f"there is no task {parent} to wait for", remedy="Nothing was added.")
            rows.append((parent, self.next, succeed, meets(found[0], succeed)))
        self._db.executemany("INSERT INTO edge (parent, child, succeed, met) VALUES (?, ?, ?, ?)", rows)
        self._edges += len(rows)
        return sum(not row[3] for row in rows)

    # -- working ---------------------------------------------------------------------------------------------------

    def worker(self, name: str, *, host: str = "", pid: int = 0, job: str = "") -> int:
        """The number of a worker, by the name that it has given itself."""
        sql = "INSERT OR IGNORE INTO worker (name, host, pid, job) VALUES (?, ?, ?, ?)"
        self._db.execute(sql, (name, host, pid, job))
        return int(self._db.execute("SELECT id FROM worker WHERE name = ?", (name,)).fetchone()[0])

    def take(self, worker: int, most: int, *, alone: bool = True) -> list[tuple[Any, ...]]:
        """Give a worker pending tasks, the most urgent first, of at most `ROOM` characters.

        Of each there are id, number of this attempt, payload and, if something was, what was passed to it. One that has lost
        a worker is given alone, and only to a worker that has no others: that is `alone`.
        """
        if self.paused or not self.counts[TaskState.PENDING]:
            return []
        rows: list[tuple[Any, ...]] = []
        room = ROOM
        for id, attempt, payload, lost in self._db.execute(_PENDING, (most,)):
            room -= len(payload)
            if (rows and (lost or room < 0)) or (lost and not alone):
                break
            rows.append((id, attempt, payload))
            if lost:  # alone: should the worker die again, it is known of what
                break
        mark = "UPDATE task SET state = 2, attempt = ?, worker = ? WHERE id = ?"
        self._db.executemany(mark, ((attempt, worker, id) for id, attempt, _ in rows))
        self._moved(TaskState.PENDING, TaskState.RUNNING, len(rows))
        return self.growth.with_passed(rows)

    def give_back(self, worker: int, tasks: Iterable[Sequence[int]]) -> None:
        """Have pending again what a worker was given and has not begun, each with its attempt, which is none."""
        sql = "UPDATE task SET state = 1, attempt = attempt - 1, worker = NULL WHERE id = ? AND attempt = ? AND state = 2 AND worker = ?"
        back = self._db.executemany(sql, ((*one, worker) for one in tasks)).rowcount
        self._moved(TaskState.RUNNING, TaskState.PENDING, max(0, back))

    def finish(self, worker: int, outcomes: Iterable[Outcome]) -> list[int]:
        """Record how attempts ended; returns the tasks of those that were still theirs. An attempt counts once."""
        plain, others = parted(outcomes)
        accepted = recorded(self._db, self._fence, worker, plain)
        self._moved(TaskState.RUNNING, TaskState.SUCCEEDED, len(accepted))
        for task in accepted if self._edges else ():
            self._settle(task, TaskState.SUCCEEDED)
        sql = "UPDATE task SET state = ?, result = ? WHERE id = ? AND state = 2 AND attempt = ? AND worker = ?"
        for one in others:
            if self._db.execute(sql, (one.state, one.result, one.task, one.attempt, worker)).rowcount:
                self._moved(TaskState.RUNNING, one.state)
                self._db.execute(ATTEMPT, row(worker, self._fence, one))
                if one.action and one.state is TaskState.SUCCEEDED:
                    self.growth.enter(one.task, one.action)
                if one.state is not TaskState.FAILED or not self._retried(one):
                    self._settle(one.task, one.state)
                accepted.append(one.task)
        if len(accepted) < len(plain) + len(others):
            history.told_late(self._db, worker, (*plain, *others))
        return accepted

    def _retried(self, one: Outcome) -> bool:
        """Try a task again that has failed, at once or later, if its policy says so."""
        sql = "SELECT retries, delay, pattern FROM task JOIN policy ON policy.id = policy WHERE task.id = ?"
        retries, delay, pattern = self._db.execute(sql, (one.task,)).fetchone() or (0, 0.0, "")
        if not retries or not re.search(pattern, one.error):
            return False
        sql = "SELECT count(*) FROM attempt WHERE task = ? AND state = 'Failed'"
        failed = self._db.execute(sql, (one.task,)).fetchone()[0]
        if failed > retries:
            return False
        state = TaskState.WAITING if delay else TaskState.PENDING
        self._db.execute("UPDATE task SET state = ?, result = NULL, worker = NULL WHERE id = ?", (state, one.task))
        self._moved(TaskState.FAILED, state)
        if delay:
            later = min(delay * 2 ** (failed - 1), LONGEST_DELAY)
            added = self._db.execute("INSERT OR IGNORE INTO due (task, delay) VALUES (?, ?)", (one.task, later))
            self.due += added.rowcount
        return True

    def wake(self, now: float) -> None:
        """Make those tasks pending that have waited long enough after they failed, by the clock of whoever owns the queue."""
        if not self.due:
            return
        # Nobody waits for longer than asked: if so that clock was set back, or is another machine's.
        self._db.execute("UPDATE due SET at = :now + delay WHERE at IS NULL OR at > :now + delay", {"now": now})
        for (task,) in self._db.execute("DELETE FROM due WHERE at <= ? RETURNING task", (now,)).fetchall():
            self.due -= 1
            sql = "UPDATE task SET state = 1 WHERE id = ? AND state = 0 AND needs = 0"
            self._moved(TaskState.WAITING, TaskState.PENDING, self._db.execute(sql, (task,)).rowcount)

    def release(self, worker: int, why: str, but: Sequence[int] = ()) -> int:
        """Take back the tasks of a worker that has vanished, but for some; they are pending again, but for one that does that to each worker."""
        self._choose("state = 2 AND worker = ?", worker)
        self._db.executemany("DELETE FROM chosen WHERE id = ?", ((id,) for id in but))
        sql = (
            "SELECT chosen.id, count(*) + 1 FROM chosen JOIN attempt ON task = chosen.id WHERE state = ? GROUP BY task"
        )
        lost = dict(self._db.execute(sql, (LOST,)))
        released = self._reset(why)
        if released == 1 and max(lost.values(), default=0) >= MOST_LOST:
            self.mark(TaskState.FAILED, list(lost))
        return released

    def _settle(self, parent: int, state: TaskState) -> None:
        """Tell the tasks that wait for one that it has ended."""
        if not self._edges or state is TaskState.KILLED:  # it will be gone on with
            return
        succeeded = state is TaskState.SUCCEEDED
        sql = "UPDATE edge SET met = 1 WHERE parent = ? AND met = 0 AND (succeed = 0 OR ?) RETURNING child"
        for (child,) in self._db.execute(sql, (parent, succeeded)).fetchall():
            self._db.execute("UPDATE task SET needs = needs - 1 WHERE id = ?", (child,))
            free = "UPDATE task SET state = 1 WHERE id = ? AND state = 0 AND needs = 0"
            self._moved(TaskState.WAITING, TaskState.PENDING, self._db.execute(free, (child,)).rowcount)

    # -- moving by hand ----------------------------------------------------------------------------------------------

    def _choose(self, where: str, *values: Any) -> None:
        self._db.execute("DELETE FROM chosen")
        self._db.execute(f"INSERT INTO chosen SELECT id FROM task WHERE {where}", values)  # noqa: S608 - ours

    def _choose_ids(self, ids: Iterable[int]) -> None:
        self._db.execute("DELETE FROM chosen")
        self._db.executemany("INSERT OR IGNORE INTO chosen VALUES (?)", ((id,) for id in ids))
        sql = "SELECT id FROM chosen WHERE id NOT IN (SELECT id FROM task) LIMIT 1"
        if missing := self._db.execute(sql).fetchone():
            raise QueueError(f"there is no task {missing[0]}", remedy="Nothing was changed.")

    def _chosen(self, *, sign: int) -> int:
        """Count the chosen tasks out of their states, or into them."""
        rows = self._db.execute(f"SELECT state, count(*) FROM task WHERE {_IN} GROUP BY state").fetchall()  # noqa: S608 - ours
        for state, tasks in rows:
            self.counts[TaskState(state)] += sign * tasks
        return sum(row[1] for row in rows)

    def again(self, states: Sequence[TaskState], ids: Sequence[int] | None = None) -> int:
        """Have tasks that are in one of these states carried out (again); those that wait for one of them wait again."""
        if ids is not None:
            self._choose_ids(ids)
            self._db.execute(f"DELETE FROM chosen WHERE id NOT IN (SELECT id FROM task WHERE {among(states)})")  # noqa: S608
        else:
            self._choose(among(states))
        return self._reset("taken back")

    def _reset(self, why: str) -> int:
        """Make the chosen tasks pending, or waiting where a task that they wait for is chosen, too."""
        self._lose(why)
        self._chosen(sign=-1)
        if self._edges:
            sql = "UPDATE edge SET met = 0 WHERE parent IN (SELECT id FROM chosen) AND child IN (SELECT id FROM chosen)"
            self._db.execute(sql)
            needs = f"UPDATE task SET needs = (SELECT count(*) FROM edge WHERE child = id AND met = 0) WHERE {_IN}"  # noqa: S608
            self._db.execute(needs)
            self._db.execute("DELETE FROM passed WHERE parent IN (SELECT id FROM chosen)")
        self._db.execute(f"UPDATE task SET state = (needs = 0), result = NULL, worker = NULL WHERE {_IN}")  # noqa: S608
        return self._chosen(sign=1)

    def _lose(self, why: str) -> None:
        """Record the attempts that the chosen tasks are in as lost."""
        sql = f"INSERT INTO attempt (task, number, state, worker, fence, error) SELECT id, attempt, ?, worker, ?, ? FROM task WHERE state = 2 AND {_IN}"  # noqa: S608
        self._db.execute(sql, (LOST, self._fence, why))

    def mark(self, state: TaskState, ids: Sequence[int]) -> int:
        """Put tasks into a state by hand; who runs one learns that it is no longer his."""
        if state not in BY_HAND:
            allowed = ", ".join(one.title for one in BY_HAND)
            raise QueueError(f"a task cannot be set {state.title}", remedy=f"What can be set is {allowed}.")
        if state is TaskState.PENDING:
            return self.again([TaskState.RUNNING, *ENDED], ids)
        self._choose_ids(ids)
        self._lose(f"set {state.title} by hand")
        self._chosen(sign=-1)
        self._db.execute(f"UPDATE task SET state = ?, worker = NULL WHERE {_IN}", (state,))  # noqa: S608
        changed = self._chosen(sign=1)
        for id in ids:
            self._settle(id, state)
        return changed

    def prioritize(self, priority: int, ids: Sequence[int]) -> int:
        """Change the priority of tasks that have not begun."""
        self._choose_ids(ids)
        sql = f"UPDATE task SET priority = ? WHERE state IN (0, 1) AND {_IN}"  # noqa: S608
        return self._db.execute(sql, (priority,)).rowcount

    def revive(self, why: str) -> int:
        """Go on with tasks whose last attempt ended by this cause."""
        self._choose("state = 5 AND (SELECT error FROM attempt WHERE task = id AND number = task.attempt) = ?", why)
        return self._reset(why)

    # -- looking -------------------------------------------------------------------------------------------------------

    def tasks(self, *, after: int = 0, most: int = 10_000, state: TaskState | None = None) -> list[tuple[Any, ...]]:
        """Tasks by id, a page at a time: id, state, priority, attempts, payload, result."""
        where = "id > ?" if state is None else f"id > ? AND {among([state])}"
        sql = f"SELECT id, state, priority, attempt, payload, result FROM task WHERE {where} ORDER BY id LIMIT ?"  # noqa: S608
        return self._db.execute(sql, (after, most)).fetchall()

    def task(self, id: int) -> dict[str, Any]:
        """One task, with its attempts, the one that runs, and what it waits for."""
        rows = self.tasks(after=id - 1, most=1)
        if not rows or rows[0][0] != id:
            raise QueueError(f"there is no task {id}")
        sql = "SELECT parent FROM edge WHERE child = ? AND met = 0 ORDER BY parent LIMIT 1000"
        return {
            "row": rows[0],
            "attempts": history.attempts(self._db, id),
            "running": history.running(self._db, id),
            "waits_for": [row[0] for row in self._db.execute(sql, (id,))],
        }

    def running(self) -> list[Worker]:
        """Those who have tasks."""
        sql = "SELECT id, name, host, pid FROM worker WHERE id IN (SELECT DISTINCT worker FROM task WHERE state = 2)"
        return [Worker(*row) for row in self._db.execute(sql)]

    def held(self, worker: int) -> set[tuple[int, int]]:
        """The tasks that a worker has, each with the number of the attempt."""
        return set(self._db.execute("SELECT id, attempt FROM task WHERE state = 2 AND worker = ?", (worker,)))

    # -- requests that were carried out --------------------------------------------------------------------------------

    def answered(self, request: str) -> str | None:
        """What was answered to a request that was carried out already."""
        row = self._db.execute("SELECT answer FROM request WHERE name = ?", (request,)).fetchone()
        return row[0] if row else None

    def remember(self, request: str, answer: str) -> None:
        """What is answered to a request, should it come again: its file is there still, or who asked has not had the answer."""
        id = self._db.execute("INSERT INTO request (name, answer) VALUES (?, ?)", (request, answer)).lastrowid or 0
        if id % REMEMBERED == 0:
            self._db.execute("DELETE FROM request WHERE id <= ?", (id - REMEMBERED,))

    def close(self) -> None:
        self._db.close()

    def check(self) -> None:
        """Raise `sqlite3.DatabaseError` when the file is damaged."""
        if (said := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"the queue's file is damaged: {said}")
