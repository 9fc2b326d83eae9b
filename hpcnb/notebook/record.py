"""What the cells of this kernel have shown, for a page that is loaded anew: kept until a page has saved it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["ASKED", "OURS", "TOLD", "Record", "is_shown", "keep", "request_of", "sends", "shows"]

ASKED = "kernel_info_request"
"""What a page sends on the control channel, which is heard also while a cell runs; with `OURS` in its content. Every
kernel answers it, and no front end takes a kernel for busy or idle by it."""
OURS = "hpcnb"
TOLD = "hpcnb_record"
"""The answer, among the cells' own output: what is sent before it is in it, what is sent after it is not."""
NUMBER = "hpcnb"
"""In the metadata of a message that is recorded: the number by which a page says how much it has saved."""

OUTPUT = frozenset({"stream", "display_data", "execute_result", "error", "clear_output"})
MOST = 4 << 20
"""Characters that are kept of one cell; of one that shows more a page is told just that."""
MOST_OF_ALL = 32 << 20
SMALL = 1000
"""What a cell costs that has shown nothing."""

_kept: Record | None = None
_OVERWRITTEN = re.compile(r"[^\r\n]*\r(?=[^\r\n]*\r)")


@dataclass(kw_only=True)
class Shown:
    """What one execution of a cell has shown.

    Parameters
    ----------
    header : dict
        Of the request.
    cell : str
        The cell's id in the notebook.
    """

    header: dict[str, Any]
    cell: str
    count: int | None = None
    running: bool = True
    messages: list[dict[str, Any]] = field(default_factory=list)
    displays: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Those of the messages that can be updated."""
    clears: bool = False
    """The next message replaces all before it."""
    size: int = 0
    changed: int = 0
    """The number of the last message that changed it."""
    saved: bool = False
    """A page has all of it in the notebook's file."""

    @property
    def request(self) -> str:
        return str(self.header["msg_id"])

    @property
    def whole(self) -> bool:
        return self.size <= MOST

    def add(self, kind: str, content: dict[str, Any]) -> None:
        """Add a message, other than an update, to what is shown."""
        if kind == "clear_output":
            self.clears = True
            if not content.get("wait"):
                self._clear()
            return
        if self.clears:
            self._clear()
        if kind == "stream":
            self._print(content["name"], content["text"])
        else:
            message = {"type": kind, "content": dict(content)}
            self.messages.append(message)
            self.size += _size(content)
            if name := content.get("transient", {}).get("display_id"):
                self.displays.setdefault(name, []).append(message)
        if not self.whole:
            self.messages.clear()

    def update(self, content: dict[str, Any]) -> bool:
        """Update what is shown; False: none of it is meant."""
        meant = self.displays.get(content["transient"]["display_id"], ())
        for message in meant:
            self.size += _size(content) - _size(message["content"])
            message["content"].update(data=content["data"], metadata=content["metadata"])
        return bool(meant)

    def _print(self, name: str, text: str) -> None:
        last = self.messages[-1] if self.messages else {}
        if last.get("name") != name:
            last = {"name": name, "parts": []}
            self.messages.append(last)
        parts, line = last["parts"], ""
        if "\r" in text:  # of a line that is written over again and again, a progress bar, the latest is enough
            while parts and "\n" not in line:
                line = parts.pop() + line
            self.size -= len(line)
            text = _OVERWRITTEN.sub("", line + text)
            before, newline, text = text.rpartition("\n")
            parts.append(before + newline)
            self.size += len(before + newline)
        parts.append(text)
        self.size += len(text)

    def _clear(self) -> None:
        self.messages.clear()
        self.displays.clear()
        self.size, self.clears = 0, False

    def told(self) -> dict[str, Any]:
        """As a page is told of it."""
        said = {name: getattr(self, name) for name in ("request", "cell", "count", "running", "whole", "clears")}
        return {**said, "page": self.header["session"], "messages": [_told(message) for message in self.messages]}


