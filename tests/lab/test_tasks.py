"""Tasks on two nodes that share no scratch, of a notebook that shares no file with either."""

from __future__ import annotations

import pytest

from tests.lab.lab import NB, until
from tests.lab.notebook import Notebook

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(180)]

COUNT = """
import pathlib, socket

def count(path: hpc.FileInOut, seen: hpc.InOut):
    pathlib.Path(path).write_text(str(int(pathlib.Path(path).read_text()) + 1))
    # What one node has in its scratch, the other must not have: that is what is shown here.
    mark = pathlib.Path("/tmp/counted-here")
    seen.append((socket.gethostname(), mark.exists()))
    mark.touch()

seen = []
counter = pathlib.Path.home() / "counter"
counter.write_text("0")
for node in ("node1", "node2", "node1"):
    hpc.task(where=node)(count)(counter, seen)
hpc.wait_on_file(counter)
"""


@pytest.fixture
def notebook(lab):
    """A notebook on the laptop, with a cluster on both nodes."""
    notebook = Notebook(lab)
    notebook.up("--nodes 2")
    yield notebook
    notebook.close()


def test_one_counter_file(lab, notebook):
    """One counter file with three FILE_INOUT tasks ends at 3, on two nodes that share no scratch."""
    until(lambda: notebook.value("hpc.current().snapshot.counts.workers") == "2", why="both nodes have a worker")
    notebook.do(COUNT)
    assert lab.laptop.path(f"{NB.home}/counter").read_text() == "3"
    assert notebook.value("hpc.wait_on(seen)") == "[('node1', False), ('node2', False), ('node1', True)]"
