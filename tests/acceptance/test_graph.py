"""The graph of tasks in a notebook: drawn while they run, and at last as they ended."""

from __future__ import annotations

import re
import time

import pytest

from tests.acceptance.conftest import notebook_at_work

pytestmark = pytest.mark.slow

CALLS = """
import os, time
@hpc.task
def make(x):
    while not os.path.exists({gate!r}):
        time.sleep(0.05)
    return x
@hpc.task
def use(x):
    return 1 / x
ends = [use(make(1)), use(make(0))]
hpc.graph()
"""


def drawn(cell):
    """The messages with a drawing among the outputs of a cell: what kind of message, of which display."""
    return {
        (kind, content["transient"]["display_id"])
        for kind, content in cell.outputs
        if "image/svg+xml" in content.get("data", {})
    }


def drawings(cell):
    """The states of the tasks in each drawing of a cell, in order."""
    found = [
        content["data"]["image/svg+xml"] for kind, content in cell.outputs if "image/svg+xml" in content.get("data", {})
    ]
    return [re.findall(r"<title>\d (\w+: \w+)</title>", svg) for svg in found]


def test_a_graph_is_drawn_while_its_tasks_run(tmp_path):
    """Shown once, it shows which tasks wait, run, have ended and have failed, four times a second at most."""
    gate = tmp_path / "gate"
    with notebook_at_work(tmp_path) as notebook:
        shown = notebook.run(CALLS.format(gate=str(gate)))
        first = next(display for kind, display in drawn(shown) if kind == "display_data")
        assert drawings(shown)[0] == ["make: pending", "use: pending"] * 2
        begun = time.monotonic()
        waits = notebook.send("for end in ends: end.exception()")
        notebook.hear_until(lambda: any("make: running" in states for states in drawings(shown) + drawings(waits)))
        gate.touch()
        notebook.wait(waits)
        assert len(drawings(waits)) <= 4 * (time.monotonic() - begun) + 3
        assert drawings(waits)[-1] == ["make: finished", "use: finished", "make: finished", "use: error"]
        assert drawn(waits) == {("update_display_data", first)}
