"""Which task of a queue has which content; known only of queues where somebody has asked for it."""

from __future__ import annotations

import hashlib
import json
import sqlite3


class Contents:
    """The tasks of a queue by their content: the value, in whichever order its keys are, and nothing besides.

    Nothing is kept of tasks before the first question, and from then on what was added since the last one.

    Parameters
    ----------
    db : sqlite3.Connection
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def task_with(self, payload: str) -> int | None:
        """The first task with this content, in whichever state; None when there is none."""
        self._catch_up()
        row = self._db.execute("SELECT task FROM content WHERE digest = ?", (digest(payload),)).fetchone()
        return row[0] if row else None

    def _catch_up(self) -> None:
        row = self._db.execute("SELECT value FROM setting WHERE name = 'digested'").fetchone()
        last = known = row[0] if row else 0
        new = self._db.execute("SELECT id, payload FROM task WHERE id > ? ORDER BY id", (known,))
        while rows := new.fetchmany(10_000):
            sql = "INSERT OR IGNORE INTO content VALUES (?, ?)"
            self._db.executemany(sql, ((digest(payload), id) for id, payload in rows))
            last = rows[-1][0]
        if last > known:
            self._db.execute("INSERT OR REPLACE INTO setting VALUES ('digested', ?)", (last,))


def digest(payload: str) -> bytes:
    """A fingerprint of a task's JSON.

    Examples
    --------
    >>> digest('{"a":1,"b":2}') == digest('{"b":2,"a":1}')
    True
    """
    if payload[:1] in ("{", "["):
        payload = json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(payload.encode("utf-8", "surrogatepass"), digest_size=16).digest()
