"""A cluster under a cell: HTML that follows it and stays in the saved page, and buttons where somebody could press them."""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING, Any

from IPython.display import DisplayHandle, display

from hpcnb.agent.loop import background
from hpcnb.model import State
from hpcnb.notebook_name import shell
from hpcnb.views.overview import overview_html, overview_text

if TYPE_CHECKING:
    import asyncio

    from hpcnb.handle import Handle
    from hpcnb.model import ClusterStatus
    from hpcnb.notebook.cluster_controls import Controls

__all__ = ["show", "show_cluster"]

OFTEN = 0.25
"""Seconds between two drawings while news come."""
TICK, CALM_TICK = 1.0, 15.0
"""Seconds between two drawings while only the clock moves: while the cluster is waited for, and later."""
WAITED_FOR = (State.REQUESTED, State.QUEUED, State.STARTING, State.DRAINING)

# A widget's own copy is live, also after the page was loaded anew, but gone with its kernel; this one is then what is
# seen. They follow each other as outputs of one cell, and where both can be drawn only the live one is.
AFTER = ":has(.hpcnb-static) + .jp-OutputArea-child"
STYLE = (
    "<style>.hpcnb-live{display:none}.jp-OutputArea-child .hpcnb-live{display:block}"
    ".jp-OutputArea-child:has(.hpcnb-static):has(+ .jp-OutputArea-child .hpcnb-live),"
    f'.jp-OutputArea-child{AFTER}:has([data-mime-type="application/vnd.jupyter.widget-view+json"])'
    ":not(:has(.hpcnb-live)){display:none}</style>"
)

_views: dict[str, ClusterView] = {}


def show(handle: Handle) -> None:
    """Show a cluster under the cell that runs; all places that show it follow it together."""
    view = _views.setdefault(handle.id, ClusterView(handle))
    view.display()


def show_cluster(cluster: Any) -> None:
    """The same for `hpcnb.Cluster`, as IPython displays it."""
    show(cluster.handle)


class ClusterView:
    """One cluster, wherever it is shown in this kernel.

    Parameters
    ----------
    handle : Handle
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._display = DisplayHandle(f"hpcnb-cluster-{handle.id}")
        self._controls: Controls | None = None
        self._shown = ""
        self._state: State | None = None
        self._drawn = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._listens = False

    def display(self) -> None:
        """Show it under the cell that runs."""
        status = self._handle.status
        display(_bundle(status), raw=True, display_id=self._display.display_id)
        if status.state is not State.ENDED and somebody():
            if self._controls is None:
                from hpcnb.notebook.cluster_controls import Controls  # ipywidgets is dear

                self._controls = Controls(self._handle)
            self._controls.draw(status)
            display(self._controls.bundle(), raw=True)
        if not self._listens:
            self._listens = True
            self._handle.on_change(self._hear)
        background().asyncio_loop.call_soon_threadsafe(self._draw)

    # -- on the background loop ----------------------------------------------------------------------------------

    def _hear(self, status: ClusterStatus) -> None:
        wait = self._drawn + OFTEN - time.monotonic()
        if status.state is not self._state or wait <= 0:
            self._draw()
        else:
            self._later(wait)

    def _later(self, wait: float) -> None:
        loop = background().asyncio_loop
        if self._timer is None or self._timer.when() > loop.time() + wait:
            self._stop()
            self._timer = loop.call_later(wait, self._draw)

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _draw(self) -> None:
        self._stop()
        status = self._handle.status
        self._state, self._drawn = status.state, time.monotonic()
        html = overview_html(status, time.time(), at=False)
        if html != self._shown:
            self._shown = html
            # In no context of its own what is sent belongs to the cell that runs: the only one that who runs a notebook
            # without a page listens to.
            contextvars.Context().run(self._publish, status)
        elif self._controls:
            self._controls.let_go()
        if status.state is not State.ENDED:
            self._later(TICK if status.state in WAITED_FOR else CALM_TICK)

    def _publish(self, status: ClusterStatus) -> None:
        self._display.update(_bundle(status), raw=True)
        if self._controls:
            self._controls.draw(status)


def _bundle(status: ClusterStatus) -> dict[str, str]:
    now = time.time()
    return {"text/html": STYLE + overview_html(status, now), "text/plain": overview_text(status, now)}


def somebody() -> bool:
    """Whether there is a page with a person before it: who cannot be asked anything presses no button either."""
    kernel = getattr(shell(), "kernel", None)
    return kernel is not None and bool(kernel._allow_stdin)  # noqa: SLF001 - ipykernel says it nowhere else
