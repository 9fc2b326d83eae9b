"""The graph of the tasks of a program: which were called, and what each had of which others."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Graph", "Node"]

MOST = 100_000
DRAWN = 400
"""Tasks of a drawing: with more, nobody sees anything."""
WIDE, HIGH, RADIUS = 90, 60, 18
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
    state : str
        ``pending``, or how it ended, in Dask's words: ``finished``, ``error``, ``cancelled``.
    """

    number: int
    name: str
    key: str
    sources: frozenset[int] = frozenset()
    spares: bool = False
    state: str = "pending"


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

    @property
    def edges(self) -> set[tuple[int, int]]:
        """Pairs of tasks, of which the second uses something of the first."""
        return {(source, n) for n, node in self.nodes.items() for source in node.sources if source in self.nodes}

    def add(self, name: str, key: str, sources: Iterable[int], *, spares: bool = False) -> Node:
        """Enter a task with those whose results it uses."""
        number = self.forgotten + len(self.nodes) + 1
        if len(self.nodes) == self._most:
            self._forget(self._most // 10 or 1)
        node = Node(number=number, name=name, key=key, sources=frozenset(sources), spares=spares)
        return self.nodes.setdefault(number, node)

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
        level: dict[int, int] = {}
        for number, node in self.nodes.items():  # in the order of the calls, which no edge runs against
            level[number] = max((level[source] + 1 for source in node.sources if source in level), default=0)
        return level

    def _repr_svg_(self) -> str:
        """The drawing: a level a row, a colour a function, a hollow ring for what has not ended."""
        shown = list(self.nodes)[-DRAWN:]
        level, column, at = self.levels(), defaultdict[int, int](int), {}
        lowest = min((level[number] for number in shown), default=0)
        for number in shown:
            row = level[number] - lowest
            at[number] = (WIDE * column[row] + WIDE // 2, HIGH * row + HIGH // 2)
            column[row] += 1
        colours = {
            name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted({n.name for n in self.nodes.values()}))
        }
        lines = [_line(at[a], at[b]) for a, b in sorted(self.edges) if a in at and b in at]
        rings = [_ring(self.nodes[number], at[number], colours) for number in shown]
        width, height = WIDE * max(column.values(), default=1), HIGH * (len(column) or 1)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'style="max-width: 100%; height: auto">'  # all of it, however narrow the page is
        )
        return "\n".join([head, *lines, *rings, "</svg>"])

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes) + self.forgotten} tasks, {len(self.edges)} edges>"


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1}" y1="{y1 + RADIUS}" x2="{x2}" y2="{y2 - RADIUS}" stroke="#999999"/>'


def _ring(node: Node, at: tuple[int, int], colours: dict[str, str]) -> str:
    state, colour = node.state, colours[node.name]
    fill = {"finished": colour, "error": "#cc3311"}.get(state, "none")
    text = f"{node.number} {node.name}: {state}"
    return (
        f'<g><title>{html.escape(text)}</title><circle cx="{at[0]}" cy="{at[1]}" r="{RADIUS}" fill="{fill}" '
        f'stroke="{colour}" stroke-width="3"/><text x="{at[0]}" y="{at[1] + 4}" font-size="11" text-anchor="middle">'
        f"{node.number}</text></g>"
    )
