"""`%hpc attach`: what this notebook has on a cluster, and the output of its cells that its user may not have seen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from IPython.core.getipython import get_ipython

from hpcnb import choice, handle
from hpcnb.cell import Message, Reply
from hpcnb.cluster import Cluster
from hpcnb.errors import HPCError, TaskLost
from hpcnb.model import State
from hpcnb.notebook import record
from hpcnb.notebook.output import CellView, View, inner_view
from hpcnb.notebook.page import page_of
from hpcnb.notebook.work import show_again
from hpcnb.pilot.values import unpack
from hpcnb.session import Session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["attach", "reminder", "summary", "title"]

STATES = {"memory": "finished", "erred": "failed", "executing": "running"}
"""How a user calls the states of Dask's tasks; a task in any other waits."""

PATIENCE = 30.0
"""Seconds that the session host has to answer."""
AT_ONCE = 2.0
"""The same where the answer is but an addition."""

_followed: dict[str, str] = {}
"""The cells that run and whose output comes here, each with the page that asked for it."""


def attach(name: str | None = None, *, notebook: str = "") -> Cluster:
    """Do as `hpcnb.choice.attach` does, and show the output that this notebook's user may not have seen.

    Parameters
    ----------
    name : str, optional
        By default the youngest cluster.
    notebook : str, optional
        Another notebook, none of whose kernels lives, whose futures become this one's.

    Returns
    -------
    Cluster
        It is in use from now on.

    Raises
    ------
    NotReady
        There is none (of that name).

    Notes
    -----
    It returns when the output of all cells that have ended is shown. That of cells which still run follows, one after the
    other, while the notebook does other things.
    """
    from hpcnb.notebook.line import NotebookFace

    shell: Any = get_ipython()
    face = NotebookFace(shell)
    handle.ask_with(face.ask)
    known = choice.named(name)
    if known.state is State.UNREACHABLE:
        with face.following(known.handle):
            handle.run(known.handle.ready())
    cluster = choice.attach(known.name, notebook=notebook)
    if cluster.state is State.READY:
        _show(shell, cluster)
    return cluster


def _show(shell: InteractiveShell, cluster: Cluster) -> None:
    session = cluster.session
    cells = unseen(shell, session, PATIENCE)
    click.echo(summary(cluster.client.kept(), session.wait(session.all_sessions()), len(cells)))
    if getattr(shell, "kernel", None) is not None:
        show_again()
    replay = _Replay(shell, {cell["session"]: cluster.session_named(cell["session"]) for cell in cells})
    session.wait(replay.show([cell for cell in cells if cell["ended"] is not None]))
    asyncio.run_coroutine_threadsafe(replay.follow([cell for cell in cells if cell["ended"] is None]), session.loop)


def unseen(shell: InteractiveShell, session: Session, patience: float) -> list[dict[str, Any]]:
    """The cells whose output may not have been seen, oldest first, but for those that are being shown."""
    page = page_of(shell)
    found = session.wait(session.unseen(**page), patience)
    return [
        cell
        for cell in found
        if _followed.get(cell["id"]) != page["page"] and not record.is_shown(cell["id"], page["page"])
    ]


def reminder(shell: InteractiveShell, session: Session) -> str:
    """A line about what may not have been seen; empty where there is nothing, or where nobody answers at once."""
    names = ""
    with contextlib.suppress(TimeoutError, HPCError):
        names = ", ".join(f"[{cell['count']}]" for cell in unseen(shell, session, AT_ONCE))
    return f"cell {names} printed what this page may not show: see `%hpc attach`" if names else ""


def summary(kept: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]], cells: int) -> str:
    """What there is, in a few lines."""
    counts: Counter[str] = Counter()
    for *_, size, state in kept["futures"]:
        counts[STATES.get(state, "waiting")] += size or 1
    number = counts.total()
    futures = f"{number:,} future{'s' * (number != 1)}"
    if counts:
        futures += f" ({', '.join(f'{n:,} {state}' for state, n in counts.items())})"
    busy = [f"{one['name']}{' (busy)' if one['running'] else ''}" for one in sessions]
    said = [f"{futures}; session{'s' * (len(busy) != 1)} {', '.join(busy)}"]
    if cells:
        said[0] += f"; output of {cells} cell{'s' * (cells != 1)} that you may not have seen:"
    said += [
        f"{n:,} future{'s' * (n != 1)} of {other}, which has no kernel now: `%hpc attach --notebook {other}` takes over"
        for other, n in kept["others"].items()
    ]
    return "\n".join(said)


