"""Work where it was submitted: under the cell, or as a line of a terminal; nothing for work that is quick, and in a pipe."""

from __future__ import annotations

import shutil
import sys
import uuid
from typing import TYPE_CHECKING, TextIO

from hpcnb.future.work import settle_all
from hpcnb.notebook.controls import Controls
from hpcnb.notebook.following import follow, latest, somebody
from hpcnb.notebook.output import View as Output
from hpcnb.notebook.output import inner_view
from hpcnb.notebook_name import shell
from hpcnb.views.work import work_html, work_line, work_text

if TYPE_CHECKING:
    from hpcnb.future.work import Look, View
    from hpcnb.pilot.scheduler.counts import Summary

__all__ = ["show"]

SETTLING = 1.0
"""Seconds by which the end of a cell may be held up, so that what is shown of its work is how it stands."""

_last: Line | None = None


def show(look: Look) -> View | None:
    """Make the view of a group of calls, in the thread that submits them."""
    running = shell()
    if getattr(running, "kernel", None) is not None:
        follow(running, _settle)
        output = inner_view(running)
        # Where nobody can be asked, nobody presses a button: a program runs the notebook.
        return Below(output, Controls(look, output) if somebody(running) else None)
    return Line(sys.stderr, look.work.id) if sys.stderr.isatty() else None


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
    """

    def __init__(self, output: Output, controls: Controls | None = None) -> None:
        self._output, self._controls = output, controls
        self._id = f"hpcnb-work-{uuid.uuid4().hex}"
        self._shown = ""

    def draw(self, summary: Summary, note: str) -> None:
        html = work_html(summary, note)
        if html == self._shown:
            return
        first, self._shown = not self._shown, html
        content = {
            "data": {"text/html": html, "text/plain": work_text(summary, note)},
            "metadata": {},
            "transient": {"display_id": self._id},
        }
        if first:
            self._output.publish("display_data", content)
        else:
            latest(self._output).publish("update_display_data", content)
        if self._controls is not None:
            self._controls.draw(summary, latest(self._output))


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
