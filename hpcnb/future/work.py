"""Which calls are shown together, those of a map, of a group or of a cell; and what the scheduler tells of those that are looked at."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hpcnb.notebook_name import shell
from hpcnb.pilot.scheduler.counts import Summary, from_message
from hpcnb.pilot.scheduler.work import LOOK, LOOK_AWAY

if TYPE_CHECKING:
    from hpcnb.kept import NotebookClient

__all__ = ["Look", "Looks", "View", "Work", "settle_all", "shown_by", "together", "uncounted", "work_now"]

PATIENCE = 2.0
"""Seconds that work may take before it is shown."""
SETTLED = 0.25
"""Seconds in which nothing more was submitted, after which work that has ended is over."""
TICK = 1.0
"""Seconds after which what is shown is shown again, though nothing has happened, for the time that has passed."""
MOST = 200
"""Groups that are remembered here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Calls that are counted together, and shown, unless nobody wants to see them."""

    id: str
    label: str
    shown: bool = True


class View(Protocol):
    """Where a group of calls is shown; it is drawn from the client's loop, and must not hold it up."""

    def draw(self, summary: Summary, note: str) -> None:
        """Show how it stands, and what else there is to know."""


_UNCOUNTED = Work(id="", label="")
_inside: ContextVar[Work | None] = ContextVar("hpcnb work", default=None)
_own = uuid.uuid4().hex
_all: weakref.WeakSet[Looks] = weakref.WeakSet()
_show: Callable[[Look], View | None] = lambda _: None  # noqa: E731


def shown_by(show: Callable[[Look], View | None]) -> None:
    """Have a function make the views, in the thread that submits; it may give none."""
    global _show
    _show = show


@contextlib.contextmanager
def together(label: str, *, shown: bool = True) -> Iterator[None]:
    """What is submitted within is counted together, and shown so."""
    token = _inside.set(Work(id=uuid.uuid4().hex, label=label, shown=shown))
    try:
        yield
    finally:
        _inside.reset(token)


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """What is submitted within is no call of the user's."""
    token = _inside.set(_UNCOUNTED)
    try:
        yield
    finally:
        _inside.reset(token)


def work_now() -> Work:
    """That of what is submitted now; without an id: it is not shown."""
    return _inside.get() or _cell()


def _cell() -> Work:
    running = shell()
    if running is None:
        return Work(id=_own, label=Path(sys.argv[0]).name or "calls")
    kernel = getattr(running, "kernel", None)
    header = kernel.get_parent().get("header", {}) if kernel is not None else {}
    name = header.get("msg_id") or f"{_own}-{running.displayhook.prompt_count}"
    return Work(id=name, label=f"cell [{running.displayhook.prompt_count}]")


def settle_all(timeout: float, *, at_once: bool) -> None:
    """Have all that any client shows be so as it is now; see `Looks.settle`."""
    for looks in list(_all):
        looks.settle(timeout, at_once=at_once)


class Look:
    """A group of calls that somebody may look at.

    Parameters
    ----------
    work : Work
    looks : Looks
        Of the client that has submitted them.
    """

    def __init__(self, work: Work, looks: Looks) -> None:
        self.work = work
        self.client = looks.client
        self.summary: Summary | None = None
        self.shown = False
        self.heard = threading.Event()
        self.sent = 0
        self.fresh = self.open = False
        self.begun = self.at = self.drawn = time.monotonic()
        self.view = _show(self)

    def draw(self, summary: Summary, note: str = "") -> None:
        """Show how it stands."""
        self.shown, self.drawn = True, time.monotonic()
        if self.view is not None:
            self.view.draw(summary, note)

    def now(self) -> Summary:
        """How it stands: the last that was heard, with the time that has passed since."""
        if self.summary is None:
            age = time.monotonic() - self.begun
            return Summary(id=self.work.id, label=self.work.label, age=age, queued=self.sent)
        return replace(self.summary, age=self.summary.age + time.monotonic() - self.at)


