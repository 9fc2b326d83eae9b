"""What tasks print, on the user's side: live in the cell that submitted them, cut where nobody could read it."""

from __future__ import annotations

import json
import sys
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Cell", "Place", "Printed", "settle_all", "show_with", "streams"]

PAUSE = 0.1
"""Seconds between two messages to a front end."""
HURRIES = 10
"""Messages more that are shown at once, since somebody waits for them."""
LINES, LINES_A_SECOND = 1000, 50
CHARACTERS, CHARACTERS_A_SECOND = 200_000, 10_000
"""What a cell shows at once, and how fast that is renewed: beyond it text is counted, and its end shown."""
MOST = 20_000
"""Lines that a cell shows in all: a page with more is slow."""
TAIL = 5
"""Lines at the end of what was counted."""
REMEMBERED = 100_000
"""Tasks whose cell is remembered."""
SETTLING = 1.0
"""Seconds that a result waits for what was printed before it to be shown."""
ERR, SHOWN = 2, 3


class Place(Protocol):
    """Where text goes; one for each cell. Any thread may use it, one at a time."""

    name: str
    """The cell's."""
    bounded: bool
    """Whether more than can be read would do harm."""

    def write(self, text: str, *, error: bool) -> None:
        """Show text below what was shown."""

    def count(self, lines: int, tail: str, log: str, *, new: bool) -> None:
        """Show how much is not shown, and where all is; in the place of the last such word, unless it is a `new` one."""

    def show(self, kind: str, content: Mapping[str, Any]) -> None:
        """Show a message of Jupyter's below what was shown."""


class _Streams:
    """The streams of a script."""

    name = ""
    bounded = False

    def write(self, text: str, *, error: bool) -> None:
        stream = sys.stderr if error else sys.stdout
        stream.write(text)
        stream.flush()

    def count(self, lines: int, tail: str, log: str, *, new: bool) -> None:
        if new:
            sys.stderr.write(f"… {lines:,} lines, see {log}\n{tail}")

    def show(self, kind: str, content: Mapping[str, Any]) -> None:
        self.write(f"{content['data'].get('text/plain', '')}\n", error=False)


_streams = _Streams()


def streams() -> Place:
    """Where a script prints."""
    return _streams


_place: Callable[[], Place] = streams
_all: weakref.WeakSet[Printed] = weakref.WeakSet()


def show_with(place: Callable[[], Place]) -> None:
    """Say how this process finds the place of the cell that runs now."""
    global _place
    _place = place


@dataclass(kw_only=True)
class _Task:
    """A task that a cell has submitted: what its calls are called there."""

    cell: Cell
    name: str
    first: int
    worker: str = ""
    """Whose alone it is; empty: whoever's."""

    @property
    def log(self) -> str:
        """Where all is that it prints."""
        return f"`%hpc logs worker-{self.worker}`" if self.worker else f"`future.logs()` of {self.name}"


@dataclass(kw_only=True)
class _Room:
    """How much a cell may still show."""

    at: float
    lines: float = LINES
    characters: float = CHARACTERS
    shown: int = 0

    def renew(self) -> None:
        now = time.monotonic()
        self.lines = min(LINES, self.lines + LINES_A_SECOND * (now - self.at))
        self.characters = min(CHARACTERS, self.characters + CHARACTERS_A_SECOND * (now - self.at))
        self.at = now

    def spend(self, lines: int, characters: int) -> None:
        """Something has come that is not shown: as long as that goes on, there is no more room."""
        self.renew()
        self.lines, self.characters = max(0.0, self.lines - lines), max(0.0, self.characters - characters)

    @property
    def half(self) -> bool:
        """Whether there is room again after it was used up."""
        return self.shown < MOST and self.lines >= LINES / 2 and self.characters >= CHARACTERS / 2

    def take(self, text: str) -> int:
        """How many characters of a text there is room for: whole lines, where that can be."""
        self.renew()
        if self.characters < 1 or self.lines < 1 or self.shown >= MOST:
            return 0
        end = min(len(text), int(self.characters))
        lines = text.count("\n", 0, end)
        if lines > self.lines:
            at = -1
            for _ in range(int(self.lines)):
                at = text.index("\n", at + 1)
            end, lines = at + 1, int(self.lines)
        self.lines, self.characters, self.shown = self.lines - lines, self.characters - end, self.shown + lines
        return end


