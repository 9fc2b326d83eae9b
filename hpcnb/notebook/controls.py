"""The buttons beneath work: cancel it, run again what has failed; all of it, or what is chosen."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpcnb.errors import HPCError
from hpcnb.future.again import retry
from hpcnb.future.future import Future
from hpcnb.views.visible import visible
from hpcnb.views.work import short

if TYPE_CHECKING:
    from hpcnb.future.work import Look
    from hpcnb.notebook.output import View as Output
    from hpcnb.pilot.scheduler.counts import Summary

__all__ = ["Controls", "answer_meanwhile"]

WIDGET = "application/vnd.jupyter.widget-view+json"


def answer_meanwhile(widget: Any) -> None:
    """Have a widget's messages handled while a cell runs, in the subshell that the page has asked for.

    ipykernel 7.4 sends them to whichever shell has used the widget last, which for our own threads is the main one.
    """
    widget.comm._reply_subshell_for = lambda _, asked: asked  # noqa: SLF001 - there is no other way


class Controls:
    """Widgets of a page that is open; they go when there is nothing left to press.

    Parameters
    ----------
    look : Look
    output : Output
        Of the cell that has submitted the work.
    """

    def __init__(self, look: Look, output: Output) -> None:
        self._look, self._output = look, output
        self._id = f"hpcnb-controls-{uuid.uuid4().hex}"
        self._box: Any = None
        self._lock = threading.Lock()
        self._begun = False
        self._summary: Summary | None = None

    def draw(self, summary: Summary, latest: Output) -> None:
        """Have those buttons that are good for something."""
        self._summary = summary
        useful = summary.left > 0 or summary.failed > 0
        if useful and not self._begun:
            # To import widgets takes a tenth of a second, which the client's loop has not.
            self._begun = True
            threading.Thread(target=self._make, name="hpcnb controls", daemon=True).start()
        elif self._box is not None and useful:
            self._adapt(summary)
        elif self._box is not None:
            self._publish(latest, "update_display_data", {"text/plain": "", "text/html": ""})
            self._box.close()
            self._box, self._begun = None, False

    def _make(self) -> None:
        import ipywidgets

        small = {"width": "auto", "height": "26px"}
        self._cancel = ipywidgets.Button(description="Cancel", icon="stop", layout=small)
        self._retry = ipywidgets.Button(description="Retry failed", icon="refresh", layout=small)
        self._choice = ipywidgets.SelectMultiple(layout={"width": "24em", "height": "60px"})
        self._said = ipywidgets.Label()
        self._cancel.on_click(lambda _: self._do(self._cancel_chosen))
        self._retry.on_click(lambda _: self._do(self._retry_chosen))
        for widget in (self._cancel, self._retry, self._choice):
            answer_meanwhile(widget)
        box = ipywidgets.HBox([self._cancel, self._retry, self._choice, self._said])
        if self._summary is not None:
            self._adapt(self._summary)
        view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
        self._publish(self._output, "display_data", {WIDGET: view, "text/plain": ""})
        self._box = box

    def _publish(self, output: Output, kind: str, data: dict[str, Any]) -> None:
        output.publish(kind, {"data": data, "metadata": {}, "transient": {"display_id": self._id}})

    def _adapt(self, summary: Summary) -> None:
        with self._lock:  # a change of what can be chosen takes two steps
            self._cancel.layout.display = None if summary.left else "none"
            self._retry.layout.display = None if summary.failed else "none"
            there = [(f"failed: {visible(short(name))}", name) for name, _, _ in summary.errors]
            there += [(f"running: {visible(short(name))}", name) for name, _, _ in summary.running_longest]
            self._choice.layout.display = None if summary.errors else "none"
            if tuple(there) != self._choice.options and summary.errors:
                chosen = set(self._choice.value)
                self._choice.options = tuple(there)
                self._choice.value = tuple(name for _, name in there if name in chosen)

    # -- what they do --------------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[], object]) -> None:
        # Beside the kernel's own thread: a button must not wait for values to come.
        threading.Thread(target=self._try, args=(work,), name="hpcnb button", daemon=True).start()

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
            self._said.value = ""
        except (HPCError, OSError) as error:
            self._said.value = visible(str(error).partition("\n")[0])

    def _cancel_chosen(self) -> None:
        if chosen := self._chosen():
            for future in chosen:
                future.cancel()
        else:
            self._look.client.ledger.cancel_work(self._look.work.id)

    def _retry_chosen(self) -> None:
        retry(self._chosen() or self._futures())

    def _chosen(self) -> list[Future]:
        names = set(self._choice.value)
        return [future for future in self._futures() if str(future.key) in names] if names else []

    def _futures(self) -> list[Future]:
        """Those of this kernel that somebody still refers to."""
        known = self._look.client.ledger.known()
        return [Future(batch, index) for batch in known if batch.work == self._look.work.id for index in batch.indices]
