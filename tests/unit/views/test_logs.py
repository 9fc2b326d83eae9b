"""Logs as text and as HTML: golden files, with names and lines that try to be obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcnb.views.logs import Line, lines_html, lines_text, runs_text

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "<img src=x onerror=alert(1)>\x1b]0;title\x07\x1b[2J"
MIXED = [
    Line(0.0, "job", "", "", None, 0, 0, "plain \x1b[32mgreen\x1b[0m\tand a tab"),
    Line(0.0, "0-node1-0", "node1", "", None, 0, 40, "the worker's own"),
    Line(0.0, "0-node1-0", "node1", "fit-0c9f5d3e-1a2b-4c3d-8e4f-5a6b7c8d9e0f", 3, 2, 30, HOSTILE),
    Line(0.0, HOSTILE, HOSTILE, HOSTILE, None, 1, 50, "…"),
]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("logs_mixed.txt", lines_text(MIXED)),
        ("logs_mixed.html", lines_html(MIXED)),
        ("logs_one.txt", lines_text(MIXED[2:3])),
        ("logs_none.html", lines_html([])),
    ],
)
def test_lines_look_as_they_did(name, shown):
    """Nothing of others acts, in a browser or in a terminal; each line says whose it is and how serious."""
    assert f"{shown}\n" == (GOLDEN / name).read_text(encoding="utf-8")


def test_attempts_are_marked():
    """One attempt is its text alone; several have their headings, and end where lines end."""
    run = {"worker": "0-node1-0", "host": "node1", "attempt": 1, "time": 0.0, "text": "a"}
    assert runs_text([]) == ""
    assert runs_text([run]) == "a"
    lines = runs_text([run, {**run, "attempt": 2, "text": "b\n"}]).splitlines()
    assert [line.partition(",")[0] for line in lines] == ["── attempt 1", "a", "── attempt 2", "b"]
    assert "worker 0-node1-0 on node1" in lines[0]
