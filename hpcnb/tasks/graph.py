"""The graph of the tasks of a program: which were called, and what each had of which others."""

from __future__ import annotations

import html
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Graph", "Node", "shown_by"]

MOST = 100_000
DRAWN = 400
"""Tasks of a drawing: with more, nobody sees anything."""
WIDE, HIGH, RADIUS = 90, 60, 18
LEGEND, LONGEST = 160, 24
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


@dataclass(kw_only=True, slots=True)
class Node:
    """One call of a task.

    Parameters
    ----------
    number : int
        From 1, in the order of the calls.
    name : str
        The function's.
    key : str
        Dask's key.
    sources : frozenset of int
        The tasks whose results it uses.
    spares : bool
        Its failure ends those that come after it, and is nobody else's concern.
    level : int
        How many tasks lie, one behind the other, before it.
    state : str
        ``pending``, ``running``, or how it ended, in Dask's words: ``finished``, ``error``, ``cancelled``.
    """

    number: int
    name: str
    key: str
    sources: frozenset[int] = frozenset()
    spares: bool = False
    level: int = 0
    state: str = "pending"


_show: Callable[[Graph], bool] = lambda _: False  # noqa: E731


def shown_by(show: Callable[[Graph], bool]) -> None:
    """Have a function show graphs as they change, which says whether it can."""
    global _show
    _show = show


class Graph:
    """Tasks and what they had of each other; a notebook shows it as a drawing.

    Parameters
    ----------
    most : int
        Tasks that are remembered; of a longer run the first ones go.

    Examples
    --------
    >>> graph = Graph()
    >>> first = graph.add("make", "make-1", [])
    >>> second = graph.add("use", "use-1", [first.number])
    >>> graph.edges
    {(1, 2)}
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.nodes: dict[int, Node] = {}
        self.forgotten = 0
        self._names: dict[str, int] = {}
        self._changed: Callable[[], object] = lambda: None

    @property
    def edges(self) -> set[tuple[int, int]]:
        """Pairs of tasks, of which the second uses something of the first."""
        return {(source, n) for n, node in self.nodes.items() for source in node.sources if source in self.nodes}

    def add(self, name: str, key: str, sources: Iterable[int], *, spares: bool = False) -> Node:
        """Enter a task with those whose results it uses."""
        number = self.forgotten + len(self.nodes) + 1
        if len(self.nodes) == self._most:
            self._forget(self._most // 10 or 1)
        before = frozenset(sources)
        # No edge runs against the order of the calls.
        level = max((self.nodes[source].level + 1 for source in before if source in self.nodes), default=0)
        node = self.nodes[number] = Node(number=number, name=name, key=key, sources=before, spares=spares, level=level)
        self._names.setdefault(name, len(self._names))
        self._changed()
        return node

    def ended(self, node: Node, state: str) -> None:
        """A task has ended, and how."""
        node.state = state
        self._changed()

    def runs(self, node: Node, *, running: bool) -> None:
        """Whether a task that has not ended runs, as far as is known."""
        if node.state in ("pending", "running"):
            node.state = "running" if running else "pending"

    def watched_by(self, changed: Callable[[], object]) -> None:
        """Have a quick function called when tasks are added or end; it takes the place of an earlier one."""
        self._changed = changed

    def spared(self, node: Node) -> bool:
        """Whether an error of a task is nobody's concern: it, or each of those that it has it from, says so."""
        failed = [self.nodes[n] for n in node.sources if n in self.nodes and self.nodes[n].state == "error"]
        return all(self.spared(source) for source in failed) if failed else node.spares

    def _forget(self, number: int) -> None:
        for gone in list(self.nodes)[:number]:
            del self.nodes[gone]
        self.forgotten += number

    def levels(self) -> dict[int, int]:
        """How many tasks lie, one behind the other, before each."""
        return {number: node.level for number, node in self.nodes.items()}

    def shown(self) -> list[Node]:
        """Those of a drawing: the last ones."""
        return list(itertools.islice(reversed(self.nodes.copy().values()), DRAWN))[::-1]

    def _ipython_display_(self) -> None:
        if not _show(self):
            raise NotImplementedError  # then IPython asks for the drawing

    def _repr_svg_(self) -> str:
        """The drawing: a level a row, a colour a function; a hollow ring waits, a pale one runs."""
        shown = self.shown()
        column, at = defaultdict[int, int](int), dict[int, tuple[int, int]]()
        lowest = min((node.level for node in shown), default=0)
        for node in shown:
            row = node.level - lowest
            at[node.number] = (WIDE * column[row] + WIDE // 2, HIGH * row + HIGH // 2)
            column[row] += 1
        lines = [
            _line(at[source], at[node.number]) for node in shown for source in sorted(node.sources) if source in at
        ]
        rings = [_ring(node, at[node.number], COLOURS[self._names[node.name] % len(COLOURS)]) for node in shown]
        legend = list(self._legend(shown, WIDE * max(column.values(), default=1) + 8))
        width = WIDE * max(column.values(), default=1) + LEGEND
        height = max(HIGH * (len(column) or 1), 14 * len(legend) + 20)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="system-ui, sans-serif" style="max-width: 100%; height: auto">'  # all of it, however narrow the page is
        )
        return "\n".join([head, *lines, *rings, *legend, "</svg>"])

    def _legend(self, shown: Sequence[Node], x: int) -> Iterator[str]:
        """The functions' names in their colours."""
        names = list(dict.fromkeys(node.name for node in shown))
        for place, name in enumerate(names[: len(COLOURS)]):
            colour = COLOURS[self._names[name] % len(COLOURS)]
            text = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
            yield f'<text x="{x}" y="{20 + 14 * place}" font-size="11" fill="{colour}">{html.escape(text)}</text>'

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes) + self.forgotten} tasks, {len(self.edges)} edges>"


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1}" y1="{y1 + RADIUS}" x2="{x2}" y2="{y2 - RADIUS}" stroke="#999999"/>'


def _ring(node: Node, at: tuple[int, int], colour: str) -> str:
    fill = {"finished": colour, "running": f"{colour}55", "error": "#cc3311", "cancelled": "#bbbbbb"}.get(
        node.state, "none"
    )
    written = "#ffffff" if node.state in ("finished", "error") else "#333333" if node.state == "cancelled" else colour
    text = f"{node.number} {node.name}: {node.state}"
    return (
        f'<g><title>{html.escape(text)}</title><circle cx="{at[0]}" cy="{at[1]}" r="{RADIUS}" fill="{fill}" '
        f'stroke="{colour}" stroke-width="3"/><text x="{at[0]}" y="{at[1] + 4}" font-size="11" text-anchor="middle" fill="{written}">'
        f"{node.number}</text></g>"
    )
