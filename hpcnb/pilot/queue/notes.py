"""What a worker and the commands that it runs leave each other: files beside its logs, named by task and attempt."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from hpcnb.pilot.queue.action import FILE, VALUES


class Notes:
    """The notes of one worker.

    Parameters
    ----------
    folder : Path
        Made when the first command runs; on the site's file system, so that a command's own steps elsewhere reach it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = False

    def environ(self, id: int, attempt: int, values: dict[str, Any] | None) -> dict[str, str]:
        """What a command's environment says of its notes; the values are there for it to read."""
        if not self._made:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._made = True
        said = {FILE: self._path(id, attempt)}
        if values is not None:
            said[VALUES] = self._path(id, attempt) + ".values"
            Path(said[VALUES]).write_text(json.dumps(values), encoding="utf-8")
        return said

    def _path(self, id: int, attempt: int) -> str:
        return f"{self._folder}/{id}-{attempt}"

    def taken(self, id: int, attempt: int, values: dict[str, Any] | None) -> str:
        """What a command has left that has ended; its notes are removed."""
        path = self._path(id, attempt)
        if values is not None:
            Path(path + ".values").unlink(missing_ok=True)
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # as for nearly all: nothing more is done than this look
            return ""
        with open(file, encoding="utf-8", errors="replace") as left:
            text = left.read()
        Path(path).unlink(missing_ok=True)
        return text

    def close(self) -> None:
        """Remove all of them."""
        if self._made:
            shutil.rmtree(self._folder, ignore_errors=True)  # somebody may still write there who outlives his task
