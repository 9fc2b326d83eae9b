"""How long a trivial cell takes with `%%hpc` on the embedded site and with ipyparallel's `%%px`, in turns."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator

import pytest
from jupyter_client.manager import start_new_kernel

from tests.isolation import Isolation

GOAL = 1.0
ROUNDS = 40
SETUP = """
%load_ext hpcnb
%hpc up --name bench-cell
import ipyparallel
cluster = ipyparallel.Cluster(n=1, log_level=40)
client = cluster.start_and_connect_sync()
view = client[:]
view.block = True
view.activate()
get_ipython().run_cell_magic("px", "", "1")
get_ipython().run_cell_magic("hpc", "", "1")
"""
CELLS = {"a value": "1 + 1", "a line": "print('x')", "a name": "here = 1\nhere"}
MEASURE = """
import time
def round_trip(magic, cell):
    began = time.perf_counter()
    get_ipython().run_cell_magic(magic, "", cell)
    return time.perf_counter() - began
"""


class Notebook:
    """A kernel in which both magics are."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")
        self.run(SETUP)
        self.run(MEASURE)

    def run(self, code: str) -> str:
        """Run a cell; return what it displays."""
        shown: list[str] = []

        def show(message):
            if message["msg_type"] == "execute_result":
                shown.append(message["content"]["data"]["text/plain"])

        reply = self.client.execute_interactive(code, output_hook=show, timeout=120)
        assert reply["content"]["status"] == "ok", reply["content"]
        return shown[-1] if shown else ""

    def whole(self, code: str) -> float:
        """Seconds from sending a cell to its idle message, as a front end sees it."""
        began = time.perf_counter()
        self.run(code)
        return time.perf_counter() - began

    def close(self) -> None:
        """End both."""
        self.run("client.close(); cluster.stop_cluster_sync()\n%hpc down")
        self.client.stop_channels()
        self.manager.shutdown_kernel()


@pytest.fixture
def notebook(isolated: Isolation) -> Iterator[Notebook]:
    """A notebook with a cluster of each kind."""
    notebook = Notebook()
    yield notebook
    notebook.close()


def report(name: str, times: dict[str, list[float]]) -> float:
    """Print medians; return their ratio."""
    ours, theirs = (statistics.median(times[magic]) * 1000 for magic in ("hpc", "px"))
    sys.stdout.write(f"\n{name:24} %%hpc {ours:6.1f} ms   %%px {theirs:6.1f} ms   ratio {ours / theirs:.2f}")
    return ours / theirs


def bench_cell(notebook: Notebook) -> None:
    """A cell there and back, through agent, link and TLS, takes no longer than ipyparallel's, which has none of them."""
    ratios = []
    for name, cell in CELLS.items():
        inside: dict[str, list[float]] = {"hpc": [], "px": []}
        outside: dict[str, list[float]] = {"hpc": [], "px": []}
        for _ in range(ROUNDS):
            for magic in ("hpc", "px"):
                inside[magic].append(float(notebook.run(f"round_trip({magic!r}, {cell!r})")))
                outside[magic].append(notebook.whole(f"%%{magic}\n{cell}"))
        ratios += [report(f"{name}, the magic alone", inside), report(f"{name}, the whole cell", outside)]
    assert statistics.median(ratios) <= GOAL
