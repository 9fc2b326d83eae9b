"""What tasks print on a node, over a wire that takes its time, that is cut, and of two nodes at once."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.figures import patient
from tests.lab import faults
from tests.lab.lab import until
from tests.lab.notebook import Notebook

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(180)]

DELAY = 0.05
PROMPT = 1.0
"""Seconds from a worker's print to the notebook's page, of 95 lines in a hundred."""
TICKS = """
import socket, time
def ticks(n):
    for i in range(n):
        print("at", time.time(), i)
        time.sleep(0.05)
"""


def arrivals(notebook, cell, number):
    """How much later than it was printed each of so many lines was on iopub."""
    late = []

    def heard():
        late.extend(time.time() - float(line.split()[1]) for line in cell.text.splitlines()[len(late) :])
        return len(late) >= number

    notebook.hear_until(heard)
    return late


@pytest.mark.alone
def test_lines_are_prompt_over_a_slow_wire(lab, notebook, figure):
    """With 50 ms each way it takes less than a second from a worker's print to the notebook, in 95 cases of 100."""
    notebook.do(TICKS)
    with faults.slow(lab, delay=DELAY):
        cell = notebook.send("future = hpc.submit(ticks, 60)")
        late = statistics.quantiles(arrivals(notebook, cell, 60), n=20)[-1]
    figure(f"with {DELAY * 1e3:.0f} ms each way a worker's print is in the notebook within {late:.2f} s (p95)")
    assert late < patient(PROMPT)


def test_a_cut_neither_loses_nor_doubles_a_line(lab, notebook):
    """The path is cut for a while, and the agent is killed: each line is shown once, in order, when it is back."""
    notebook.do(TICKS)
    cell = notebook.send("future = hpc.submit(ticks, 200)")
    notebook.hear_until(lambda: " 10\n" in cell.text)
    with faults.cut(lab):
        until(lambda: notebook.value("hpc.current().state") == "unreachable", why="the cut is noticed")
    faults.kill(faults.agents(lab))
    notebook.hear_until(lambda: " 199\n" in cell.text)
    assert [int(line.split()[2]) for line in cell.text.splitlines()] == list(range(200))
    assert notebook.value("len(future.logs().splitlines())") == "200"


def test_lines_of_two_nodes_name_them_and_stay(lab):
    """Each line says from which node it is; when the job is gone, a new kernel still reads them from the site's files."""
    notebook = Notebook(lab)
    notebook.up("--nodes 2")
    until(lambda: notebook.value("hpc.current().snapshot.counts.workers") == "2", why="both nodes have a worker")
    code = "import socket\ndef where(): print('I am on', socket.gethostname())\n"
    code += "futures = [hpc.task(where=node)(where)() for node in ('node1', 'node2')]\nhpc.barrier()"
    cell = notebook.do(code)
    notebook.hear_until(lambda: len(cell.text.splitlines()) == 2)
    lines = sorted(line.partition(" on ")[2] for line in cell.text.splitlines())
    assert lines == [f"{node}: I am on {node}" for node in ("node1", "node2")]
    notebook.do("%hpc down", 120)
    notebook.close()
    notebook = Notebook(lab)
    assert notebook.do("%hpc logs where --node node2").text.splitlines()[1:] == ["I am on node2"]
    notebook.close()
