"""A kernel that a front end drives by itself: Jupyter's own messages, carried there and back without a gap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyter_client.session import DELIM

from hpcnb.pilot.events import emit
from hpcnb.pilot.session.kernel_process import TOGETHER, WITH_ALL, KernelProcess, ending
from hpcnb.pilot.session.spool import Message, Spool

__all__ = ["RelayedKernel"]

OPTIONS = ("--SessionApp.alone=True", "--HistoryManager.hist_file=:memory:")


class RelayedKernel:
    """One kernel, from its start to its end.

    Parameters
    ----------
    name : str
    cwd : str
        Where it runs.
    run_dir : Path
        What has not been fetched is kept in ``sessions/<name>`` there, as far as memory does not hold it.
    """

    def __init__(self, name: str, *, cwd: str, run_dir: Path) -> None:
        self.name = name
        directory = run_dir / "sessions" / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._spool = Spool(directory / "spool")
        self._taken = 0
        self._busy: set[str] = set()
        self._how = ""
        self._process = _Process(
            cwd=cwd,
            log=directory / "kernel.log",
            run_dir=str(run_dir),
            hear=self._hear,
            ended=self._ended,
            options=OPTIONS,
        )

    async def open(self) -> None:
        """Start it; returns when it answers."""
        await self._process.start()

    def post(self, number: int, messages: Sequence[Message]) -> None:
        """Give it messages, the first of which has this number; what comes again, because an answer was lost, is known."""
        for channel, parts in messages[max(0, self._taken + 1 - number) :]:
            self._taken += 1
            if not self._process.exit.done():  # else whoever sent it hears of the end
                self._process.forward(channel, parts)

    async def messages(self, since: int, wait: float, most: int) -> dict[str, Any]:
        """What it has said after a message that has arrived; and how it has ended, when that is all."""
        if not self._how:
            await self._spool.wait(since, wait)
        found = self._spool.after(since, most)
        ended = self._how if since + len(found) >= self._spool.last else ""
        return {"messages": found, "ended": ended, "code": self._process.exit.result() if ended else None}

    async def end(self, grace: float = 0.0) -> None:
        """End it, and keep nothing of it."""
        await self._process.end(grace=grace)
        self._spool.close()

    def _ended(self, code: int) -> None:
        if self._busy:
            emit("session", name=self.name, busy=False)
        how = f"{ending(code)}\n{self._process.last_words()}".strip()
        asyncio.get_running_loop().call_later(TOGETHER if code in WITH_ALL else 0.0, self._tell, how)

    def _tell(self, how: str) -> None:
        self._how = how
        self._spool.wake()

    def _hear(self, channel: str, message: dict[str, Any]) -> None:
        parts = [bytes(part) for part in message["parts"]]
        self._spool.add(channel, parts)
        if channel == "iopub" and json.loads(parts[0])["msg_type"] == "status":
            self._note(json.loads(parts[1]), json.loads(parts[3])["execution_state"])

    def _note(self, parent: dict[str, Any], state: str) -> None:
        """Tell the pilot whether a cell runs, for a cluster that works is not idle."""
        before = bool(self._busy)
        if state == "busy" and parent.get("msg_type") == "execute_request":
            self._busy.add(parent["msg_id"])
        elif state == "idle":
            self._busy.discard(parent.get("msg_id", ""))
        if bool(self._busy) != before:
            emit("session", name=self.name, busy=not before)


class _Process(KernelProcess):
    """Hands on messages as they are."""

    def forward(self, channel: str, parts: Sequence[bytes]) -> None:
        """Send it a message that somebody else has made."""
        self._put(channel, [DELIM, self._wire.sign(list(parts[:4])), *parts])

    def _take(self, channel: str, frames: list[bytes]) -> None:
        if channel == "iopub":
            self._spoke.set()
        if not (channel == "shell" and self._replied(frames)):
            self._hear(channel, {"parts": frames[1:]})

    def _replied(self, frames: list[bytes]) -> bool:
        """Whether this answers what was asked at the start."""
        reply = self._replies.pop(json.loads(frames[2]).get("msg_id", ""), None)
        if reply is not None and not reply.done():
            reply.set_result({"content": frames[4]})
        return reply is not None
