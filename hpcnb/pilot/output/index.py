"""A worker's log and the index beside it, as they are written (see `hpcnb.pilot.output.tape`)."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from hpcnb.pilot.output.speaker import Speaker

__all__ = ["Index", "Tape", "appending", "write"]


class Tape:
    """A file that is appended to by whoever has its descriptor, and how much of it has been attributed."""

    def __init__(self, descriptor: int, path: Path, number: int, begin: int) -> None:
        self.descriptor, self.path, self.number, self.end = descriptor, path, number, begin
        self.owner: Speaker | None = None

    def size(self) -> int:
        """How long it is by now."""
        return os.lseek(self.descriptor, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        """Some of it."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


class Index:
    """Says which bytes of which tape are whose; the caller holds a lock.

    Parameters
    ----------
    path : Path
    worker, host : str
        Their names.
    """

    def __init__(self, path: Path, *, worker: str, host: str) -> None:
        self._descriptor = appending(path)
        self._lines: list[Any] = [{"born": time.time(), "worker": worker, "host": host}]
        self.tapes: list[Tape] = []

    def tape(self, descriptor: int, path: Path, begin: int) -> Tape:
        """Tell of one more file, from which on it counts."""
        tape = Tape(descriptor, path, len(self.tapes), begin)
        self.tapes.append(tape)
        self._lines.append({"tape": tape.number, "file": path.name, "at": begin})
        return tape

    def note(self, who: Speaker, tape: Tape, length: int, kind: int, now: float) -> None:
        """The next bytes of a tape are somebody's."""
        if not who.said:
            who.said = True
            run = {"key": str(who.key), "member": who.member, "attempt": who.attempt, "time": now}
            self._lines.append({"run": who.number, **run})
        level, stream, offset = kind >> 2, kind & 3, tape.end
        tape.end += length
        last = self._lines[-1] if self._lines else None
        if type(last) is list and [*last[:2], last[2] + last[3], *last[4:6]] == [
            who.number,
            tape.number,
            offset,
            level,
            stream,
        ]:
            last[3] += length
        else:
            self._lines.append([who.number, tape.number, offset, length, level, stream, now])

    def over(self, who: Speaker) -> None:
        """Somebody has ended."""
        self._lines.append({"over": who.number})

    def write(self) -> None:
        """Have all of that in the file."""
        if self._lines:
            lines, self._lines = self._lines, []
            write(self._descriptor, "".join(json.dumps(line) + "\n" for line in lines).encode())


def appending(path: Path) -> int:
    """Open a file to append to it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def write(descriptor: int, data: bytes) -> None:
    """Write all of it; where there is no room, it is seen in the notebook nevertheless."""
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]
