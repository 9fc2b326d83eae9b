"""Messages on their way to somebody who may be cut off: in memory while they are few, else in a file, until he has them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from hpcnb.pilot.session.appended import Appended

__all__ = ["Spool"]

MEMORY = 4 << 20
"""Bytes of messages held in memory; what comes while there are more waits in the file."""

Message = tuple[str, list[bytes]]
"""A channel of Jupyter's protocol, and the parts of a message: header, parent's header, metadata, content, buffers."""

log = logging.getLogger(__name__)


class Spool:
    """Messages, numbered from 1, for one reader.

    Parameters
    ----------
    path : Path
        Of the file, which is made, 0600.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = Appended(path)
        # Of each its size, and either the message or where in the file it begins.
        self._waiting: deque[tuple[int, Message | int]] = deque()
        self._first = 1
        self._held = self._written = 0
        self._news = asyncio.Event()

    @property
    def last(self) -> int:
        """The number of the latest message."""
        return self._first + len(self._waiting) - 1

    def add(self, channel: str, parts: Sequence[bytes]) -> None:
        """Take a message."""
        message = channel, list(parts)
        size = sum(map(len, parts))
        place = self._write(message) if self._held + size > MEMORY and self._waiting else None
        self._held += size if place is None else 0
        self._waiting.append((size, message if place is None else place))
        self._news.set()
        self._news = asyncio.Event()

    def after(self, number: int, most: int) -> list[Message]:
        """The messages after a number that fit so many bytes, at least one if there is one; those up to it are forgotten."""
        while self._waiting and self._first <= number:
            size, kept = self._waiting.popleft()
            self._held -= 0 if isinstance(kept, int) else size
            self._first += 1
        if not self._waiting and self._written:
            self._file.clear()
            self._written = 0
        found: list[Message] = []
        for size, kept in self._waiting:
            if found and size > most:
                break
            found.append(self._read(kept) if isinstance(kept, int) else kept)
            most -= size
        return found

    async def wait(self, number: int, timeout: float) -> None:
        """Wait until there is a message after a number, at most so many seconds."""
        if self.last <= number:
            with contextlib.suppress(TimeoutError):  # nothing new is an answer too
                await asyncio.wait_for(self._news.wait(), timeout)

    def wake(self) -> None:
        """Let who waits look again."""
        self._news.set()

    def close(self) -> None:
        """Keep nothing any more."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write(self, message: Message) -> int | None:
        """Append a message to the file; where that cannot be, it stays in memory."""
        channel, parts = message
        head = json.dumps([channel, [len(part) for part in parts]]).encode()
        try:
            place = self._file.append(b"".join([head, b"\n", *parts]))
        except OSError as error:
            log.error("cannot write to %s, keeping messages in memory: %s", self._path, error)
            return None
        self._written += 1
        return place

    def _read(self, place: int) -> Message:
        line = self._file.line(place)
        channel, sizes = json.loads(line)
        starts = itertools.accumulate(sizes, initial=place + len(line))
        return channel, [self._file.read(start, size) for start, size in zip(starts, sizes, strict=False)]
