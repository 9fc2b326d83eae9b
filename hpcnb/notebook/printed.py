"""Where a notebook shows what its tasks print: below the cell that submitted them, whichever cell runs by then."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcnb.notebook.output import View, inner_view
from hpcnb.printed import Place, settle_all, streams

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["place_of"]


def place_of(shell: InteractiveShell) -> Place:
    """The output of the cell that runs now; in a terminal its streams."""
    kernel: Any = getattr(shell, "kernel", None)
    if kernel is None:
        return streams()
    if settle not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", settle)
    return _Output(inner_view(shell), kernel.get_parent().get("header", {}).get("msg_id", ""))


def settle(_: object) -> None:
    """At the end of a cell, show what has come: programs that run notebooks hear of no cell after its end."""
    settle_all()


class _Output:
    """The output of one cell.

    Parameters
    ----------
    view : View
    name : str
        The request's.
    """

    bounded = True

    def __init__(self, view: View, name: str) -> None:
        self._view, self.name = view, name
        self._display = ""

    def write(self, text: str, *, error: bool) -> None:
        _let_pass()
        self._view.publish("stream", {"name": "stderr" if error else "stdout", "text": text})

    def show(self, kind: str, content: Mapping[str, Any]) -> None:
        _let_pass()
        self._view.publish(kind, content)

    def count(self, lines: int, tail: str, log: str, *, new: bool) -> None:
        if new:
            self._display = uuid.uuid4().hex
        data = {"text/plain": f"… {lines:,} lines, see {log}\n{tail}"}
        content = {"data": data, "metadata": {}, "transient": {"display_id": f"hpcnb-printed-{self._display}"}}
        self._view.publish("display_data" if new else "update_display_data", content)


def _let_pass() -> None:
    """What the notebook itself has printed before comes before: ipykernel holds it for a moment."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # it is closed
            stream.flush()