class Looks:
    """What one client looks at. All but `sent` and `settle` runs on its loop."""

    def __init__(self, client: NotebookClient) -> None:
        self.client = client
        self._looks: dict[str, Look] = {}
        self._lock = threading.Lock()
        self._ticking = False
        _all.add(self)

    def sent(self, work: Work, calls: int) -> None:
        """So many calls were submitted."""
        if not work.id or not work.shown:
            return
        with self._lock:
            look = self._looks.get(work.id) or self._new(work)
            look.sent, look.fresh = look.sent + calls, True
            if look.open or look.view is None:
                return
            look.open = True
        self.client.call(self._later, 0 if look.shown else PATIENCE, self._look, look)

    def reopen(self, work: str) -> None:
        """Work that has been shown goes on."""
        if (look := self._looks.get(work)) is not None:
            self.sent(look.work, 0)

    @property
    def shown(self) -> bool:
        """Whether anything is shown that has not ended."""
        return any(look.open and look.shown for look in list(self._looks.values()))

    def settle(self, timeout: float, *, at_once: bool = False) -> None:
        """Have all that is shown be so as it is now.

        Parameters
        ----------
        timeout : float
            Seconds that this may take.
        at_once : bool
            Show also what has not taken long, if it has not ended.
        """
        deadline = time.monotonic() + timeout
        asked = [look for look in list(self._looks.values()) if look.open and (look.shown or at_once)]
        for look in asked:
            look.heard.clear()
            self.client.call(self._look, look)
        for look in asked:
            if not look.heard.wait(max(0.0, deadline - time.monotonic())):
                self.client.call(self._draw, look)

    def _new(self, work: Work) -> Look:
        if len(self._looks) >= MOST:
            closed = (name for name, look in self._looks.items() if not look.open)
            self._looks.pop(next(closed, ""), None)
        made = self._looks[work.id] = Look(work, self)
        return made

    def _later(self, pause: float, call: Callable[..., Any], *args: Any) -> None:
        asyncio.get_running_loop().call_later(pause, call, *args)

    def _look(self, look: Look) -> None:
        if not look.open:
            return
        look.fresh = False
        self._tell(LOOK, look)
        if not self._ticking:
            self._ticking = True
            self._later(0, self._tick)

    def _tell(self, op: str, look: Look) -> None:
        self.client.tell({"op": op, "group": look.work.id})

    def told(self, summary: dict[str, Any]) -> None:
        """The scheduler tells how it stands with one of them."""
        heard = from_message(summary)
        look = self._looks.get(heard.id)
        if look is None or not heard.total:  # its graph is still being read there
            return
        look.summary, look.at = heard, time.monotonic()
        if look.shown or not heard.ended:
            look.draw(heard)
        look.heard.set()
        if heard.ended:
            with self._lock:  # more may be submitted in this moment
                look.open = look.fresh
            if look.open:
                self._later(SETTLED, self._look, look)
            else:
                self._tell(LOOK_AWAY, look)

    def _tick(self) -> None:
        open_ = [look for look in list(self._looks.values()) if look.open]
        for look in open_:
            if time.monotonic() >= look.drawn + TICK * 0.9 and (look.shown or look.summary is None):
                self._draw(look)
        self._ticking = bool(open_)
        if open_:
            self._later(TICK, self._tick)

    def _draw(self, look: Look) -> None:
        note = self.client.ledger.held_up()
        if look.open and (note or look.summary is not None) and time.monotonic() >= look.begun + PATIENCE:
            look.draw(look.now(), note)

    def again(self) -> None:
        """The client has come back to the scheduler, which knows nothing of what it looked at."""
        for look in list(self._looks.values()):
            if look.open:
                self._look(look)

    def close(self, cause: BaseException) -> None:
        """Nothing more will be heard."""
        for look in list(self._looks.values()):
            if look.open and look.shown:
                look.draw(look.now(), str(cause).partition("\n")[0])
            look.open = False
            look.heard.set()
