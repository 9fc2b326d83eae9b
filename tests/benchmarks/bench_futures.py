"""`hpc.submit` and `hpc.map` against a bare `distributed.Client` with stock settings, both with two local workers."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import psutil
import pytest
from distributed import Client, LocalCluster

import hpcnb as hpc
from tests.benchmarks.ratio import compare, ratio, seconds
from tests.isolation import Isolation

LONE = 0.8
MANY = 1 / 15
MILLION = 1.3


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


def ours(number: int) -> None:
    """Map so many of them, and have all results."""
    assert len(hpc.gather(hpc.map(no_op, range(number)))) == number


def theirs(stock: Client, number: int) -> None:
    """The same with stock Dask."""
    assert len(stock.gather(stock.map(no_op, range(number), pure=False))) == number


def resident(pid: int) -> float:
    """Memory of a process, in MB."""
    return psutil.Process(pid).memory_info().rss / 1e6


def bench_submit(cluster: hpc.Cluster, stock: Client) -> None:
    """A lone task there and back takes no more than four fifths of the time with stock Dask."""

    def lone() -> None:
        for x in range(50):
            hpc.submit(no_op, x).result()

    def stocks() -> None:
        for x in range(50):
            stock.submit(no_op, x, pure=False).result()

    assert compare("50 times submit().result()", lone, stocks, turns=9, peer="distributed") <= LONE


def bench_map(cluster: hpc.Cluster, stock: Client) -> None:
    """Ten thousand tasks that do nothing take a fifteenth of the time with stock Dask, the first time, too."""
    first = seconds(lambda: ours(10_000))
    measured = compare(
        "map of 10,000 no-ops", lambda: ours(10_000), lambda: theirs(stock, 10_000), turns=3, peer="distributed"
    )
    print(f"the first time, when nothing is known of the function: {first * 1e3:.1f} ms")
    assert measured <= MANY


def bench_map_of_a_hundred_thousand(cluster: hpc.Cluster, stock: Client) -> None:
    """So do a hundred thousand; stock Dask is measured once, for it takes minutes."""
    mine = [seconds(lambda: ours(100_000)) for _ in range(3)]
    bare = [seconds(lambda: theirs(stock, 100_000))]
    assert ratio("map of 100,000 no-ops", mine, bare, peer="distributed") <= MANY


def bench_a_million(cluster: hpc.Cluster) -> None:
    """A million cost no more per task than ten thousand, and memory that is bounded on both sides."""
    scheduler = cluster.client.run_on_scheduler(os.getpid)
    ours(10_000)
    few = [seconds(lambda: ours(10_000)) * 100 for _ in range(5)]
    gc.collect()
    before = resident(os.getpid()), resident(scheduler)
    many = [seconds(lambda: ours(1_000_000))]
    futures = hpc.map(no_op, range(1_000_000))
    assert sum(hpc.gather(futures)) == sum(range(1_000_000))
    client, there = (now - then for now, then in zip((resident(os.getpid()), resident(scheduler)), before, strict=True))
    print(f"\na million futures with their results: client {client:+.0f} MB, scheduler {there:+.0f} MB")
    assert client < 500
    assert there < 100
    assert ratio("a million no-ops, per task", many, few, peer="ten thousand a hundred times") <= MILLION
