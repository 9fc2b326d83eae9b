"""Work where it was submitted: under the cell, or as a line of a terminal; nothing for work that is quick, and in a pipe."""

from __future__ import annotations

import shutil
import sys
import uuid
import weakref
from typing import TYPE_CHECKING, TextIO

from hpcnb.future.work import settle_all
from hpcnb.notebook import record
from hpcnb.notebook.controls import Controls
from hpcnb.notebook.following import follow, latest, somebody
from hpcnb.notebook.output import View as Output
from hpcnb.notebook.output import inner_view
from hpcnb.notebook.page import page_of
from hpcnb.notebook_name import shell
from hpcnb.views.work import work_html, work_line, work_text

if TYPE_CHECKING:
    from hpcnb.future.work import Look, View
    from hpcnb.pilot.scheduler.counts import Summary

__all__ = ["show", "show_again"]

SETTLING = 1.0
"""Seconds by which the end of a cell may be held up, so that what is shown of its work is how it stands."""

_last: Line | None = None
_below: weakref.WeakValueDictionary[str, Below] = weakref.WeakValueDictionary()
"""Views under cells, by the id of their display, oldest first."""


def show(look: Look) -> View | None:
    """Make the view of a group of calls, in the thread that submits them."""
    running = shell()
    if getattr(running, "kernel", None) is not None:
        follow(running, _settle)
        output = inner_view(running)
        # Where nobody can be asked, nobody presses a button: a program runs the notebook.
        controls = Controls(look, output) if somebody(running) else None
        return Below(output, controls, page_of(running)["page"], record.request_of(running))
    return Line(sys.stderr, look.work.id) if sys.stderr.isatty() else None


def show_again() -> None:
    """Show, under the cell that runs now, what an earlier page has submitted and still goes on: from now on it is drawn there."""
    running = shell()
    page = page_of(running)["page"]
    for view in list(_below.values()):
        if not view.ended and view.page != page and not record.shows(view.request, page):
            view.display(inner_view(running))
            view.page = page


def _settle() -> None:
    running = shell()
    # A program that runs the notebook sees no more of this cell after its end.
    settle_all(SETTLING, at_once=running is not None and not somebody(running))


class Below:
    """A view under a cell, replaced in place.

    Parameters
    ----------
    output : Output
        Of the cell.
    controls : Controls, optional
        What is beneath it.
    page, request : str
        Of the cell.
    """

    def __init__(self, output: Output, controls: Controls | None = None, page: str = "", request: str = "") -> None:
        self._output, self._controls = output, controls
        self._id = f"hpcnb-work-{uuid.uuid4().hex}"
        self._data: dict[str, str] = {}
        self.page, self.request = page, request
        self.ended = False
        _below[self._id] = self

    def draw(self, summary: Summary, note: str) -> None:
        html = work_html(summary, note)
        if html == self._data.get("text/html"):
            return
        first, self.ended = not self._data, summary.ended
        self._data = {"text/html": html, "text/plain": work_text(summary, note)}
        if first:
            self.display(self._output)
        else:
            self._publish(latest(self._output), "update_display_data")
        if self._controls is not None:
            self._controls.draw(summary, latest(self._output))

    def display(self, output: Output) -> None:
        """Show it as an output of a cell."""
        if self._data:
            self._publish(output, "display_data")

    def _publish(self, output: Output, kind: str) -> None:
        output.publish(kind, {"data": self._data, "metadata": {}, "transient": {"display_id": self._id}})


class Line:
    """A line of a terminal, replaced in place until the work has ended.

    Parameters
    ----------
    stream : TextIO
    id : str
    """

    def __init__(self, stream: TextIO, id: str) -> None:
        self._stream, self._id = stream, id
        self._open = False
        self._ended = ""

    def draw(self, summary: Summary, note: str) -> None:
        global _last
        line = work_line(summary, note, bar=True)[: shutil.get_terminal_size().columns - 1]
        if summary.ended and line == self._ended:  # the scheduler may tell of an end twice
            return
        self._ended = line if summary.ended else ""
        if _last is not None and _last is not self and _last._open:  # noqa: SLF001 - one of its own
            self._stream.write("\n")
        _last, self._open = self, not summary.ended
        self._stream.write(f"\r\x1b[K{line}" + ("\n" if summary.ended else ""))
        self._stream.flush()
