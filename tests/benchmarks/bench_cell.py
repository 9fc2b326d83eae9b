"""How long a trivial cell takes with `%%hpc` and with ipyparallel's `%%px`, in turns (``python tests/benchmarks/bench_cell.py``)."""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import start_new_kernel

from tests.unit.pilot.host import HostProcess, make_run_dir

ROUNDS = 40
SETUP = """
import ipyparallel
cluster = ipyparallel.Cluster(n=1, log_level=40)
client = cluster.start_and_connect_sync()
view = client[:]
view.block = True
view.activate()
get_ipython().run_cell_magic("px", "", "1")
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

    def __init__(self, host: HostProcess) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")
        self.run(f"from tests.acceptance.plug import plug; plug({host.address!r}, {str(host.run_dir)!r})")
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
        self.run("client.close(); cluster.stop_cluster_sync()")
        self.client.stop_channels()
        self.manager.shutdown_kernel()


def report(name: str, times: dict[str, list[float]]) -> None:
    """Print medians and their ratio."""
    ours, theirs = (statistics.median(times[magic]) * 1000 for magic in ("hpc", "px"))
    quick = {magic: min(seconds) * 1000 for magic, seconds in times.items()}
    sys.stdout.write(
        f"{name:24} %%hpc {ours:6.1f} ms (best {quick['hpc']:5.1f})   %%px {theirs:6.1f} ms (best {quick['px']:5.1f})"
        f"   ratio {ours / theirs:.2f}\n"
    )


def main() -> None:
    """Measure in turns, so that a noisy machine is unfair to neither."""
    with contextlib.ExitStack() as stack:
        host = HostProcess(make_run_dir(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        stack.callback(host.end)
        notebook = Notebook(host)
        stack.callback(notebook.close)
        for name, cell in CELLS.items():
            inside: dict[str, list[float]] = {"hpc": [], "px": []}
            outside: dict[str, list[float]] = {"hpc": [], "px": []}
            for _ in range(ROUNDS):
                for magic in ("hpc", "px"):
                    inside[magic].append(float(notebook.run(f"round_trip({magic!r}, {cell!r})")))
                    outside[magic].append(notebook.whole(f"%%{magic}\n{cell}"))
            report(f"{name}, the magic alone", inside)
            report(f"{name}, the whole cell", outside)


if __name__ == "__main__":
    InteractiveShell.clear_instance()
    main()
