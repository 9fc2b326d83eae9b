"""Whose text is where: a worker's log holds all that is written, and an index beside it says which bytes are whose.

The index (``worker-X.tasks`` beside ``worker-X.log``) is JSON, a line each::

    {"born": 1.5, "worker": "0-node1-0", "host": "node1"}       a worker begins; what follows is of this process
    {"tape": 0, "file": "worker-0-node1-0.log", "at": 1234}     a file that it writes to, and where it begins there
    {"run": 7, "key": "fit-1", "member": null, "attempt": 1, "time": 1.5}    a call that has written something
    [7, 0, 1234, 80, 30, 2, 1.6]     of whom, in which file, offset, length, level of `logging`, stream, when
    {"over": 7}                      it has ended

Standard library only: it is read on login nodes, too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ERR", "INDEX", "OUT", "RAW", "SHOWN", "Piece", "Run", "pieces"]

INDEX = ".tasks"
"""What the name of an index ends with."""
RAW, OUT, ERR = 0, 1, 2
"""What was written by other means than Python's streams; to stdout; to stderr."""
SHOWN = 3
"""What was displayed: it travels among the lines, but is in no log."""
STILL = 2.0
"""Seconds after which a file without news has a writer no more: while one lives, the index is never that late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One attempt of a call on one worker; with an empty key the worker itself.

    Parameters
    ----------
    worker, host, key : str
    member : int or None
        Which call of a batch.
    attempt : int
        From 1.
    time : float
        POSIX time of its first words.
    """

    worker: str
    host: str
    key: str = ""
    member: int | None = None
    attempt: int = 0
    time: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Some bytes of a log.

    Parameters
    ----------
    run : Run
        Whose.
    path : Path
    offset, length : int
    level : int
        Of `logging`; 0: it was not said.
    stream : int
        `RAW`, `OUT` or `ERR`.
    time : float
        POSIX time.
    """

    run: Run
    path: Path
    offset: int
    length: int
    level: int = 0
    stream: int = RAW
    time: float = 0.0

    def read(self) -> bytes:
        """The text."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(kw_only=True)
class _Tape:
    """A file as far as the index tells of it: where the last piece ends, and whose it was, if he has not ended since."""

    path: Path
    end: int
    last: int = 0
    time: float = 0.0


@dataclass(kw_only=True)
class _Reader:
    """What was read of an index so far."""

    folder: Path
    runs: dict[int, Run] = field(default_factory=dict)
    tapes: dict[int, _Tape] = field(default_factory=dict)
    left: dict[str, tuple[_Tape, Run]] = field(default_factory=dict)  # by a process that is gone, by the file's name

    def hear(self, said: Any) -> Iterator[Piece]:
        """Take one line; gives the pieces that it tells of."""
        if isinstance(said, list):
            run, tape, offset, length, level, stream, when = said
            known = self.tapes[tape]
            known.end, known.last, known.time = offset + length, run, when
            yield Piece(
                run=self.runs[run], path=known.path, offset=offset, length=length, level=level, stream=stream, time=when
            )
        elif "born" in said:
            self.left = {one.path.name: (one, self.runs[one.last]) for one in self.tapes.values()}
            self.runs, self.tapes = {0: Run(worker=said["worker"], host=said["host"])}, {}
        elif "tape" in said:
            self.tapes[said["tape"]] = _Tape(path=self.folder / said["file"], end=said["at"])
            if found := self.left.pop(said["file"], None):
                yield from _rest(*found, said["at"])
        elif "run" in said:
            number = said.pop("run")
            mine = self.runs[0]
            self.runs[number] = Run(worker=mine.worker, host=mine.host, **said)
        else:
            for tape in self.tapes.values():
                if tape.last == said["over"]:
                    tape.last = 0

    def rest(self) -> Iterator[Piece]:
        """What was written since the last word of the index, if there will be no other."""
        for tape, run in [*self.left.values(), *((one, self.runs[one.last]) for one in self.tapes.values())]:
            try:
                found = tape.path.stat()
            except FileNotFoundError:
                continue
            if found.st_mtime < time.time() - STILL:
                yield from _rest(tape, run, found.st_size)


def _rest(tape: _Tape, run: Run, end: int) -> Iterator[Piece]:
    # A process that was killed has not said whose its last words were: of whom it was the last time, unless he had ended.
    if end > tape.end:
        yield Piece(run=run, path=tape.path, offset=tape.end, length=end - tape.end, time=tape.time)


def pieces(index: Path) -> Iterator[Piece]:
    """All pieces that an index tells of, in order; a line that was cut by a full disk is left out."""
    reader = _Reader(folder=index.parent)
    with index.open("rb") as file:
        for line in file:
            try:
                found = list(reader.hear(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                continue
            yield from found
    yield from reader.rest()