class Cell:
    """The output of one cell's tasks, in the form in which it is shown."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._room = _Room(at=time.monotonic())
        self._names: Counter[str] = Counter()
        self._begun: dict[Any, str] = {}
        self._text: list[tuple[bool, str]] = []
        self._counted = self._told = 0
        self._tail = ""
        self._log = ""
        self._new = False

    def expect(self, name: str, calls: int, worker: str = "") -> _Task:
        """Take notice of a task that it has submitted."""
        first = self._names[name]
        self._names[name] += calls
        return _Task(cell=self, name=name, first=first, worker=worker)

    def add(self, task: _Task, entry: Sequence[Any]) -> None:
        """Take what a task has printed: an entry of `hpcnb.pilot.output.feed`."""
        key, member, attempt, stream, _, data, lines, size, worker = entry
        text = "" if stream == SHOWN else data.decode("utf-8", "replace")
        if size:
            self._count(task, lines, text)
            return
        self._room.renew()
        if self._counted and self._place.bounded and not self._room.half:
            self._count(task, data.count(b"\n"), text)
            return
        if stream == SHOWN:
            self._display(task, json.loads(data))
            return
        if task.worker or self._names.total() > 1 or attempt > 1:
            label = self._label(task, member, attempt, worker)
            text = self._by_lines((key, member, attempt, stream), text, label)
        self._show(task, text, error=stream == ERR)

    def _display(self, task: _Task, message: Mapping[str, Any]) -> None:
        """Show a message of Jupyter's, with the worker that it is of."""
        if self._place.bounded and not self._room.take("\n"):
            self._count(task, 1, "")
            return
        self.publish()
        content = message["content"]
        data, whose = content["data"], task.worker or task.name
        if identity := content["transient"].get("display_id"):  # another worker's may be called the same
            content["transient"]["display_id"] = f"{whose}-{identity}"
        text = str(data.get("text/plain", ""))
        data["text/plain"] = f"{whose}:{chr(10) if chr(10) in text else ' '}{text}"
        if len(data) > 1 and message["kind"] != "update_display_data":
            self._place.write(f"{whose}:\n", error=False)
        self._place.show(message["kind"], content)

    def _label(self, task: _Task, member: int | None, attempt: int, worker: str) -> str:
        if task.worker:
            return f"{task.worker}: "
        number = f"[{task.first + (member or 0)}]" if self._names[task.name] > 1 else ""
        node = worker.partition("-")[2].rpartition("-")[0]
        again = f", attempt {attempt}" if attempt > 1 else ""
        return f"{task.name}{number} on {node}{again}: "

    def _by_lines(self, whose: Any, text: str, label: str) -> str:
        """Whole lines, each with its label; the beginning of another one is kept until it is whole."""
        *whole, rest = (self._begun.pop(whose, "") + text).split("\n")
        if rest:
            self._begun[whose] = rest[-CHARACTERS:]
        return "".join(f"{label}{line.rstrip(chr(13)).rpartition(chr(13))[2]}\n" for line in whole)

    def _show(self, task: _Task, text: str, *, error: bool) -> None:
        if self._place.bounded:
            end = self._room.take(text)
            text, rest = text[:end], text[end:]
        else:
            rest = ""
        if text:
            if self._counted:
                self._tell()
                self._counted = self._told = 0
            self._text.append((error, text))
        if rest:
            self._count(task, rest.count("\n"), rest)

    def _count(self, task: _Task, lines: int, text: str) -> None:
        if not self._counted:
            self.publish()
            self._new, self._tail = True, ""
        self._counted += max(lines, 1)
        self._room.spend(lines, len(text))
        self._log = task.log
        self._tail = (self._tail + text[-2000:])[-2000:]

    def publish(self) -> None:
        """Show what has come."""
        text, self._text = self._text, []
        run: list[str] = []
        for at, (error, some) in enumerate(text):
            run.append(some)
            if at + 1 == len(text) or text[at + 1][0] != error:
                self._place.write("".join(run), error=error)
                run = []
        self._tell()

    def _tell(self) -> None:
        if self._counted != self._told:
            tail = "".join(f"{line}\n" for line in self._tail.splitlines()[-TAIL:])
            self._place.count(self._counted, tail, self._log, new=self._new)
            self._told, self._new = self._counted, False


