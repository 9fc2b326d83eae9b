"""The graph of a program's tasks, drawn where it was shown last, again whenever a task begins or ends."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from hpcnb.agent.loop import background
from hpcnb.choice import in_use
from hpcnb.notebook.following import follow, latest
from hpcnb.notebook.output import View as Output
from hpcnb.notebook.output import inner_view
from hpcnb.notebook_name import shell
from hpcnb.tasks.graph import Graph

__all__ = ["show"]

INTERVAL = 0.25
"""Seconds between two drawings."""
DEAR = 20
"""How much longer than a drawing itself the pause after it is, at least."""
ASK = 0.5
"""Seconds between two questions which of the tasks run, while some have not ended."""

_live: Drawing | None = None


def show(graph: Graph) -> bool:
    """Draw a graph under the cell that runs, from now on as it changes; False: there is no notebook."""
    global _live
    running = shell()
    if getattr(running, "kernel", None) is None:
        return False
    follow(running, _settle)
    _live = Drawing(graph, inner_view(running))
    return True


def _settle() -> None:
    if _live is not None:
        _live.draw()


class Drawing:
    """One output that shows a graph; an earlier one stays as it is.

    Parameters
    ----------
    graph : Graph
    output : Output
    """

    def __init__(self, graph: Graph, output: Output) -> None:
        self._graph, self._output = graph, output
        self._id = f"hpcnb-graph-{uuid.uuid4().hex}"
        self._drawing, self._due = threading.Lock(), False
        self._shown = ""
        self._pause = INTERVAL
        self.draw()
        graph.watched_by(self._changed)
        self._changed()

    def draw(self) -> None:
        """Show it as it is."""
        with self._drawing:
            begun = time.monotonic()
            drawn = self._graph._repr_svg_()
            if drawn != self._shown:
                kind, output = (
                    ("update_display_data", latest(self._output)) if self._shown else ("display_data", self._output)
                )
                data = {"image/svg+xml": drawn, "text/plain": repr(self._graph)}
                output.publish(kind, {"data": data, "metadata": {}, "transient": {"display_id": self._id}})
            self._shown = drawn
            self._pause = max(INTERVAL, DEAR * (time.monotonic() - begun))

    def _changed(self) -> None:
        """It has changed; any thread may say so."""
        if not self._due:
            self._due = True
            background().asyncio_loop.call_soon_threadsafe(self._later, self._pause)

    def _later(self, pause: float) -> None:
        background().asyncio_loop.call_later(pause, self._again)

    def _again(self) -> None:
        self._due = False
        if _live is self:
            background().start(self._ask()).add_done_callback(lambda done: done.exception())

    async def _ask(self) -> None:
        """Draw it, with those as running that the scheduler says run; again, while there are any that have not ended."""
        cluster = in_use()
        client: Any = cluster.early_client if cluster is not None else None
        pending = {node.key: node for node in self._graph.shown() if node.state in ("pending", "running")}
        if pending and client is not None and client.connected:
            try:
                runs = set(await client.scheduler.hpcnb_running(keys=list(pending)))
            except OSError:  # the connection: it is made again, and whatever ends then is news
                runs = set()
            for key, node in pending.items():
                self._graph.runs(node, running=key in runs)
        self.draw()
        if pending and not self._due:
            self._due = True
            self._later(max(ASK, self._pause))
