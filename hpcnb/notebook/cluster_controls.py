"""The buttons under a cluster's view, and a copy of the view that a page loaded anew gets from the kernel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any

import ipywidgets as widgets

from hpcnb.agent.loop import background
from hpcnb.errors import HPCError
from hpcnb.handle import Handle
from hpcnb.model import ClusterStatus, State
from hpcnb.views.overview import overview_html
from hpcnb.views.visible import escaped

SURE = 5.0
"""Seconds in which a cancellation is confirmed."""
LINES = 40
LOG = (
    "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,12px);line-height:1.35;"
    "max-height:22em;max-width:62em;overflow:auto;white-space:pre-wrap;margin:4px 0;padding:6px 10px;"
    "background:var(--jp-layout-color2,#eee)"
)


class Controls:
    """Widgets for one cluster.

    What a button does runs on the background loop, so that no button waits for another, nor for a cell.

    Parameters
    ----------
    handle : Handle
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._view = widgets.HTML()
        self._said = widgets.HTML()
        self._logs = widgets.HTML()
        self._sure: asyncio.TimerHandle | None = None
        nodes = handle.status.spec.resources.nodes
        self._nodes = _number(nodes, "nodes to have")
        self._least, self._most = _number(nodes, "nodes at least"), _number(nodes + 1, "nodes at most")
        self._scale = self._button("Scale", self._scaled, "Have so many nodes")
        self._adapt = self._button("Adapt", self._adapted, "As many nodes as the work needs, between these two numbers")
        self._keep = self._button("Keep alive", self._kept, "Begin the idle time anew")
        self._dashboard = self._button("Dashboard", self._linked, "Where Dask's own dashboard is")
        self._log = self._button("Logs", self._logged, "The end of the batch job's log; once more hides it")
        self._cancel = self._button("Cancel", self._cancelled, "End the cluster and its jobs")
        when_ready = (self._scale, self._nodes, self._adapt, self._least, self._most, self._keep, self._dashboard)
        self._when_ready = when_ready
        row = widgets.HBox([*when_ready, self._log, self._cancel], layout=widgets.Layout(flex_flow="row wrap"))
        self._all = widgets.VBox([self._view, row, self._said, self._logs])

    def bundle(self) -> dict[str, Any]:
        """What shows them; nothing where widgets are unknown, since the view itself stands above."""
        key = "application/vnd.jupyter.widget-view+json"
        return {key: self._all._repr_mimebundle_()[key], "text/html": "", "text/plain": ""}

    def draw(self, status: ClusterStatus) -> None:
        """Show a status, and enable what can be done now."""
        self._view.value = overview_html(status, time.time(), kind="live", at=False)
        for widget in self._when_ready:
            widget.disabled = status.state is not State.READY
        self._cancel.disabled = status.state is State.DRAINING
        if status.state is State.ENDED:
            for widget in (*self._when_ready, self._cancel, self._said):
                widget.layout.display = "none"
        self.let_go()

    def let_go(self) -> None:
        """Have a press of a button handled where the page wants it, in a shell beside the cells.

        ipykernel (7.4) handles it in the shell that has changed the button last: if that was a cell's, not before the cells
        end; if it was that of a page which was loaded anew, never.
        """
        for widget in (*self._when_ready, self._log, self._cancel):
            vars(widget.comm).pop("_reply_subshell_id", None)

    def _button(self, name: str, act: Callable[[], Coroutine[Any, Any, str]], tooltip: str) -> widgets.Button:
        button = widgets.Button(description=name, tooltip=tooltip, layout=widgets.Layout(width="auto"))
        button.on_click(lambda _: self._do(name, act))
        return button

    def _do(self, name: str, act: Callable[[], Coroutine[Any, Any, str]]) -> None:
        self._said.value = f"{escaped(name)} …"
        background().start(act()).add_done_callback(self._answer)

    def _answer(self, done: Future[str]) -> None:
        try:
            self._said.value = done.result()
        except (HPCError, CancelledError) as exc:
            self._said.value = f'<span style="color:#e53935">{escaped(str(exc))}</span>'

    # -- what the buttons do; each answers in HTML ---------------------------------------------------------------

    async def _scaled(self) -> str:
        nodes = self._nodes.value
        await asyncio.to_thread(lambda: _cluster(self._handle).scale(nodes=nodes))
        return f"asked for {nodes} node{'s' * (nodes != 1)}"

    async def _adapted(self) -> str:
        least, most = self._least.value, self._most.value
        await asyncio.to_thread(lambda: _cluster(self._handle).adapt(nodes=(least, most)))
        return f"adapts between {least} and {most} nodes, from this kernel"

    async def _kept(self) -> str:
        await self._handle.keep()
        return "its idle time begins anew"

    async def _linked(self) -> str:
        link = await self._handle.dashboard()
        if not link:
            return "it has no dashboard"
        return f'<a href="{escaped(link)}" target="_blank" rel="noopener">open the dashboard</a>'

    async def _logged(self) -> str:
        if self._logs.value:
            self._logs.value = ""
            return ""
        for name, text in (await self._handle.logs("job")).items():
            lines = "\n".join(escaped(line) for line in text.splitlines()[-LINES:])
            self._logs.value += f'<b>{escaped(name)}</b><pre style="{LOG}">{lines}</pre>'
        return "" if self._logs.value else "there is no log yet"

    async def _cancelled(self) -> str:
        loop = asyncio.get_running_loop()
        if self._sure is None:
            self._cancel.description, self._cancel.button_style = "Really cancel", "danger"
            self._sure = loop.call_later(SURE, self._spare)
            self.let_go()
            return "press again to end the cluster and its jobs"
        self._spare()
        await self._handle.close()
        return "cancelled"

    def _spare(self) -> None:
        if self._sure:
            self._sure.cancel()
        self._sure = None
        self._cancel.description, self._cancel.button_style = "Cancel", ""
        self.let_go()
        if self._said.value.startswith("press again"):
            self._said.value = ""


def _number(value: int, tooltip: str) -> widgets.BoundedIntText:
    layout = widgets.Layout(width="4.5em")
    return widgets.BoundedIntText(value, min=0, max=10_000, tooltip=tooltip, layout=layout)


def _cluster(handle: Handle) -> Any:
    from hpcnb.cluster import Cluster  # brings Dask

    return Cluster.of(handle)
