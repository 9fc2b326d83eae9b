"""What a session's kernel said, numbered: whoever asks for "messages since N" misses nothing and sees nothing twice."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hpcnb.pilot.session.appended import Appended
from hpcnb.pilot.session.messages import Message, Messages

__all__ = ["Journal", "Message"]

TEXT_INTERVAL = 0.1
"""Seconds between two publications of text, so that a printing loop makes ten messages a second, not thousands."""
FLOOD_INTERVAL = 0.5
MOMENT = 0.005
HEAD_LINES = 1000
HEAD_CHARS = 256 << 10
"""How much text of one cell is journalled; the rest is counted. The log has it all."""
TAIL_LINES = 20
TAIL_WIDTH = 200
CELLS = 1000


class Clock(Protocol):
    """The two methods of an event loop that a journal needs."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Any: ...


@dataclass(kw_only=True)
class _Text:
    """How much text one cell has written."""

    lines_left: int = HEAD_LINES
    chars_left: int = HEAD_CHARS
    lines_more: int = 0
    chars_more: int = 0
    tail: str = ""

    def take(self, text: str) -> str:
        """Return what is still shown; count the rest."""
        head = "" if self.chars_more else text if self._fits(text) else self._cut(text)
        self.lines_left -= head.count("\n")
        self.chars_left -= len(head)
        if rest := text[len(head) :]:
            self.lines_more += rest.count("\n")
            self.chars_more += len(rest)
            self.tail = "\n".join((self.tail + rest[-TAIL_LINES * TAIL_WIDTH :]).split("\n")[-TAIL_LINES - 1 :])
        return head

    def _fits(self, text: str) -> bool:
        return len(text) <= self.chars_left and text.count("\n") <= self.lines_left

    def _cut(self, text: str) -> str:
        if not self.lines_left:
            return ""
        end = -1
        for _ in range(self.lines_left):
            found = text.find("\n", end + 1, self.chars_left)
            if found < 0:
                break
            end = found
        return text[: end + 1] or text[: self.chars_left]

    def flood(self) -> bytes:
        lines = [line.rstrip("\r").rpartition("\r")[2][:TAIL_WIDTH] for line in self.tail.split("\n")]
        more = {"lines": self.lines_more, "chars": self.chars_more, "tail": "\n".join(lines)}
        return json.dumps(more).encode()


class _Throttle:
    """Calls `publish` at once, then at most once per interval for all that was asked meanwhile."""

    def __init__(self, clock: Clock, interval: float, publish: Callable[[], None]) -> None:
        self._clock = clock
        self._interval = interval
        self._publish = publish
        self._next = 0.0
        self._timer = False

    def ask(self) -> None:
        wait = self._next - self._clock.time()
        if wait <= 0:
            self._ring()
        elif not self._timer:
            self._timer = True
            self._clock.call_later(wait, self._ring)

    def _ring(self) -> None:
        self._timer = False
        self._next = self._clock.time() + self._interval
        self._publish()


@dataclass(kw_only=True)
class _Pending:
    cell: str
    name: str
    parts: list[str] = field(default_factory=list)


