"""Workers in nodes: what Dask counts, and what a batch system gives."""

from __future__ import annotations

import math

from hpcnb.model import ClusterStatus


def workers_per_node(status: ClusterStatus) -> int:
    """As was asked for, or as there are."""
    spec = status.spec
    seen = status.counts.workers / max(1, len(status.jobs) - 1 + spec.resources.nodes)
    return spec.workers_per_node or max(1, round(seen))


def nodes_for(workers: int, status: ClusterStatus) -> int:
    """As many nodes as so many workers need."""
    return math.ceil(workers / workers_per_node(status))
