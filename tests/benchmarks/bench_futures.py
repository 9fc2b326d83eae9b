"""`hpc.submit` and `hpc.map` against a bare `distributed.Client` with stock settings, both with two local workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster

import hpcnb as hpc
from tests.benchmarks.ratio import compare
from tests.isolation import Isolation

GOAL = 1.0


@pytest.fixture(scope="module")
def stock() -> Iterator[Client]:
    """Dask as it comes."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def cluster(isolated: Isolation) -> Iterator[hpc.Cluster]:
    """Ours, on the embedded site."""
    with hpc.Cluster("local", name="bench-futures", workers_per_node=2, cores_per_worker=1) as cluster:
        cluster.wait_until_ready()
        yield hpc.use(cluster)


def no_op(x: int) -> int:
    """Nothing."""
    return x


def bench_submit(cluster: hpc.Cluster, stock: Client) -> None:
    """A lone task there and back takes no longer than with stock Dask."""

    def ours() -> None:
        for x in range(50):
            hpc.submit(no_op, x).result()

    def theirs() -> None:
        for x in range(50):
            stock.submit(no_op, x, pure=False).result()

    assert compare("50 times submit().result()", ours, theirs, turns=9, peer="distributed") <= GOAL


def bench_map(cluster: hpc.Cluster, stock: Client) -> None:
    """Ten thousand tasks that do nothing take no longer than with stock Dask."""
    numbers = range(10_000)
    ratio = compare(
        "map of 10,000 no-ops",
        lambda: hpc.gather(hpc.map(no_op, numbers)),
        lambda: stock.gather(stock.map(no_op, numbers, pure=False)),
        turns=3,
        peer="distributed",
    )
    assert ratio <= GOAL
