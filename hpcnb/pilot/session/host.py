"""The session host: a process of the pilot that owns sessions and serves them to notebooks (``python -m hpcnb.pilot.session.host``)."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import logging
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import Security

from hpcnb.errors import NotReady
from hpcnb.pilot import rpc
from hpcnb.pilot.session.cells import Cell, Cells
from hpcnb.pilot.session.hosted import HostedSession
from hpcnb.pilot.session.relayed import RelayedKernel
from hpcnb.pilot.written import write_whole

__all__ = ["Host", "main"]

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
LONGEST_POLL = 60.0
PR_SET_PDEATHSIG = 1
GRACE = 1.0
"""Seconds that kernels have to end by themselves when the host ends."""


class Host:
    """The sessions of one cluster.

    Parameters
    ----------
    run_dir : Path
        The run directory: ``run.json``, ``tls``; ``sessions.json``, ``sessions/<name>`` and ``logs/session-<name>.log`` are written to it.

    Notes
    -----
    Every method named ``on_…`` serves the request of that name; its keyword arguments are the request's fields.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._directory = json.loads((run_dir / "run.json").read_text())["directory"]
        self._sessions: dict[str, HostedSession] = {}
        self._cells = Cells()
        self._kernel: RelayedKernel | None = None
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Listen, then publish the address."""
        tls = self._run_dir / "tls"
        security = Security(
            require_encryption=True,
            tls_ca_file=str(tls / "ca.pem"),
            tls_worker_cert=str(tls / "session.pem"),
            tls_worker_key=str(tls / "session.key"),
        )
        handlers = {name.removeprefix("on_"): getattr(self, name) for name in dir(self) if name.startswith("on_")}
        self._server = await rpc.serve(handlers, "tls://127.0.0.1:0", security.get_listen_args("worker"))
        write_whole(self._run_dir / "sessions.json", json.dumps({"address": self._server.address}).encode())

    async def close(self) -> None:
        """End all kernels, and listen no more."""
        (self._run_dir / "sessions.json").unlink(missing_ok=True)
        # First: it ends with the cluster only, whose end is the cause that waiting cells should hear of.
        await self._server.close()
        if self._kernel is not None:
            await self._kernel.end(GRACE)
        await asyncio.gather(*(session.close(GRACE) for session in self._sessions.values()))

    # -- sessions ------------------------------------------------------------------------------------------------

    async def on_open(self, session: str) -> dict[str, Any]:
        """Have a session with a kernel; answers the number of its latest message."""
        if session not in self._sessions:
            if not NAME.fullmatch(session) or session.strip(".") == "":
                raise NotReady(f"{session!r} is no name for a session", remedy="Letters, digits and . _ - will do.")
            self._sessions[session] = HostedSession(
                session, cwd=self._directory, run_dir=self._run_dir, cells=self._cells
            )
        found = self._sessions[session]
        await found.open()
        return {"seq": found.journal.seq}

    async def on_list(self) -> dict[str, Any]:
        """The sessions and what they do."""
        return {"sessions": [session.describe() for session in self._sessions.values()]}

    async def on_restart(self, session: str) -> dict[str, Any]:
        """Give a session a new kernel."""
        await self._find(session).restart()
        return {}

    async def on_close_session(self, session: str) -> dict[str, Any]:
        """End a session."""
        await self._find(session).close()
        self._sessions.pop(session, None)
        self._cells.forget(session)
        return {}

    # -- cells ---------------------------------------------------------------------------------------------------

    async def on_execute(
        self, session: str, cell: dict[str, Any], needs: Sequence[str] = (), frames: Any = None
    ) -> dict[str, Any]:
        """Queue a cell; answers the names it needs and the session lacks, and then has not queued it."""
        missing = await self._find(session).execute(Cell(**cell, frames=rpc.frames_of(frames)), needs)
        return {"missing": list(missing)}

    async def on_messages(
        self, session: str, since: int, wait: float, max_bytes: int, kernel: str = "", cell: str = ""
    ) -> dict[str, Any]:
        """The messages after `since`, of all cells or of one; waits until there is one, at most `wait` seconds.

        It answers up to which number these are all. A `kernel` says so that it has had everything up to `since`.
        """
        journal = self._find(session).journal
        self._cells.read(kernel, session, since)
        await journal.wait(since, min(wait, LONGEST_POLL))
        messages, upto = journal.since(since, max_bytes, cell)
        return {"upto": upto, "messages": [[m.seq, m.cell, m.type, m.content, list(m.buffers)] for m in messages]}

    async def on_unseen(self, **asks: Any) -> dict[str, Any]:
        """The cells of a notebook whose output may not have been seen, of every session."""
        return {"cells": list(self._cells.unseen(**asks))}

    async def on_shown(self, cells: Sequence[str]) -> dict[str, Any]:
        """Note that the output of these cells has been shown."""
        self._cells.show(cells)
        return {}

    async def on_interrupt(self, session: str, cell: str = "") -> dict[str, Any]:
        """Interrupt a cell, by default the one that runs."""
        return {"interrupted": await self._find(session).interrupt(cell)}

    async def on_input(self, session: str, value: str, question: int) -> dict[str, Any]:
        """Answer what a cell asked by the message of this number."""
        self._find(session).answer(value, question)
        return {}

    # -- variables -----------------------------------------------------------------------------------------------

    async def on_missing(self, session: str, names: Sequence[str]) -> dict[str, Any]:
        """Which of the names the session lacks."""
        return {"names": await self._find(session).missing(names)}

    async def on_push(self, session: str, names: Sequence[str], frames: Any) -> dict[str, Any]:
        """Bind values."""
        await self._find(session).push(names, rpc.frames_of(frames))
        return {}

    async def on_pull(self, session: str, names: Sequence[str]) -> dict[str, Any]:
        """The values of names."""
        return {"frames": rpc.in_frames(await self._find(session).pull(names))}

    async def on_collect(self, session: str, cell: str) -> dict[str, Any]:
        """The values that a cell was to bring back."""
        return {"frames": rpc.in_frames(self._find(session).collect(cell))}

    # -- the kernel that a front end drives by itself --------------------------------------------------------------

    async def on_kernel(self, kernel: str) -> dict[str, Any]:
        """Have this one, and end whichever was there before."""
        async with self._changing:
            if self._kernel is None or self._kernel.name != kernel:
                if self._kernel is not None:
                    await self._kernel.end()
                wanted = RelayedKernel(kernel, cwd=self._directory, run_dir=self._run_dir)
                await wanted.open()
                self._kernel = wanted
        return {}

    async def on_kernel_post(self, kernel: str, number: int, messages: Sequence[Any]) -> dict[str, Any]:
        """Give it messages; the first of them has this number."""
        self._relayed(kernel).post(number, messages)
        return {}

    async def on_kernel_messages(self, kernel: str, since: int, wait: float, max_bytes: int) -> dict[str, Any]:
        """What it has said since; up to there it has arrived, and is kept no longer."""
        return await self._relayed(kernel).messages(since, min(wait, LONGEST_POLL), max_bytes)

    def _relayed(self, kernel: str) -> RelayedKernel:
        if self._kernel is None or self._kernel.name != kernel:
            raise NotReady(f"there is no kernel {kernel!r}", remedy="Restart it.")
        return self._kernel

    def _find(self, session: str) -> HostedSession:
        if session not in self._sessions:
            raise NotReady(f"there is no session {session!r}", remedy="It was closed, or its host was started anew.")
        return self._sessions[session]


async def _serve(run_dir: Path) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    host = Host(run_dir)
    await host.start()
    await told.wait()
    await host.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the sessions of a run directory until told to end, or until the parent dies."""
    parser = argparse.ArgumentParser(description="the session host of an hpcnb allocation")
    parser.add_argument("--run-dir", required=True, type=Path)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    asyncio.run(_serve(options.run_dir))


if __name__ == "__main__":
    main()
