"""How anybody asks something of a queue's owner: a file in its inbox, and a file that answers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from hpcnb.pilot.queue.place import Place, read_json, refused, whole

_counter = itertools.count()
_QUIET = ".quiet"
_STALE = 3600.0
"""Seconds after which an answer that nobody has read is thrown away."""


def new_name() -> str:
    """A request's name. Names sort as they were made, by one clock at least; the rest makes them different."""
    return f"{time.time_ns():020}-{next(_counter) % 10**6:06}-{secrets.token_hex(6)}"


class Inbox:
    """The requests to one queue, and their answers."""

    def __init__(self, place: Place) -> None:
        self._requests = place / "inbox"
        self._answers = place / "answers"

    # -- of those who ask ---------------------------------------------------------------------------------------------

    def put(
        self, op: str, arguments: dict[str, Any], lines: Iterable[str] = (), *, name: str = "", quiet: bool = False
    ) -> str:
        """Leave a request, whole or not at all; returns its name.

        Parameters
        ----------
        lines : iterable of str
            What follows it, one JSON value each.
        name : str
            By default a new one.
        quiet : bool
            Nobody waits for an answer.
        """
        name = name or f"{new_name()}{_QUIET * quiet}"
        with refused(self._requests), whole(self._requests / name) as file:
            file.write(json.dumps({"op": op, "arguments": arguments}) + "\n")
            file.writelines(lines)
        return name

    def answer(self, name: str) -> dict[str, Any] | None:
        """The answer to a request, once; None while there is none."""
        path = self._answers / name
        found: dict[str, Any] | None = read_json(path)
        if found is not None:
            path.unlink(missing_ok=True)
        return found

    def withdraw(self, name: str) -> bool:
        """Take a request back; whether it was still there."""
        try:
            (self._requests / name).unlink()
        except FileNotFoundError:
            return False
        return True

    # -- of the owner --------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The requests, in order."""
        with os.scandir(self._requests) as found:
            return sorted(entry.name for entry in found if not entry.name.startswith(".") and entry.is_file())

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[IO[str]]:
        """One request, to be read line by line."""
        with open(self._requests / name, encoding="utf-8") as file:
            yield file

    def reply(self, name: str, answer: str) -> None:
        """Answer a request, and remove it. Only after what it changed is on the disk."""
        path = self._answers / name
        if not name.endswith(_QUIET):
            with whole(path, sync=False) as file:
                file.write(answer)
        if not self.withdraw(name):
            path.unlink(missing_ok=True)  # the asker has given up, or this is its second answer

    def tidy(self) -> None:
        """Throw away answers that nobody has read, and what was never finished."""
        for folder in (self._answers, self._requests):
            for path in folder.iterdir():
                unfinished = folder is self._answers or path.name.startswith(".")
                if unfinished and _age(path) > _STALE:
                    path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
