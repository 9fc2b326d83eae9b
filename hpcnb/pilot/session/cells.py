"""The cells that sessions were sent: who sent each, how it stands, and whether its output has been seen."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcnb.errors import HPCError

__all__ = ["CELLS", "Cell", "Cells"]

CELLS = 1000
"""How many of them are remembered."""


@dataclass(kw_only=True)
class Cell:
    """One cell that was sent to a session.

    Parameters
    ----------
    id : str
        The sender's choice; sending the same cell again changes nothing.
    code : str
    count : int
        The notebook's execution count.
    names, always : sequence of str
        What `frames` holds, and which of it is bound even if the session has it.
    frames : sequence of bytes
    out : sequence of str
        Names whose values are wanted when it has ended.
    allow_stdin : bool
    timeout : float or None
        Seconds that it may run.
    notebook, kernel, page : str
        Who sent it: the notebook, which of its kernels, and which connection of a front end to that (a page that is loaded
        anew is another one).
    sent : float
        When, by the clock of the page; 0: there is none.
    """

    id: str
    code: str
    count: int = 0
    names: Sequence[str] = ()
    always: Sequence[str] = ()
    frames: Sequence[Any] = ()
    out: Sequence[str] = ()
    allow_stdin: bool = False
    timeout: float | None = None
    notebook: str = ""
    kernel: str = ""
    page: str = ""
    sent: float = 0.0
    session: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = 0.0
    until: float = math.inf
    over: HPCError | None = None
    """Why it was stopped, when that was not the user's wish."""
    came: float = field(default_factory=time.time)
    ended: float = 0.0
    """When, POSIX time; 0: it runs or waits."""
    status: str = ""
    last: int = 0
    """The number of its last message."""
    read: bool = False
    """The kernel that sent it has had all of its messages."""
    shown: bool = False
    """Its output was asked for and shown later."""

    @property
    def replied(self) -> bool:
        return self.ended > 0


class Cells:
    """The latest cells of all sessions."""

    def __init__(self) -> None:
        self._cells: OrderedDict[str, Cell] = OrderedDict()

    def __contains__(self, cell_id: str) -> bool:
        return cell_id in self._cells

    def add(self, cell: Cell) -> None:
        """Remember a cell, and forget the oldest where there are too many."""
        self._cells[cell.id] = cell
        if len(self._cells) > CELLS:
            self._cells.popitem(last=False)

    def forget(self, session: str) -> None:
        """Forget the cells of a session that was closed."""
        for cell_id in [cell.id for cell in self._cells.values() if cell.session == session]:
            del self._cells[cell_id]

    def read(self, kernel: str, session: str, seq: int) -> None:
        """Take note that a kernel has had all messages of a session up to a number."""
        for cell in self._cells.values():
            if cell.replied and (cell.kernel, cell.session) == (kernel, session) and cell.last <= seq:
                cell.read = True

    def show(self, ids: Sequence[str]) -> None:
        """Take note that the output of cells was shown."""
        for cell_id in ids:
            if cell_id in self._cells:
                self._cells[cell_id].shown = True

    def unseen(self, *, notebook: str, kernel: str, page: str, sent: float) -> Iterator[dict[str, Any]]:
        """The cells of a notebook whose output may not have been seen, oldest first.

        These are the cells of its earlier kernels that had not had all of it; and what an earlier page may have missed: the
        cells that ended after its last sign of life.

        Parameters
        ----------
        notebook, kernel, page, sent
            Of who asks.
        """
        mine = [cell for cell in self._cells.values() if cell.notebook == notebook]
        # How far this clock is ahead of the pages'. What comes late only makes it seem more.
        ahead = min([cell.came - cell.sent for cell in mine if cell.sent], default=math.inf)
        ahead = min(ahead, time.time() - sent)
        seen: dict[str, float] = {}
        for cell in mine:
            seen[cell.page] = max(seen.get(cell.page, 0.0), cell.sent + ahead)
        for cell in mine:
            lost_kernel = cell.kernel != kernel and not cell.read
            lost_page = page not in ("", cell.page) and cell.page and (not cell.ended or cell.ended > seen[cell.page])
            if not cell.shown and (lost_kernel or lost_page):
                yield _described(cell, own=cell.kernel == kernel)


def _described(cell: Cell, *, own: bool) -> dict[str, Any]:
    ended = time.time() - cell.ended if cell.ended else None
    fields = {name: getattr(cell, name) for name in ("id", "session", "count", "code", "status")}
    return {**fields, "own": own, "begun": cell.begun.is_set(), "ended": ended}