def settle_all() -> None:
    """Wait until all that has come is shown, of whichever client."""
    for one in list(_all):
        one.settle(at_once=True)


class Printed:
    """What one client hears of what its tasks print, and the thread that shows it.

    Parameters
    ----------
    taken : callable
        Tells the scheduler how many bytes have been taken; may be called in any thread.
    """

    def __init__(self, taken: Callable[[int], object]) -> None:
        self._taken = taken
        self._tasks: OrderedDict[Any, _Task] = OrderedDict()
        self._cells: weakref.WeakValueDictionary[str, Cell] = weakref.WeakValueDictionary()
        self._news: deque[tuple[Iterable[Sequence[Any]], int]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._unshown: set[Cell] = set()
        self._came = self._seen = self._shown = 0
        self._hurry, self._hurried, self._hurries = False, 0.0, 0.0
        self._next: int | None = None
        self._returning = False
        _all.add(self)

    def expect(self, tasks: Iterable[tuple[Any, str, int, str]]) -> None:
        """Show what these tasks print in the cell that runs now.

        Parameters
        ----------
        tasks : iterable of tuple
            Keys, names, numbers of calls, and the name of the worker whose alone each is, if it is.
        """
        place = _place()
        cell = self._cells.get(place.name) or Cell(place)
        self._cells[place.name] = cell
        for key, name, calls, worker in tasks:
            self._tasks[key] = cell.expect(name, calls, worker)
        while len(self._tasks) > REMEMBERED:
            self._tasks.popitem(last=False)

    def settle(self, *, at_once: bool = False) -> None:
        """Wait until what has come by now is shown.

        Parameters
        ----------
        at_once : bool
            Also if that was asked for often of late; else who brings a thousand results would have a thousand messages shown.
        """
        if self._came == self._shown or not (at_once or self._may_hurry()):
            return
        with self._changed:
            came, self._hurry = self._came, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._shown >= came, SETTLING)

    def _may_hurry(self) -> bool:
        now = time.monotonic()
        self._hurries = max(0.0, self._hurries - (now - self._hurried) / PAUSE)
        self._hurried = now
        if self._hurries >= HURRIES:
            return False
        self._hurries += 1
        return True

    # -- what the client's loop says -------------------------------------------------------------------------------------

    def take(self, entries: Iterable[Sequence[Any]], size: int, next: int, again: bool) -> None:
        """The scheduler tells what was printed (see `hpcnb.pilot.output.feed`)."""
        if self._returning and not again:
            return  # it comes again, in order
        self._returning, self._next = False, next
        with self._changed:
            self._news.append((entries, size))
            self._came += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._show_all, name="hpcnb-printed", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def returning(self) -> int | None:
        """Where to go on over a new connection; None: from now on."""
        self._returning = self._next is not None
        return self._next

    # -- in its thread ---------------------------------------------------------------------------------------------------

    def _show_all(self) -> None:
        last = 0.0
        while True:
            with self._changed:
                while not (self._news or (self._unshown and self._hurry)):
                    pause = last + PAUSE - time.monotonic() if self._unshown else None
                    if pause is not None and pause <= 0:
                        break
                    self._changed.wait(pause)
            read = self._read()
            if self._hurry or time.monotonic() >= last + PAUSE:
                for cell in self._unshown:
                    cell.publish()
                self._unshown.clear()
                last = time.monotonic()
                with self._changed:
                    self._shown, self._hurry = read, False
                    self._changed.notify_all()

    def _read(self) -> int:
        """Take what has come; returns the number of the last."""
        while self._news:
            entries, size = self._news.popleft()
            for entry in entries:
                if (task := self._tasks.get(entry[0])) is not None:
                    self._unshown.add(task.cell)
                    task.cell.add(task, entry)
            self._taken(size)
            self._seen += 1
        return self._seen
