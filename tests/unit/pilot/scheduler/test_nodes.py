"""What the nodes do, in a summary of bounded size."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

from hpcnb.model import NodeLoad
from hpcnb.pilot import events
from hpcnb.pilot.scheduler import nodes


def worker(name, *, cpu=50.0, memory=1 << 30, limit=2 << 30):
    """A worker as Dask's scheduler knows it."""
    return SimpleNamespace(
        name=name, host="192.0.2.1", nthreads=2, memory_limit=limit, metrics={"cpu": cpu, "memory": memory}
    )


def test_what_a_node_does_is_the_sum_of_its_workers():
    """The node is in the workers' names, and may have dashes itself; other workers' hosts tell."""
    found = nodes.loads(
        [worker("0-n-1-0"), worker("0-n-1-1", cpu=150.0), worker("1-n2-0", limit=None), worker("tcp://x")]
    )
    assert found == [
        NodeLoad(name="n2", workers=1, cores=2, busy=0.5, memory=1 << 30),
        NodeLoad(name="n-1", workers=2, cores=4, busy=2.0, memory=2 << 30, limit=4 << 30),
        NodeLoad(name="192.0.2.1", workers=1, cores=2, busy=0.5, memory=1 << 30, limit=2 << 30),
    ]


def test_thousands_of_nodes_are_one_small_event(monkeypatch):
    """However many nodes there are, and whatever they are called, the event fits into one piece of a pipe; nothing is lost."""
    workers = {i: worker(f"0-{'x' * 100}{i}-0", cpu=99.9) for i in range(3000)}
    reading, writing = os.pipe()
    monkeypatch.setattr(events, "_descriptor", writing)
    publish = events.news("nodes", lambda: nodes.loads(workers.values()))
    publish()
    publish()  # nothing has changed
    os.close(writing)
    with os.fdopen(reading, "rb") as end:
        [line] = end.read().splitlines()
    said = json.loads(line)["nodes"]
    assert len(line) < events.LONGEST
    assert (said[-1]["name"], len(said)) == ("", nodes.MOST)


def test_the_last_line_is_the_sum():
    """Of nodes beyond the limit the sum is told."""
    found = nodes.loads(worker(f"0-n{i}-0") for i in range(100))
    assert [load.name for load in found[:3]] == ["n0", "n1", "n2"]
    assert found[-1].nodes == 100 - nodes.MOST + 1
    assert sum(load.cores for load in found) == 200
