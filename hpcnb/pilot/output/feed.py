"""What tasks print, at the scheduler: a bounded record for each notebook, which its clients read from where they were."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler

from hpcnb.pilot.output.outbox import LINES, TAKEN
from hpcnb.pilot.scheduler.keeper import holder, notebook_of

__all__ = ["Feed"]

KEPT = 8 << 20
"""Bytes of one notebook's record; what is older is counted."""
WINDOW = 2 << 20
"""Bytes that may be on their way to one client, so that nothing else has to wait long behind them."""
NAMES = 1000
"""Attempts of calls that are counted each for itself."""

Entry = tuple[Any, ...]
"""As `hpcnb.pilot.output.outbox` makes them, with the worker's name."""


@dataclass(kw_only=True)
class _Record:
    """The latest that one notebook's tasks have printed."""

    entries: deque[tuple[int, Entry]] = field(default_factory=deque)
    size: int = 0
    end: int = 0  # the number of the next one
    read: int = 0  # of the first that nobody has got
    lost: dict[tuple[Any, ...], tuple[int, int]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.entries.append((self.end, entry))
        self.end += 1
        self.size += _size(entry)
        while self.size > KEPT:
            number, old = self.entries.popleft()
            self.size -= _size(old)
            if number >= self.read:
                self._count(old)

    def _count(self, entry: Entry) -> None:
        name = entry[:4] + entry[8:]
        if name not in self.lost and len(self.lost) >= NAMES:
            self.lost.pop(next(iter(self.lost)))
        lines, size = self.lost.get(name, (0, 0))
        _, data, cut_lines, cut_size = entry[4:8]
        own = (cut_lines, cut_size) if cut_size else (data.count(b"\n"), len(data))
        self.lost[name] = (lines + own[0], size + own[1])

    def since(self, number: int, room: int) -> tuple[list[Entry], int, int]:
        """The entries from a number on, as many as there is room for; their size, and the number of the next."""
        found: list[Entry] = []
        first = self.entries[0][0] if self.entries else self.end
        if number < first:
            found = [(*name[:4], 0.0, b"", *counts, *name[4:]) for name, counts in self.lost.items()]
            self.lost = {}
        size = 0
        for at, entry in itertools.islice(self.entries, max(0, number - first), None):
            if size >= room:
                break
            found.append(entry)
            size += _size(entry)
            number = at + 1
        number = max(number, first)
        self.read = max(self.read, number)
        return found, size, number


@dataclass(kw_only=True)
class _Reader:
    """A client of a notebook: what it is to get next, and how much it has not taken yet."""

    notebook: str
    next: int
    on_its_way: int = 0


class Feed(SchedulerPlugin):
    """Passes on what tasks print to the notebooks that want their results."""

    name = "hpcnb-feed"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler: Any = scheduler
        self._records: dict[str, _Record] = {}
        self._readers: dict[str, _Reader] = {}
        self._scheduler.stream_handlers.update({LINES: self._hear, TAKEN: self._taken})

    def add_client(self, scheduler: Scheduler, client: str) -> None:
        if notebook := notebook_of(client):
            record = self._records.setdefault(notebook, _Record())
            self._readers[client] = _Reader(notebook=notebook, next=record.end)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        self._readers.pop(client, None)

    def _hear(self, entries: Iterable[Entry], size: int, worker: str) -> None:
        """A worker tells what was printed there."""
        known = self._scheduler.workers.get(worker)
        if (comm := self._scheduler.stream_comms.get(worker)) is not None:
            comm.send({"op": TAKEN, "size": size})
        notebooks = set()
        for entry in entries:
            for notebook in self._wanting(entry[0]):
                self._records.setdefault(notebook, _Record()).add((*entry, str(known.name) if known else ""))
                notebooks.add(notebook)
        for client, reader in self._readers.items():
            if reader.notebook in notebooks:
                self._tell(client, reader)

    def _wanting(self, key: Any) -> set[str]:
        task = self._scheduler.tasks.get(key)
        wanting = (notebook_of(client.client_key) for client in (task and task.who_wants) or ())
        return {notebook for notebook in wanting if notebook} or self._held(task)

    def _held(self, task: Any) -> set[str]:
        """Of notebooks that are away."""
        wanting = {client.client_key for client in (task and task.who_wants) or ()}
        return {notebook for notebook in self._records if holder(notebook) in wanting} if wanting else set()

    def _taken(self, client: str, size: int = 0, since: int | None = None) -> None:
        """A client has taken so much; or it has come back, and wants what there is since then."""
        reader = self._readers.get(client)
        if reader is None:
            return
        if since is None:
            reader.on_its_way -= size
        else:
            reader.next, reader.on_its_way = min(since, self._records[reader.notebook].end), 0
        self._tell(client, reader, again=since is not None)

    def _tell(self, client: str, reader: _Reader, *, again: bool = False) -> None:
        if (room := WINDOW - reader.on_its_way) <= 0:
            return
        entries, size, reader.next = self._records[reader.notebook].since(reader.next, room)
        if entries or again:
            reader.on_its_way += size
            told = {"op": LINES, "entries": entries, "size": size, "next": reader.next, "again": again}
            self._scheduler.report(told, client=client)


def _size(entry: Entry) -> int:
    return len(entry[5]) + 100
