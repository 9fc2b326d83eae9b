"""What tasks print: two files of each worker, of which each attempt has a piece, and where that of the one that runs is."""

from __future__ import annotations

import codecs
import contextlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

MOST = 1_000_000
"""Bytes of one of the two that are read at once; the files have all of it."""
LONGEST_LINE = 500
STREAMS = ("out", "err")


def named(pid: int) -> str:
    """How the name of the worker begins, and so of its files, that is a process of this machine."""
    return f"{socket.gethostname()[:32]}-{pid}"


class Logs:
    """What a worker's tasks print: two files, of which each attempt has a piece.

    A task writes to two others, whose content is moved when it has ended: a shell's ``> /dev/stderr`` empties the file that it is.
    A third one, the mark, says whose that content is, and where in the first two it comes: should we be killed, nobody else can.

    Parameters
    ----------
    path : Path
        Without the suffixes ``.out`` and ``.err``, of the others ``.out.now`` and ``.err.now``, and of the mark ``.now``.
    """

    def __init__(self, path: Path) -> None:
        names = [path.with_name(f"{path.name}.{suffix}") for suffix in ("now", "out.now", "err.now", *STREAMS)]
        self._passing = names[:3]
        self._mark, *self.files = _opened(names[0], 0), *(_opened(name, os.O_APPEND) for name in names[1:3])
        self._kept = [_opened(name, os.O_APPEND) for name in names[3:]]
        self._sizes = [os.lseek(file, 0, os.SEEK_END) for file in self._kept]
        try:
            self._say(0, 0)  # from now on there is room for it on the disk
        except OSError:  # we are tried again, each time by another name
            self.close()
            for name in names[3:]:
                name.unlink()
            raise

    def begin(self, task: int, attempt: int) -> None:
        """Say whose everything is that is printed from now on."""
        with contextlib.suppress(OSError):
            self._say(task, attempt)

    def _say(self, *whose: int) -> None:
        # As long each time, so that it is written over the one before it, by one call.
        os.pwrite(self._mark, b"%20d %20d %20d %20d\n" % (*whose, *self._sizes), 0)

    def moved(self) -> tuple[int, int, int, int]:
        """Keep what was printed since this was called last; returns where that begins and ends, of stdout and of stderr."""
        out, err = self._sizes
        for number, file in enumerate(self.files):
            if os.lseek(file, 0, os.SEEK_END):
                self._move(number)
        return out, self._sizes[0], err, self._sizes[1]

    def _move(self, number: int) -> None:
        source, target, place = self.files[number], self._kept[number], 0
        with contextlib.suppress(OSError):  # a full disk costs the rest of it, and not what the task has come to
            while piece := os.pread(source, 2**20, place):
                place += os.write(target, piece)
        self._sizes[number] += place
        os.ftruncate(source, 0)

    def last_line(self, begin: int, end: int) -> str:
        """The last line that was written to stderr between two places; what is not printable is replaced."""
        piece = os.pread(self._kept[1], min(end - begin, LONGEST_LINE), max(begin, end - LONGEST_LINE))
        words = piece.decode(errors="replace").strip().rpartition("\n")[2].strip()
        return "".join(letter if letter.isprintable() else "�" for letter in words)

    def adopt(self) -> None:
        """Have all that this process prints from now on go there, line by line: it may be killed before there are more."""
        for file, number in zip(self.files, (1, 2), strict=True):
            os.dup2(file, number)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    def close(self) -> None:
        for file in (self._mark, *self.files, *self._kept):
            os.close(file)
        for path in self._passing:
            path.unlink(missing_ok=True)


def _opened(path: Path, how: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | how, 0o600)


class Piece(NamedTuple):
    """Some of what an attempt has printed, to stdout and then to stderr, and how much of both was read by then."""

    text: str
    read: tuple[int, int]


def printed(logs: Path, task: int, attempt: Mapping[str, Any], read: Sequence[int] | None = None) -> Piece:
    """What an attempt has printed, also one that still runs, or was killed together with its worker.

    Parameters
    ----------
    logs : Path
        The queue's folder of them.
    attempt : mapping
        As `hpcnb.pilot.queue.history` has it.
    read : sequence of int, optional
        Only what comes after so many bytes of stdout and of stderr; by default the end, if it is long.
    """
    worker = logs / f"{attempt['worker']}"
    if attempt.get("out_from") is not None:
        return _pieces([_Source(worker, one, attempt[f"{one}_from"], attempt[f"{one}_to"]) for one in STREAMS], read)
    while (mark := marked(worker))[:2] == (task, attempt["number"]):
        piece = _pieces([_Source(worker, *one) for one in zip(STREAMS, mark[2:], strict=True)], read)
        if marked(worker) == mark:  # else some of it may be the next one's
            return piece
    return Piece("", (0, 0))


def marked(worker: Path) -> tuple[int, ...]:
    """The task, the attempt and the two places of a worker's mark; nothing when there is none."""
    try:
        return tuple(map(int, worker.with_name(f"{worker.name}.now").read_bytes().split()))
    except FileNotFoundError:  # its worker has ended as it should
        return ()


class _Source(NamedTuple):
    """Where something was printed: between two places of a worker's log, or, if one is not known yet, also to what is moved there."""

    worker: Path
    stream: str
    begin: int
    end: int | None = None

    def after(self, read: int | None) -> tuple[bytes, int, Path]:
        """Some bytes, after how many that is, and where they are from."""
        kept = self.worker.with_name(f"{self.worker.name}.{self.stream}")
        if self.end is not None:
            return *_read(kept, self.begin, self.end, read), kept
        now = kept.with_name(f"{kept.name}.now")
        size = _size(now)
        # It has less than was read if who writes to it has emptied it.
        if size and (found := _read(now, 0, size, 0 if read and read > size else read))[0]:
            return *found, now
        return *_read(kept, self.begin, _size(kept), read), kept


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(path: Path, begin: int, end: int, read: int | None) -> tuple[bytes, int]:
    """Some bytes of a file between two places, after those that were read, and how many these were."""
    if read is None:
        read = max(0, end - begin - MOST)
    most = min(MOST, end - begin - read)
    try:
        with open(path, "rb") as file:
            file.seek(begin + read)
            return file.read(most) if most > 0 else b"", read
    except FileNotFoundError:
        return b"", read


def _pieces(sources: Sequence[_Source], read: Sequence[int] | None) -> Piece:
    text, done = "", []
    for source, place in zip(sources, read or (None, None), strict=True):
        data, after, path = source.after(place)
        if after and place is None:
            text += f"… {after:,} bytes before this are in {path}\n"
        # Of a character the end may not be there yet; it comes with the next piece.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text += decoder.decode(data, final=source.end == source.begin + after + len(data))
        done.append(after + len(data) - len(decoder.getstate()[0]))
    return Piece(text, (done[0], done[1]))
