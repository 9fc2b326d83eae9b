"""The output of a cell that runs elsewhere, shown where the cell stands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from hpcnb.session import Message

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["CellView", "View", "inner_view", "view_for"]

SHOWN = frozenset(
    {
        "stream",
        "display_data",
        "update_display_data",
        "execute_result",
        "error",
        "clear_output",
        "comm_open",
        "comm_msg",
        "comm_close",
    }
)


class View(Protocol):
    """Where the output of one cell goes; any thread may use it."""

    def publish(self, kind: str, content: Mapping[str, Any], buffers: tuple[bytes, ...] = ()) -> None:
        """Show one message of Jupyter's."""


def view_for(shell: InteractiveShell, log: str) -> CellView:
    """Return the view of the cell that runs now.

    Parameters
    ----------
    shell : InteractiveShell
    log : str
        What a user types to see a complete log.
    """
    return CellView(inner_view(shell), log)


def inner_view(shell: InteractiveShell) -> View:
    """Return what publishes as an output of the cell that runs now."""
    kernel = getattr(shell, "kernel", None)
    return _Kernel(kernel, shell.displayhook.prompt_count) if kernel is not None else _Terminal(shell)


class CellView:
    """Shows a session's messages; text that was only counted is one line and its end, updated in place."""

    def __init__(self, view: View, log: str) -> None:
        self._view = view
        self._log = log
        self._flooded = False

    def show(self, message: Message) -> None:
        """Show a message, if it is one to be seen."""
        if message.type == "flood":
            self._show_flood(message)
        elif message.type == "compacted":
            self.say(f"… {message.content['lines']:,} lines that are no longer kept here, all of them: {self._log}")
        elif message.type in SHOWN:
            self._view.publish(message.type, message.content, message.buffers)

    def say(self, text: str, name: str = "stderr") -> None:
        """Show a line of our own."""
        self._view.publish("stream", {"name": name, "text": f"{text}\n"})

    def update(self, display_id: str, text: str) -> None:
        """Replace a display by a text."""
        content = {"data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": display_id}}
        self._view.publish("update_display_data", content)

    def _show_flood(self, message: Message) -> None:
        kind = "update_display_data" if self._flooded else "display_data"
        self._flooded = True
        transient = {"display_id": f"hpcnb-flood-{message.cell}"}
        data = {"text/plain": _flood_text(message.content, self._log)}
        self._view.publish(kind, {"data": data, "metadata": {}, "transient": transient})


def _flood_text(flood: Mapping[str, Any], log: str) -> str:
    lines = flood["lines"]
    more = f"{lines:,} lines more" if lines else f"{flood['chars']:,} characters more"
    return f"… {more}, all of them: {log}\n{flood['tail']}"


class _Kernel:
    """A Jupyter kernel: messages go out under the header of the request that runs the cell.

    With ipykernel 7 output of a thread lands in the cell that made the thread, so nothing is left to chance.
    """

    def __init__(self, kernel: Any, count: int) -> None:
        self._kernel = kernel
        self._count = count
        self._parent = kernel.get_parent()

    def publish(self, kind: str, content: Mapping[str, Any], buffers: tuple[bytes, ...] = ()) -> None:
        content = dict(content)
        if kind == "execute_result":
            content["execution_count"] = self._count
        self._kernel.session.send(
            self._kernel.iopub_socket,
            kind,
            content,
            parent=self._parent,
            ident=kind.encode(),
            buffers=list(buffers) or None,
        )


class _Terminal:
    """IPython in a terminal: text is printed, the rest displayed as well as a terminal can."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

    def publish(self, kind: str, content: Mapping[str, Any], buffers: tuple[bytes, ...] = ()) -> None:
        if kind == "stream":
            stream = sys.stderr if content["name"] == "stderr" else sys.stdout
            stream.write(content["text"])
            stream.flush()
        elif kind == "error":
            print("\n".join(content["traceback"]), file=sys.stderr)  # noqa: T201 - the terminal is the view
        elif kind == "clear_output":
            self._shell.display_pub.clear_output(wait=content["wait"])
        elif kind in ("display_data", "execute_result"):
            self._shell.display_pub.publish(content["data"], content.get("metadata"))
