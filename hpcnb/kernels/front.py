"""What a front end sees of a kernel whose job may still wait: it lives, says what it waits for, and forgets no request."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

from jupyter_client._version import protocol_version

from hpcnb.errors import HPCError
from hpcnb.kernels.remote import RemoteKernel
from hpcnb.kernels.sockets import Channels, Parts

__all__ = ["Front"]

HELD = 1000
"""Requests that may wait for the job; beyond that the front end waits."""
TICK = 1.0
"""Seconds between two updates of what is shown under a cell that waits."""


class Front:
    """A kernel's face.

    Parameters
    ----------
    key : bytes
        Signs the messages.
    waits_for : callable
        Says in a line what the kernel waits for.
    over : callable
        Called when a front end ends a kernel that has not begun.
    """

    def __init__(self, key: bytes, *, waits_for: Callable[[], str], over: Callable[[], None]) -> None:
        self.channels = Channels(key, self._take)
        self._waits_for = waits_for
        self._over = over
        self._remote: RemoteKernel | None = None
        self._error: HPCError | None = None
        self._held: list[tuple[str, dict[str, Any], Parts]] = []
        self._open: dict[str, tuple[str, dict[str, Any]]] = {}  # requests that the kernel has, and has not answered
        self._shown: dict[str, Any] = {}
        self._room = asyncio.Event()
        self._room.set()

    # -- from the one who owns the kernel ---------------------------------------------------------------------------

    async def wait(self) -> None:
        """There is no kernel yet, or not any more: hold what comes."""
        self._remote, self._error, self._shown = None, None, {}
        self._held.clear()
        self._open.clear()
        self._room.set()
        await self.channels.open()

    async def relay(self, remote: RemoteKernel) -> None:
        """The kernel is there: give it all that was held, and what comes."""
        self._hide()
        self._state("idle", {})
        while self._held:  # what comes meanwhile is behind those
            await self._forward(remote, *self._held.pop(0))
        self._remote = remote
        self._room.set()

    def hear(self, channel: str, parts: Parts) -> None:
        """Pass on what the kernel says."""
        if channel in ("shell", "control"):
            self._open.pop(json.loads(parts[1]).get("msg_id", ""), None)
        self.channels.send(channel, parts)

    def fail(self, error: HPCError) -> None:
        """The kernel has ended: whoever waits for an answer, now or later, hears why."""
        self._remote, self._error = None, error
        self._hide()
        unanswered = [*self._open.values(), *((channel, header) for channel, header, _ in self._held)]
        self._open.clear()
        self._held.clear()
        self._room.set()
        for channel, header in unanswered:
            self._refuse(channel, header, type(error).__name__, str(error))

    async def show(self) -> None:
        """Show under the first cell that waits what it waits for, for as long as it does."""
        while True:
            if cell := next((header for _, header, parts in self._held if _is_shown(header, parts)), None):
                self._draw(cell)
            await asyncio.sleep(TICK)

    # -- from front ends ----------------------------------------------------------------------------------------------

    async def _take(self, channel: str, header: dict[str, Any], parts: Parts) -> None:
        kind = header["msg_type"]
        if self._remote is not None:
            await self._forward(self._remote, channel, header, parts)
        elif kind == "kernel_info_request":
            self._answer(channel, header, _info())
        elif kind == "shutdown_request":
            self._answer(channel, header, {"status": "ok", "restart": json.loads(parts[3]).get("restart", False)})
            self._over()
        elif kind == "interrupt_request":
            self._answer(channel, header, {"status": "ok"})
            self._interrupt()
        elif self._error is not None:
            self._refuse(channel, header, type(self._error).__name__, str(self._error))
        else:
            await self._hold(channel, header, parts)

    async def _forward(self, remote: RemoteKernel, channel: str, header: dict[str, Any], parts: Parts) -> None:
        if channel != "stdin" and header["msg_type"].endswith("_request"):
            self._open[header["msg_id"]] = channel, header
        await remote.post(channel, parts)

    async def _hold(self, channel: str, header: dict[str, Any], parts: Parts) -> None:
        self._held.append((channel, header, parts))
        if header["msg_type"] == "execute_request":
            self._state("busy", header)
        if len(self._held) >= HELD:
            self._room.clear()
        await self._room.wait()

    def _interrupt(self) -> None:
        """Cells that wait are given up; what waits with them is a front end's own business."""
        cells = [header for _, header, _ in self._held if header["msg_type"] == "execute_request"]
        self._held = [held for held in self._held if held[1]["msg_type"] != "execute_request"]
        self._hide()
        self._room.set()
        for header in cells:
            self._refuse("shell", header, "KeyboardInterrupt", f"the cell had not begun: {self._waits_for()}")

    # -- what we say ourselves ------------------------------------------------------------------------------------------

    def _answer(self, channel: str, header: dict[str, Any], content: dict[str, Any]) -> None:
        self._state("busy", header)
        self.channels.say(channel, header["msg_type"].replace("_request", "_reply"), content, header)
        self._state("idle", header)
        if self._error is None:  # a server takes no notice of a kernel that is "starting" for long
            self._state("busy", {})

    def _refuse(self, channel: str, header: dict[str, Any], name: str, text: str) -> None:
        if not header["msg_type"].endswith("_request"):
            return
        error = {"ename": name, "evalue": text, "traceback": [f"{name}: {text}"]}
        self._state("busy", header)
        if header["msg_type"] == "execute_request":
            self.channels.say("iopub", "error", error, header)
        reply = {"status": "error", "execution_count": 0, **error}
        self.channels.say(channel, header["msg_type"].replace("_request", "_reply"), reply, header)
        self._state("idle", header)

    def _state(self, state: str, parent: dict[str, Any]) -> None:
        self.channels.say("iopub", "status", {"execution_state": state}, parent)

    def _draw(self, cell: dict[str, Any]) -> None:
        kind = "update_display_data" if self._shown else "display_data"
        self._shown = cell
        content = {"data": {"text/plain": self._waits_for()}, "metadata": {}}
        content["transient"] = {"display_id": f"hpcnb-wait-{cell['msg_id']}"}
        self.channels.say("iopub", kind, content, cell)

    def _hide(self) -> None:
        if self._shown:
            self.channels.say("iopub", "clear_output", {"wait": False}, self._shown)
            self._shown = {}


def _is_shown(header: dict[str, Any], parts: Parts) -> bool:
    return header["msg_type"] == "execute_request" and not json.loads(parts[3]).get("silent")


def _info() -> dict[str, Any]:
    """What a kernel says of itself, as far as one knows that has not begun."""
    language = {
        "name": "python",
        "version": platform.python_version(),
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    }
    return {
        "status": "ok",
        "protocol_version": protocol_version,
        "implementation": "ipython",
        "implementation_version": metadata.version("ipython"),
        "language_info": language,
        "banner": f"Python {platform.python_version()} in an allocation",
        "help_links": [],
        # A front end asks once. What it requests of these meanwhile is held, and answered by the kernel.
        "supported_features": ["kernel subshells", "debugger"],
    }
