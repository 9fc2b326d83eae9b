"""The graph of a program and its drawing."""

from __future__ import annotations

from xml.etree import ElementTree

from hpcnb.tasks.graph import Graph


def test_levels_follow_the_edges():
    """A task lies below all that it has something of; an edge is counted once."""
    graph = Graph()
    graph.add("a", "a-1", [])
    graph.add("b", "b-1", [1, 1])
    graph.add("a", "a-2", [1])
    graph.add("c", "c-1", [1, 2])
    assert graph.levels() == {1: 0, 2: 1, 3: 1, 4: 2}
    assert graph.edges == {(1, 2), (1, 3), (1, 4), (2, 4)}
    assert repr(graph) == "<Graph of 4 tasks, 4 edges>"


def test_a_drawing_is_svg():
    """The drawing is well-formed, whatever the functions are called, and shows what has ended and what has failed."""
    graph = Graph()
    graph.add("<lambda>", "l-1", []).state = "finished"
    graph.add('"&', "l-2", [1]).state = "error"
    drawn = ElementTree.fromstring(graph._repr_svg_())
    svg = "{http://www.w3.org/2000/svg}"
    assert [title.text for title in drawn.iter(f"{svg}title")] == ["1 <lambda>: finished", '2 "&: error']
    assert len(list(drawn.iter(f"{svg}line"))) == 1
    assert ElementTree.fromstring(Graph()._repr_svg_()).tag == f"{svg}svg"


def test_a_long_run_forgets_its_beginning():
    """Only so many tasks are remembered; the count goes on."""
    graph = Graph(most=2)
    for number in range(4):
        graph.add("a", f"a-{number}", [number] if number else [])
    assert list(graph.nodes) == [3, 4]
    assert graph.edges == {(3, 4)}
    assert repr(graph) == "<Graph of 4 tasks, 1 edges>"