class Record:
    """Knows what goes out to the pages, since all of it goes through the kernel's one `Session.send`.

    Parameters
    ----------
    kernel : ipykernel.kernelbase.Kernel
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._pass_on = kernel.session.send
        self._signature = signature(self._pass_on)
        self._lock = threading.RLock()
        self._number = 0
        self._shown: dict[str, Shown] = {}
        """By request, oldest first."""
        self._captured: dict[str, str] = {}
        """The requests whose output goes to a widget, by that widget."""
        self.sent: dict[str, str] = {}
        """The requests that have sent cells to sessions, by those cells."""
        self.seen: dict[str, str] = {}
        """The page that shows, beside the one that has sent it, what a request has shown; ``*``: all do."""
        kernel.session.send = self.send
        self._inform = kernel.control_handlers[ASKED]
        kernel.control_handlers[ASKED] = self._answer
        if kernel.get_parent().get("header"):  # of the cell that runs it is late already to hear how it began
            self._begin(kernel.get_parent())
            for one in self._shown.values():
                one.count = kernel.shell.displayhook.prompt_count

    def send(self, *args: Any, **named: Any) -> Any:
        """Pass a message on, and keep what a page that is loaded anew would not know."""
        call = self._signature.bind(*args, **named)
        given = call.arguments
        message, parent = given["msg_or_type"], given.get("parent") or {}
        made = isinstance(message, dict)
        kind = message["header"]["msg_type"] if made else message
        above = message["parent_header"] if made else parent.get("header", parent)
        if os.getpid() != self._kernel.session.pid:
            return self._pass_on(*args, **named)  # a fork, whose lock may be held by a thread that it has not
        with self._lock:
            before = self._number
            self._note(kind, above, message["content"] if made else given.get("content"), parent)
            if self._number != before:
                whole = message if made else given
                whole["metadata"] = {**(whole.get("metadata") or {}), NUMBER: self._number}
            return self._pass_on(*call.args, **call.kwargs)

    # -- with the lock held --------------------------------------------------------------------------------------------

    def _note(self, kind: str, above: dict[str, Any], content: Any, parent: Any) -> None:
        one = self._shown.get(above.get("msg_id", ""))
        if kind == "update_display_data":
            for known in self._shown.values():
                if known.update(content):
                    self._change(known)
        elif kind == "comm_msg" and "msg_id" in (state := content["data"].get("state", {})):
            self._captured[content["comm_id"]] = state["msg_id"]
        elif kind == "status" and content["execution_state"] == "busy" and above.get("msg_type") == "execute_request":
            self._begin(parent)
        elif one is not None:
            self._add(one, kind, content)

    def _add(self, one: Shown, kind: str, content: Any) -> None:
        if kind == "status":
            self._end(one)
        elif kind == "execute_input":
            one.count = content["execution_count"]
        elif kind in OUTPUT and one.request not in self._captured.values():
            one.add(kind, content)
            self._change(one)

    def _begin(self, parent: dict[str, Any]) -> None:
        header, cell = parent["header"], parent.get("metadata", {}).get("cellId")
        if not cell or header["msg_id"] in self._shown:
            return
        for one in [one for one in self._shown.values() if one.cell == cell]:
            del self._shown[one.request]
        one = self._shown[header["msg_id"]] = Shown(header=header, cell=cell)
        self._change(one)

    def _end(self, one: Shown) -> None:
        one.running = False
        self._change(one)
        excess = sum(SMALL + known.size for known in self._shown.values() if known.whole) - MOST_OF_ALL
        for old in [old for old in self._shown.values() if not old.running]:
            if excess > 0:
                excess -= SMALL + old.size
                del self._shown[old.request]

    def _change(self, one: Shown) -> None:
        self._number += 1
        one.changed, one.saved = self._number, False

    # -- pages ---------------------------------------------------------------------------------------------------------

    def _answer(self, stream: Any, ident: Any, asked: dict[str, Any]) -> Any:
        if OURS in asked["content"]:
            with self._lock:
                self._hear(asked, **asked["content"][OURS])
        return self._inform(stream, ident, asked)

    def _hear(
        self,
        asked: dict[str, Any],
        *,
        tell: bool = False,
        saved: int = 0,
        pages: Sequence[str] = (),
        shows: Sequence[str] = (),
    ) -> None:
        """Take note of what a page has saved, for which pages, and of what it shows; tell it what is not saved."""
        for one in list(self._shown.values()):
            if one.header["session"] in pages and one.changed <= saved:
                self._save(one)
        self.seen.update(dict.fromkeys(shows, asked["header"]["session"]))
        if tell:
            iopub = self._kernel.iopub_socket
            told = [one.told() for one in self._shown.values() if not one.saved]
            self._pass_on(iopub, TOLD, {"cells": told, "number": self._number}, parent=asked)
            for one in self._shown.values():
                if one.running:  # a page that comes to a busy kernel is not told so by anybody
                    self._pass_on(iopub, "status", {"execution_state": "busy"}, parent=one.header)

    def _save(self, one: Shown) -> None:
        one.saved = True
        if not one.running:
            self.seen[one.request] = "*"
            if not one.displays:
                del self._shown[one.request]


def keep(shell: InteractiveShell) -> None:
    """Keep from now on what cells show; harmless when that is done already, and in a terminal."""
    global _kept
    kernel = getattr(shell, "kernel", None)
    if kernel is not None and _kept is None:
        _kept = Record(kernel)


def request_of(shell: Any) -> str:
    """The id of the request that is carried out now."""
    return str(shell.kernel.get_parent().get("header", {}).get("msg_id", ""))


def sends(shell: InteractiveShell, cell: str) -> None:
    """Take note that the request which is carried out now sends a cell to a session."""
    if _kept is not None:
        _kept.sent[cell] = request_of(shell)


def shows(request: str, page: str) -> bool:
    """Whether a page shows what a request has shown, though an earlier page has sent it."""
    return _kept is not None and _kept.seen.get(request) in ("*", page)


def is_shown(cell: str, page: str) -> bool:
    """The same of a cell that a request has sent to a session."""
    return _kept is not None and shows(_kept.sent.get(cell, ""), page)


def _told(message: dict[str, Any]) -> dict[str, Any]:
    """A message of Jupyter's; what is printed is kept in parts, since it comes in many."""
    if "parts" in message:
        return {"type": "stream", "content": {"name": message["name"], "text": "".join(message["parts"])}}
    return message


def _size(content: dict[str, Any]) -> int:
    """About how many characters a message has."""
    if "data" in content:
        return sum(len(value) for value in content["data"].values() if isinstance(value, str))
    return sum(map(len, content.get("traceback", ())))
