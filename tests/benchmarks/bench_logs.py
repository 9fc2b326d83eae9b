"""Lines from a task to the notebook's kernel, through agent, link and TLS, against `distributed.print` without any of them."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest
from distributed import Client, LocalCluster

from tests.acceptance.conftest import Kernel, notebook_at_work
from tests.benchmarks.ratio import ratio

LINES = 100_000
FEWER = 10_000
"""With `distributed.print`, which takes its time."""
TEXT = "a line of the length that lines of a log have, number"
FASTER = 10
PER_BYTE = 1.5
SETUP = f"""
import time
arrived = [0]
printed = hpc.current().client.printed
def take(entries, **more):
    arrived[0] += sum(entry[5].count(b"\\n") for entry in entries if not entry[6])
    printed.take(entries=entries, **more)
hpc.current().client._stream_handlers["hpcnb-lines"] = take
def flood(n):
    for i in range(n): print({TEXT!r}, i)
def measure():
    arrived[0], began = 0, time.perf_counter()
    hpc.submit(flood, {LINES})
    while arrived[0] < {LINES} and time.perf_counter() < began + 60: time.sleep(0.001)
    print("seconds", time.perf_counter() - began, arrived[0])
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Kernel]:
    """A notebook with a cluster of one worker."""
    with notebook_at_work(tmp_path) as notebook:
        yield notebook


def theirs(n: int) -> None:
    """A task that prints as Dask has it."""
    for i in range(n):
        distributed.print(TEXT, i)


def stock(client: Client) -> float:
    """Seconds until so many lines have been printed here."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        began = time.perf_counter()
        client.submit(theirs, FEWER, pure=False).result()
        while out.getvalue().count("\n") < FEWER and time.perf_counter() < began + 60:
            time.sleep(0.01)
    return (time.perf_counter() - began) * LINES / FEWER


def ours(notebook: Kernel) -> tuple[float, float]:
    """Seconds until so many lines are in the kernel, and bytes on iopub for each byte of text."""
    cell = notebook.run("measure()")
    assert cell.reply["status"] == "ok", cell.outputs
    said = [content["text"] for kind, content in cell.outputs if kind == "stream" and "seconds" in content["text"]]
    seconds, arrived = said[-1][said[-1].index("seconds") :].split()[1:3]
    assert int(arrived) == LINES
    text = sum(len(f"{TEXT} {i}\n") for i in range(LINES))
    return float(seconds), sum(len(json.dumps(content)) + 1000 for _, content in cell.outputs) / text


def bench_lines(notebook: Kernel) -> None:
    """A hundred thousand lines arrive ten times as fast as with `distributed.print`, and do not flood the page."""
    notebook.run(SETUP)
    ours(notebook)
    measured = [ours(notebook) for _ in range(3)]
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        stock(client)
        bare = [stock(client) for _ in range(3)]
    print(f"\nbytes on iopub per byte of text: {max(share for _, share in measured):.3f}")
    assert max(share for _, share in measured) <= PER_BYTE
    assert ratio(f"{LINES:,} lines", [s for s, _ in measured], bare, peer="distributed.print") <= 1 / FASTER
