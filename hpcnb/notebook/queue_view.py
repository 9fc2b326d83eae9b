"""A queue under a cell: how it stands, followed while there is work, and its tasks with what can be done to them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from IPython.display import display

from hpcnb.agent.loop import background
from hpcnb.errors import HPCError, NoSuchQueue
from hpcnb.notebook.cluster_view import somebody
from hpcnb.views.queue import COLOURS, label, queue_html, queue_text
from hpcnb.views.visible import escaped

if TYPE_CHECKING:
    from hpcnb.queue.queue import Queue
    from hpcnb.queue.task import QueuedTask

__all__ = ["show_queue"]

OFTEN, SELDOM = 5.0, 30.0
"""Seconds between two looks at the queue, in the first minute after something was asked here, and later."""
MINUTE = 60.0
MOST = 200
"""Tasks that are listed."""
LINES = 40
LOG = (
    "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,12px);line-height:1.35;max-height:22em;"
    "overflow:auto;white-space:pre-wrap;margin:4px 0;padding:6px 10px;background:var(--jp-layout-color2,#eee)"
)

_views: dict[tuple[str, str], Tasks] = {}


def show_queue(queue: Queue) -> None:
    """Show a queue under the cell that runs; with what can be pressed only where there is somebody to press it."""
    status, now = queue.status(), time.time()
    static = {"text/html": queue_html(status, now), "text/plain": queue_text(status, now)}
    widget = {}
    if somebody():
        if (tasks := _views.get((queue.site, queue.name))) is None:
            tasks = _views[queue.site, queue.name] = Tasks(queue, status)
        widget = tasks.bundle()
    display({**widget, **static}, raw=True)


class Tasks:
    """Widgets for one queue. What they ask of it is asked in threads: a site may be slow, and no button waits for another.

    Parameters
    ----------
    queue : Queue
    status : dict
        As it was just now.
    """

    def __init__(self, queue: Queue, status: dict[str, Any]) -> None:
        import ipywidgets as widgets  # dear

        self._queue = queue
        self._asked = self._answered = 0
        self._used = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._listed: list[QueuedTask] = []
        tasks = status["ntasks"]
        first = next((state for state in ("Failed", "Running", "Pending") if tasks[state]), "Succeeded")
        self._view = widgets.HTML(queue_html(status, time.time()))
        self.state = widgets.Dropdown(options=list(COLOURS), value=first, layout={"width": "9em"})
        self.list = widgets.SelectMultiple(rows=8, layout={"width": "58em", "max_width": "100%"})
        self.said, self.log = widgets.HTML(), widgets.HTML()
        self.buttons = {
            name: self._button(name, act, tooltip)
            for name, act, tooltip in (
                (
                    "Retry",
                    self._retry,
                    "Have the selected tasks carried out again, as far as they have failed or were killed",
                ),
                ("Raise priority", self._raise, "Let the selected tasks go before those that are as important now"),
                ("Cancel", self._cancel, "Kill the selected tasks; they can be carried out again"),
                ("Log", self._show_log, "What the first selected task has printed last"),
                ("Refresh", self._nothing, "Look at the queue now"),
            )
        }
        self.state.observe(lambda _: self._refresh(), "value")
        row = widgets.HBox([self.state, *self.buttons.values()], layout={"flex_flow": "row wrap"})
        self._all = widgets.VBox([self._view, row, self.list, self.said, self.log])

    def bundle(self) -> dict[str, Any]:
        """What shows them, wherever that is done, with the queue as it is."""
        self._refresh()
        return dict(self._all._repr_mimebundle_())

    # -- looking -----------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        self._used = time.monotonic()
        self._asked += 1
        background().start(self._look(self._asked))

    async def _look(self, number: int) -> None:
        if self._timer:
            self._timer.cancel()
        state = self.state.value
        try:
            status, tasks = await asyncio.to_thread(self._read, state)
        except (HPCError, OSError) as exc:  # a site may be away for a while
            self.said.value = _red(str(exc))
            if isinstance(exc, NoSuchQueue):
                return
        else:
            if number >= self._answered:
                self._answered = number
                self._draw(status, tasks)
            if not any(status["ntasks"][one] for one in ("Waiting", "Pending", "Running")):
                return
        if number == self._asked:
            pause = OFTEN if time.monotonic() - self._used < MINUTE else SELDOM
            self._timer = asyncio.get_running_loop().call_later(pause, lambda: background().start(self._look(number)))

    def _read(self, state: str) -> tuple[dict[str, Any], list[QueuedTask]]:
        return self._queue.status(), list(itertools.islice(self._queue.tasks(state), MOST))

    def _draw(self, status: dict[str, Any], tasks: list[QueuedTask]) -> None:
        self._view.value = queue_html(status, time.time())
        chosen = set(self._chosen())
        self._listed = tasks
        names = tuple(map(label, tasks))
        if names != self.list.options:
            self.list.options = names
            self.list.index = tuple(place for place, task in enumerate(tasks) if task.id in chosen)
        # What the page sends is handled where the page wants it, not in the shell that has changed the list last.
        vars(self.list.comm).pop("_reply_subshell_id", None)

    # -- what the buttons do; each says what it has done ------------------------------------------------------------------

    def _button(self, name: str, act: Callable[[Sequence[int]], str], tooltip: str) -> Any:
        import ipywidgets as widgets

        button = widgets.Button(description=name, tooltip=tooltip, layout={"width": "auto"})
        button.on_click(lambda _: self.press(name, act))
        return button

    def press(self, name: str, act: Callable[[Sequence[int]], str]) -> None:
        """Do something with what is selected."""
        self.said.value = f"{escaped(name)} …"
        background().start(asyncio.to_thread(act, self._chosen())).add_done_callback(self._answer)

    def _answer(self, done: Future[str]) -> None:
        try:
            self.said.value = escaped(done.result())
        except (HPCError, OSError, CancelledError) as exc:
            self.said.value = _red(str(exc))
        self._refresh()

    def _chosen(self) -> list[int]:
        listed = self._listed
        return [listed[place].id for place in self.list.index if place < len(listed)]

    def _retry(self, ids: Sequence[int]) -> str:
        if not ids:
            return "select tasks first"
        return f"{self._queue.retry(ids) + self._queue.revive(ids)} of {len(ids)} tasks will be carried out again"

    def _raise(self, ids: Sequence[int]) -> str:
        if not ids:
            return "select tasks first"
        chosen = set(ids)
        above = max(task.priority for task in self._listed if task.id in chosen) + 1
        return f"{self._queue.set_priority(ids, above)} of {len(ids)} tasks have priority {above}"

    def _cancel(self, ids: Sequence[int]) -> str:
        return f"{self._queue.set_state(ids, 'Killed')} tasks were killed" if ids else "select tasks first"

    def _show_log(self, ids: Sequence[int]) -> str:
        if not ids:
            return "select a task first"
        lines = "\n".join(map(escaped, self._queue.log(ids[0]).splitlines()[-LINES:]))
        self.log.value = f'<b>task {ids[0]}</b><pre style="{LOG}">{lines or "it has printed nothing"}</pre>'
        return ""

    def _nothing(self, _ids: Sequence[int]) -> str:
        return ""


def _red(text: str) -> str:
    return f'<span style="color:#e53935">{escaped(text)}</span>'
