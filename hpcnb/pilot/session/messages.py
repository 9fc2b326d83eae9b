"""The messages of a session on disk, the latest in memory too: of text only so much, of everything else all."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpcnb.pilot.session.appended import Appended

__all__ = ["Message", "Messages"]

MEMORY = 4 << 20
"""Bytes of messages held in memory; older ones are read back from disk."""
SEGMENT = 8 << 20
SEGMENTS = 8
"""Text lies in so many files of so many bytes; the oldest goes when another one is needed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of a session.

    Parameters
    ----------
    seq : int
        Its number; later messages have greater ones, with gaps.
    cell : str
        The cell that caused it.
    type : str
        As Jupyter names it, or ``reply`` (the cell has ended), ``input_request``, ``flood`` (text that was only counted; each
        one replaces the one before) or ``compacted`` (text that made room, counted).
    content : bytes
        JSON.
    buffers : tuple of bytes
    """

    seq: int
    cell: str
    type: str
    content: bytes
    buffers: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        return len(self.content) + sum(map(len, self.buffers)) + 100


@dataclass(kw_only=True)
class _File:
    """One file of messages; the first holds all that is not text."""

    file: Appended
    lines: Counter[str] = field(default_factory=Counter)
    """How much text of which cell is in it."""


class Messages:
    """Messages in the order of their numbers.

    Parameters
    ----------
    directory : Path
        ``journal`` and ``text-N`` in it are 0600.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = {0: self._open("journal")}
        self._text = 0
        # Of each message its number, its cell's, the file that it is in, and where.
        self._seqs, self._cells, self._places, self._offsets = array("Q"), array("L"), array("L"), array("Q")
        self._numbers: dict[str, int] = {}
        self._recent: deque[Message] = deque()
        self._held = 0
        self.full = False
        """Nothing can be written; everything from then on is in memory."""

    def add(self, message: Message) -> None:
        """Take a message; its number is greater than that of any other."""
        place = self._room() if message.type == "stream" else 0
        self._recent.append(message)
        self._held += message.size
        if place:
            self._files[place].lines[message.cell] += json.loads(message.content)["text"].count("\n")
        self._seqs.append(message.seq)
        self._cells.append(self._numbers.setdefault(message.cell, len(self._numbers)))
        self._places.append(place)
        self._offsets.append(self._write(place, message))
        while self._held > MEMORY and len(self._recent) > 1 and not self.full:
            self._held -= self._recent.popleft().size
        self._make_room()

    def since(self, seq: int, cell: str = "") -> Iterator[Message]:
        """The messages after a number, of all cells or of one."""
        at, evicted = bisect_right(self._seqs, seq), len(self._seqs) - len(self._recent)
        recent = itertools.islice(self._recent, max(0, at - evicted), None)
        only = self._numbers.get(cell, -1)
        on_disk = (i for i in range(at, evicted) if not cell or self._cells[i] == only)
        return itertools.chain(map(self._read, on_disk), (m for m in recent if cell in ("", m.cell)))

    def save(self, file: Appended, data: bytes) -> int:
        """Append data to a file; where that cannot be, messages stay in memory from then on."""
        try:
            return file.append(data)
        except OSError as error:
            self._fill(file.path, error)
            return file.end

    def close(self) -> None:
        """Write no more."""
        for one in self._files.values():
            one.file.close()

    # -- within ----------------------------------------------------------------------------------------------

    def _open(self, name: str) -> _File:
        return _File(file=Appended(self._directory / name))

    def _fill(self, path: Path, error: OSError) -> None:
        if not self.full:
            log.error("cannot write to %s, keeping messages in memory: %s", path, error)
        self.full = True

    def _write(self, place: int, message: Message) -> int:
        parts = [message.content, *message.buffers]
        head = {"seq": message.seq, "cell": message.cell, "type": message.type, "sizes": [len(part) for part in parts]}
        data = b"".join([json.dumps(head).encode(), b"\n", *parts])
        return self.save(self._files[place].file, data)

    def _read(self, i: int) -> Message:
        file, at = self._files[self._places[i]].file, self._offsets[i]
        line = file.line(at)
        head = json.loads(line)
        starts = itertools.accumulate(sizes := head.pop("sizes"), initial=at + len(line))
        content, *buffers = [file.read(start, size) for start, size in zip(starts, sizes, strict=False)]
        return Message(**head, content=content, buffers=tuple(buffers))

    def _room(self) -> int:
        """The file that takes the next text."""
        if not self.full and (not self._text or self._files[self._text].file.end > SEGMENT):
            try:
                self._files[self._text + 1] = self._open(name := f"text-{self._text + 1}")
                self._text += 1
            except OSError as error:  # a quota, or a scratch file system that was purged
                self._fill(self._directory / name, error)
        return self._text

    def _make_room(self) -> None:
        if len(self._files) - 1 <= SEGMENTS or self.full:
            return
        oldest = next(itertools.islice(self._files, 1, None))
        gone = [i for i, place in enumerate(self._places) if place == oldest]
        if gone[-1] >= len(self._seqs) - len(self._recent):
            return  # in memory still
        counts = self._count_instead(gone, self._files[oldest].lines)
        if not counts:
            return  # there is no room for them: the text stays
        for i, offset in counts.items():
            self._places[i], self._offsets[i] = 0, offset
        drop = set(gone) - set(counts)
        for column in (self._seqs, self._cells, self._places, self._offsets):
            column[:] = array(column.typecode, (value for i, value in enumerate(column) if i not in drop))
        self._files.pop(oldest).file.close()
        with contextlib.suppress(OSError):  # gone already, or it stays
            (self._directory / f"text-{oldest}").unlink()

    def _count_instead(self, gone: list[int], lines: Counter[str]) -> dict[int, int]:
        """Write what is left of each cell's text, its size, and return where it stands in whose place; nothing on a full disk."""
        first = {self._cells[i]: i for i in reversed(gone)}
        counts = {}
        for cell in lines:
            i = first[self._numbers[cell]]
            content = json.dumps({"lines": lines[cell]}).encode()
            counts[i] = self._write(0, Message(seq=self._seqs[i], cell=cell, type="compacted", content=content))
        return {} if self.full else counts
