"""What the workers of each node do: a summary of bounded size, however many there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from distributed.scheduler import WorkerState

from hpcnb.model import NodeLoad

MOST = 20
"""Nodes that have a line of their own; the others share one, so that an event stays small."""
LONGEST = 40
"""Characters of a node's name."""
STEP = 16 << 20
"""Bytes to which memory is rounded: what hardly changes is no news."""


def loads(workers: Iterable[WorkerState]) -> list[NodeLoad]:
    """What each node does, by name; beyond `MOST` the last one is the sum of all others."""
    nodes: dict[str, list[WorkerState]] = {}
    for worker in workers:
        nodes.setdefault(node_of(worker), []).append(worker)
    each = [_load(name, nodes[name]) for name in sorted(nodes, key=lambda name: (len(name), name))]
    return each if len(each) <= MOST else [*each[: MOST - 1], _sum(each[MOST - 1 :])]


def node_of(worker: WorkerState) -> str:
    """The node in a worker's name, which is ``ALLOCATION-NODE-NUMBER``."""
    return "-".join(str(worker.name).split("-")[1:-1]) or str(worker.host)


def _load(name: str, workers: Collection[WorkerState]) -> NodeLoad:
    memory = sum(worker.metrics.get("memory", 0) for worker in workers)
    return NodeLoad(
        name=name[:LONGEST],
        workers=len(workers),
        cores=sum(worker.nthreads for worker in workers),
        busy=round(sum(worker.metrics.get("cpu", 0) for worker in workers) / 100, 1),
        memory=round(memory / STEP) * STEP,
        limit=sum(worker.memory_limit or 0 for worker in workers),
    )


def _sum(nodes: Collection[NodeLoad]) -> NodeLoad:
    fields = (f.name for f in dataclasses.fields(NodeLoad) if f.name != "name")
    total = {field: sum(getattr(node, field) for node in nodes) for field in fields}
    return NodeLoad(name="", **total | {"busy": round(total["busy"], 1)})