class _Replay:
    """Shows cells, each as a block, in the cell that runs now.

    Parameters
    ----------
    shell : InteractiveShell
    sessions : dict
        Those that have run the cells, by name.
    """

    def __init__(self, shell: InteractiveShell, sessions: Mapping[str, Session]) -> None:
        self._shell = shell
        self._sessions = sessions
        self._view: View = inner_view(shell)
        self.page: str = page_of(shell)["page"]

    async def show(self, cells: Iterable[Mapping[str, Any]]) -> None:
        """Show cells one after the other, each to its end."""
        for cell in cells:
            session = self._sessions[cell["session"]]
            view = CellView(self._view, f"`%hpc logs {session.name}`")
            view.say(title(cell), "stdout")
            messages = session.follow(cell["id"])
            async for message in messages if cell["ended"] is None else _settled(messages):
                if message.type == "reply":
                    await self._conclude(view, session, cell, Reply.from_content(message.content))
                elif message.type == "input_request" and cell["ended"] is None:
                    view.say(f"it asks {message.content['prompt']!r}, and nobody can answer here: interrupt it")
                elif message.type != "clear_output":  # it would clear the other blocks, too
                    view.show(message)

    async def follow(self, cells: Sequence[Mapping[str, Any]]) -> None:
        """Show cells that run, while nobody waits for it."""
        _followed.update({cell["id"]: self.page for cell in cells})
        try:
            await self.show(cells)
        except HPCError as error:
            CellView(self._view, "").say(f"{type(error).__name__}: {error}")
        finally:
            for cell in cells:
                _followed.pop(cell["id"], None)

    async def _conclude(self, view: CellView, session: Session, cell: Mapping[str, Any], reply: Reply) -> None:
        if reply.status != "ok" and (reply.error is not None or not reply.traceback):  # else its error has been shown
            view.say(f"{reply.ename}: {reply.evalue}")
        if cell["ended"] is None:
            view.say(title({**cell, "ended": 0.0, "status": reply.status}).partition("\n")[0], "stdout")
        if reply.has_values and not cell["own"]:
            with contextlib.suppress(TaskLost):  # the kernel that is gone had fetched them
                frames = await session.collect(cell["id"])
                self._shell.user_ns.update(await asyncio.to_thread(unpack, frames, self._shell.user_ns))
        await session.shown(cell["id"])


async def _settled(messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
    """What is left of a cell's output where it has cleared some of it."""
    left: list[Message] = []
    clear = False
    async for message in messages:
        if message.type == "clear_output":
            clear = True
            if message.content.get("wait"):
                continue
        if clear and message.type != "reply":
            left = [one for one in left if one.type.startswith("comm_")]
            clear = False
        left.append(message)
    for message in left:
        yield message


def title(cell: Mapping[str, Any]) -> str:
    """The head of a block: which cell, how it stands, and its first line."""
    where = f"cell [{cell['count']}]" + (f" in session {cell['session']}" if cell["session"] != "main" else "")
    if cell["ended"] is None:
        state = "runs" if cell["begun"] else "waits"
    else:
        state = "ended ok" if cell["status"] == "ok" else "ended with an error"
        state += f" {ago(cell['ended'])}"
    lines = [line for line in cell["code"].splitlines() if line.strip() and not line.startswith("# %%hpc")]
    return f"── {where}, {state} ──" + (f"\n   {lines[0][:100]}{' …' if len(lines) > 1 else ''}" if lines else "")


def ago(seconds: float) -> str:
    """``just now``, ``3 min ago``, ``2 h ago``."""
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h ago"
    return f"on {time.strftime('%a %d %b %H:%M', time.localtime(time.time() - seconds))}"
