"""What a worker and the commands that it runs leave each other: files beside its logs, named by task and attempt."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from hpcnb.pilot.queue.action import FILE, VALUES

_FILE, _VALUES = FILE.encode(), VALUES.encode()


class Notes:
    """The notes of one worker.

    Parameters
    ----------
    folder : Path
        Made when the first command runs; on the site's file system, so that a command's own steps elsewhere reach it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = os.fsencode(folder)
        self._made = False

    def enter(self, environ: dict[bytes, bytes], id: int, attempt: int, values: dict[str, Any] | None) -> None:
        """Have a command's environment say where its notes are; the values are there for it to read."""
        if not self._made:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._made = True
        path = environ[_FILE] = self._path(id, attempt)
        if values is None:
            environ.pop(_VALUES, None)  # of the command before it
        else:
            environ[_VALUES] = path + b".values"
            Path(os.fsdecode(environ[_VALUES])).write_text(json.dumps(values), encoding="utf-8")

    def _path(self, id: int, attempt: int) -> bytes:
        return b"%s/%d-%d" % (self._prefix, id, attempt)

    def taken(self, id: int, attempt: int, values: dict[str, Any] | None) -> str:
        """What a command has left that has ended; its notes are removed."""
        path = self._path(id, attempt)
        if values is not None:
            Path(os.fsdecode(path + b".values")).unlink(missing_ok=True)
        if not os.access(path, os.F_OK):  # as for nearly all: nothing more is done than this look
            return ""
        notes = Path(os.fsdecode(path))
        text = notes.read_text(encoding="utf-8", errors="replace")
        notes.unlink()
        return text

    def close(self) -> None:
        """Remove all of them."""
        if self._made:
            shutil.rmtree(self._folder, ignore_errors=True)  # somebody may still write there who outlives his task
