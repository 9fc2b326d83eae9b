"""Workers in nodes: what Dask counts, and what a batch system gives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from distributed.deploy.adaptive import Adaptive

from hpcnb.model import ClusterStatus, JobState


class Nodewise(Adaptive):
    """Dask's adaptivity, which leaves to the cluster which of its workers go: a node comes and goes as a whole."""

    cluster: Any

    @property
    def observed(self) -> set[Any]:
        """As many as there are: of their names the scheduler tells one client of a cluster alone, the last."""
        return set(range(self.cluster.snapshot.counts.workers))

    plan = requested = observed

    async def scale_up(self, n: Any) -> None:
        await self.cluster.scale_up(n)

    async def scale_down(self, workers: Any) -> None:
        await self.cluster.scale_down(workers)


def workers_per_node(status: ClusterStatus) -> int:
    """As was asked for, or as there are."""
    spec = status.spec
    running = sum(job.state is JobState.RUNNING for job in status.jobs[1:])
    return spec.workers_per_node or max(1, round(status.counts.workers / (spec.resources.nodes + running)))


def nodes_for(workers: int, status: ClusterStatus) -> int:
    """As many nodes as so many workers need."""
    return math.ceil(workers / workers_per_node(status))


def leaving(names: Iterable[str], nodes: int, status: ClusterStatus) -> list[str]:
    """The workers that go when so many nodes stay: those of the allocations that came last.

    A worker's name begins with the number of its allocation; 0 is the first one, which stays.
    """
    allocation = {name: int(name.partition("-")[0]) for name in names if name.partition("-")[0].isdecimal()}
    added = sorted(set(allocation.values()) - {0})
    go = added[max(0, nodes - status.spec.resources.nodes) :]
    return [name for name, number in allocation.items() if number in go]