class Journal:
    """The messages of one session, on disk, the latest in memory; and its complete text in a log.

    Parameters
    ----------
    directory : Path
        Is made, 0700; ``journal`` in it is 0600.
    log : Path
        Is made, 0600.
    clock : Clock
        The event loop, unless a test says otherwise.
    """

    def __init__(self, directory: Path, log: Path, clock: Clock) -> None:
        for folder in (directory, log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log = Appended(log)
        self._messages = Messages(directory)
        self._texts: OrderedDict[str, _Text] = OrderedDict()
        self._floods: dict[str, Message] = {}
        self._flooded: set[str] = set()
        self._pending: list[_Pending] = []
        self._text_throttle = _Throttle(clock, TEXT_INTERVAL, self._flush)
        self._flood_throttle = _Throttle(clock, FLOOD_INTERVAL, self._publish_floods)
        self._news = asyncio.Event()
        self._ended = 0
        self.seq = 0

    # -- writing ---------------------------------------------------------------------------------------------

    def text(self, cell: str, name: str, text: str) -> None:
        """Take text of a stream (``stdout``, ``stderr``); it is published now, or soon with what follows it."""
        data = text.encode("utf-8", "surrogateescape")
        self._messages.save(self._log, data)
        written = self._text(cell)
        if head := written.take(data.decode("utf-8", "replace")):
            if not self._pending or (self._pending[-1].cell, self._pending[-1].name) != (cell, name):
                self._pending.append(_Pending(cell=cell, name=name))
            self._pending[-1].parts.append(head)
            self._text_throttle.ask()
        if written.chars_more:
            self._flooded.add(cell)
            self._flood_throttle.ask()

    def add(self, cell: str, kind: str, content: bytes, buffers: tuple[bytes, ...] = ()) -> None:
        """Take any other message, and publish it at once, after all text that came before it."""
        self._flush()
        self._messages.add(self._message(cell, kind, content, buffers))
        self._tell()

    def finish(self, cell: str, reply: bytes) -> None:
        """Take the reply that ends a cell."""
        self._publish_floods()
        if flood := self._floods.pop(cell, None):
            self._flush()
            self._messages.add(self._message(cell, "flood", flood.content))
        self._flush()
        self._ended = self.seq + 1
        self.add(cell, "reply", reply)

    def close(self) -> None:
        """Publish what waits, and write no more."""
        self._publish_floods()
        self._flush()
        self._log.close()
        self._messages.close()

    # -- reading ---------------------------------------------------------------------------------------------

    def since(self, seq: int, max_bytes: int, cell: str = "") -> tuple[list[Message], int]:
        """Return the messages after `seq` in order, of all cells or of one, and up to which number these are all.

        They are as many as fit `max_bytes`, but at least one if there is one.
        """
        kept, complete = _within(self._messages.since(seq, cell), max_bytes)
        if complete:
            floods = [m for m in self._floods.values() if m.seq > seq and cell in ("", m.cell)]
            kept, complete = _within(iter(sorted([*kept, *floods], key=lambda message: message.seq)), max_bytes)
        return kept, self.seq if complete else kept[-1].seq

    async def wait(self, seq: int, timeout: float) -> None:
        """Wait until there is a message after `seq`, at most `timeout` seconds.

        A moment is given to what mostly follows, so that a short cell's output and its end are one answer.
        """
        await self._until(lambda: self.seq > seq, timeout)
        await self._until(lambda: self.seq <= seq or self._ended > seq, MOMENT)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._news.wait()
        except TimeoutError:
            pass  # nothing new is an answer too

    # -- within ----------------------------------------------------------------------------------------------

    def _text(self, cell: str) -> _Text:
        written = self._texts.setdefault(cell, _Text())
        self._texts.move_to_end(cell)
        if len(self._texts) > CELLS:
            self._texts.popitem(last=False)
        return written

    def _message(self, cell: str, kind: str, content: bytes, buffers: tuple[bytes, ...] = ()) -> Message:
        self.seq += 1
        return Message(seq=self.seq, cell=cell, type=kind, content=content, buffers=buffers)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        for text in pending:
            content = json.dumps({"name": text.name, "text": "".join(text.parts)}).encode()
            self._messages.add(self._message(text.cell, "stream", content))
        if pending:
            self._tell()

    def _publish_floods(self) -> None:
        self._flush()
        for cell in self._flooded:
            self._floods[cell] = self._message(cell, "flood", self._text(cell).flood())
        self._flooded.clear()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _within(messages: Iterator[Message], max_bytes: int) -> tuple[list[Message], bool]:
    """The first messages, and whether these are all."""
    kept: list[Message] = []
    left = max_bytes
    for message in messages:
        if kept and message.size > left:
            return kept, False
        kept.append(message)
        left -= message.size
    return kept, True
