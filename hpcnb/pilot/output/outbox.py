"""What a worker has to tell of what its tasks print, bounded: what is too much to be shown is counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcnb.pilot.output.tape import SHOWN

__all__ = ["LINES", "TAKEN", "Outbox"]

LINES = "hpcnb-lines"
"""The message, from worker to scheduler and from there to the client."""
TAKEN = "hpcnb-lines-taken"
"""What is answered: so much has arrived."""
WINDOW = 8 << 20
"""Bytes that may be on their way."""
MOST = 16 << 20
"""Bytes of one attempt of a call that are told at all; the log has the rest."""
TAIL = 2000
"""Characters of what was left out that are told."""
REMEMBERED = 1000
"""Attempts whose size is remembered."""

Name = tuple[Any, Any, int, int]
"""Key, member, attempt, stream. What is displayed is no stream: each piece of it is one by itself."""


@dataclass(kw_only=True, slots=True)
class _Cut:
    """What was not told: how much, and its end."""

    lines: int = 0
    size: int = 0
    time: float = 0.0
    tail: bytes = b""


class Outbox:
    """Text by whose it is, in order, until it is sent."""

    def __init__(self) -> None:
        self._entries: list[list[Any]] = []
        self._size = 0
        self._on_its_way = 0
        self._told: OrderedDict[Name, int] = OrderedDict()
        self._cut: dict[Name, _Cut] = {}

    @property
    def full(self) -> bool:
        """Whether there is anything to be sent."""
        return bool(self._entries or self._cut)

    def add(self, name: Name, time: float, data: bytes) -> None:
        """Take some text."""
        told = self._told.get(name, 0)
        if told > MOST or self._size + self._on_its_way > WINDOW:
            cut = self._cut.setdefault(name, _Cut())
            cut.lines, cut.size, cut.time = cut.lines + data.count(b"\n"), cut.size + len(data), time
            cut.tail = (cut.tail + data[-TAIL:])[-TAIL:] if name[3] != SHOWN else b""
            return
        if name in self._cut:
            self._tell_cut(name)
        self._told[name] = told + len(data)
        self._told.move_to_end(name)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        self._size += len(data)
        last = self._entries[-1] if self._entries else None
        if last is not None and last[0] == name and not last[4] and name[3] != SHOWN:
            last[2].append(data)
        else:
            self._entries.append([name, time, [data], 0, 0])

    def message(self, *, last: bool = False) -> dict[str, Any] | None:
        """What is to be sent now, if anything.

        Parameters
        ----------
        last : bool
            One of the calls has ended: what was left out is told, even if all is on its way that may be.
        """
        if self._cut and (last or self._on_its_way < WINDOW // 2):
            for name in list(self._cut):
                self._tell_cut(name)
        if not self._entries:
            return None
        entries, self._entries = self._entries, []
        size, self._size = self._size, 0
        self._on_its_way += size
        return {"op": LINES, "size": size, "entries": [_told(*entry) for entry in entries]}

    def taken(self, size: int) -> None:
        """So much has arrived."""
        self._on_its_way -= size

    def _tell_cut(self, name: Name) -> None:
        cut = self._cut.pop(name)
        self._size += len(cut.tail)
        self._entries.append([name, cut.time, [cut.tail], cut.lines, cut.size])


def _told(name: Name, time: float, data: Sequence[bytes], lines: int, size: int) -> tuple[Any, ...]:
    """As it travels: key, member, attempt, stream, time, text, and how much was left out (then the text is its end)."""
    return (*name, time, b"".join(data), lines, size)
