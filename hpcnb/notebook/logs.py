"""A log explorer: what was printed, searched and filtered in place; where no widget can run, its first page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
from IPython.display import display

from hpcnb.agent.loop import background
from hpcnb.cli.logs import cluster_called
from hpcnb.errors import HPCError
from hpcnb.views.logs import LEVELS, Line, lines_html, lines_text
from hpcnb.views.visible import escaped

if TYPE_CHECKING:
    from hpcnb.handle import Handle
    from hpcnb.notebook.line import NotebookFace

__all__ = ["Explorer", "explore"]

LAST = 200
"""Lines that are shown."""


@click.command()
@click.argument("target", default="worker")
@click.option("--name", default="", help="Of which cluster; by default the one in use, or the youngest, alive or not.")
@click.pass_obj
def explore(face: NotebookFace, target: str, name: str) -> None:
    """Search the logs of a cluster, also of one that has ended.

    They are those of its workers, or those that TARGET names, as in `%hpc logs`.

    \b
    Examples:
      %hpc explore
      %hpc explore fit
    """
    kernel = getattr(face.shell, "kernel", None)
    # Who could not be asked anything is no page either, and what a widget shows is not in what is exported from there.
    on_page = kernel is not None and kernel._allow_stdin  # noqa: SLF001 - ipykernel says it nowhere else
    Explorer(cluster_called(name or face.current()), target).show(on_page=on_page)


class Explorer:
    """Fields for what is wanted, and the last lines of which that is true.

    Parameters
    ----------
    known : Handle
    target : str
        As of `%hpc logs`.
    """

    def __init__(self, known: Handle, target: str) -> None:
        import ipywidgets as widgets

        self._known = known
        self._asked = self._answered = 0

        def field(hint: str, value: str = "") -> Any:
            return widgets.Text(value, placeholder=hint, continuous_update=False, layout={"width": "11em"})

        self.target, self.task, self.node = field("log or task", target), field("task"), field("node")
        self.grep = field("search (regular expression)")
        self.level = widgets.Dropdown(options=["any level", *LEVELS], layout={"width": "8em"})
        self.again = widgets.Button(description="Refresh", layout={"width": "6em"})
        self.page = widgets.HTML()
        fields = [self.target, self.task, self.node, self.level, self.grep]
        self.box = widgets.VBox([widgets.HBox([*fields, self.again]), self.page])
        for one in fields:
            one.observe(lambda _: self.refresh(), "value")
        self.again.on_click(lambda _: self.refresh())

    def show(self, *, on_page: bool) -> None:
        """Show it under the cell that runs now; with its fields only on a page, where somebody can use them."""
        lines = background().run(self._search())
        self.page.value = lines_html(lines)
        data = self.box._repr_mimebundle_() if on_page else {}
        static = {"text/html": lines_html(lines), "text/plain": lines_text(lines)}
        display({**data, **static}, raw=True)

    def refresh(self) -> None:
        """Search anew, and show what was found unless something else is asked by then."""
        self._asked += 1
        background().start(self._refresh(self._asked))

    async def _refresh(self, number: int) -> None:
        try:
            shown = lines_html(await self._search())
        except (HPCError, re.error) as error:
            shown = escaped(str(error))
        if number > self._answered:
            self._answered = number
            self.page.value = shown

    async def _search(self) -> list[Line]:
        re.compile(self.grep.value)
        lines, _ = await self._known.lines(
            self.target.value,
            LAST,
            task=self.task.value,
            node=self.node.value,
            grep=self.grep.value,
            level=self.level.value if self.level.value in LEVELS else "",
        )
        return lines
