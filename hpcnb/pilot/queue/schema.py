"""The tables of a queue, and how its file is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

VERSION = 1

# Integers as ids and states, and partial indices: 10⁶ tasks cost a third of what text ids and full indices do.
# An edge is met once its parent has ended as it asks; a task has as many needs as it has edges that are not.
# A task that has failed, and is to be tried again after a while, is waiting, and due.
# An attempt's output is a piece of its worker's log.
_TABLES = """
CREATE TABLE task (
  id INTEGER PRIMARY KEY, state INTEGER NOT NULL, priority INTEGER NOT NULL, needs INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0, worker INTEGER, policy INTEGER, payload TEXT NOT NULL, result TEXT);
CREATE INDEX task_pending ON task (priority DESC, id) WHERE state = 1;
CREATE INDEX task_running ON task (worker) WHERE state = 2;
CREATE INDEX task_other ON task (state, id) WHERE state NOT IN (1, 3);
CREATE TABLE edge (
  parent INTEGER NOT NULL, child INTEGER NOT NULL, succeed INTEGER NOT NULL, met INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (parent, child)) WITHOUT ROWID;
CREATE INDEX edge_child ON edge (child);
CREATE TABLE attempt (
  task INTEGER NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL, worker INTEGER, fence INTEGER NOT NULL,
  began REAL, ended REAL, code INTEGER, error TEXT, out_from INTEGER, out_to INTEGER, err_from INTEGER, err_to INTEGER,
  PRIMARY KEY (task, number)) WITHOUT ROWID;
CREATE TABLE policy (id INTEGER PRIMARY KEY, retries INTEGER NOT NULL, delay REAL NOT NULL, pattern TEXT NOT NULL);
CREATE TABLE due (task INTEGER PRIMARY KEY, delay REAL NOT NULL, at REAL);
CREATE TABLE worker (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, host TEXT, pid INTEGER, job TEXT);
CREATE TABLE count (state INTEGER PRIMARY KEY, tasks INTEGER NOT NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value);
CREATE TABLE request (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, answer TEXT NOT NULL);
INSERT INTO count SELECT value, 0 FROM json_each('[0, 1, 2, 3, 4, 5]');
INSERT INTO setting VALUES ('next', 1), ('edges', 0), ('paused', 0);
"""

# What came later, or is there only where it is asked for: what a task has passed to its children, tasks by their content, and what a
# task has added, by what it said.
_LATER = """
CREATE TABLE IF NOT EXISTS passed (parent INTEGER PRIMARY KEY, said TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS content (digest BLOB PRIMARY KEY, task INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS added (parent INTEGER NOT NULL, name BLOB NOT NULL, task INTEGER NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;
"""


def opened(path: Path) -> sqlite3.Connection:
    """Open a queue's file for its one owner; make it when there is none.

    A rollback journal and full synchronisation: what is committed has reached the disk, on a shared file system too, where
    a WAL, shared memory or a second writer would lose rows.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in (
        "locking_mode=EXCLUSIVE",
        "journal_mode=TRUNCATE",
        "synchronous=FULL",
        "mmap_size=0",
        "temp_store=MEMORY",
        "cache_size=-65536",
    ):
        db.execute(f"PRAGMA {pragma}")
    if db.execute("PRAGMA user_version").fetchone()[0] == 0:
        db.executescript(f"BEGIN; {_TABLES} {_LATER} PRAGMA user_version={VERSION}; COMMIT")
    db.executescript(_LATER)
    db.execute("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)")
    return db
