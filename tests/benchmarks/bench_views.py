"""What it costs to watch a hundred thousand tasks: in the scheduler above Dask itself, and in the kernel."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from distributed.diagnostics.plugin import SchedulerPlugin

import hpcnb as hpc
from hpcnb.notebook.work import Below
from tests.isolation import Isolation

MANY, SOME = 100_000, 20_000
KERNEL = 0.05
SCHEDULER = 0.02
"""Shares of one core."""


@pytest.fixture
def cluster(isolated: Isolation) -> Iterator[hpc.Cluster]:
    """Ours, on the embedded site."""
    with hpc.Cluster("local", name="bench-views", workers_per_node=2, cores_per_worker=1) as cluster:
        cluster.wait_until_ready()
        yield hpc.use(cluster)


def no_op(x: int) -> int:
    """Nothing."""
    return x


class Page:
    """Takes what would go to a front end, as a kernel writes it."""

    def __init__(self) -> None:
        self.messages = self.bytes = 0

    def publish(self, kind: str, content: Any, buffers: tuple[bytes, ...] = ()) -> None:
        """Count a message."""
        self.messages += 1
        self.bytes = len(json.dumps(content))


def timed(call: Callable[..., Any], took: list[float]) -> Callable[..., Any]:
    """A function that notes how long each of its calls has the processor."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        begun, inner = time.thread_time(), len(took)
        try:
            return call(*args, **kwargs)
        finally:
            del took[inner:]  # calls within this one
            took.append(time.thread_time() - begun)

    return timed


def watch(dask_scheduler: Any) -> None:
    """In the scheduler: note what its plugin for the views takes, call by call."""
    scheduler = dask_scheduler
    plugin = scheduler.plugins.pop("hpcnb-work")
    took, empty = scheduler.hpcnb_took = [], []
    for name in ("transition", "_enter", "_show_all"):
        setattr(plugin, name, timed(getattr(plugin, name), took))
    scheduler.stream_handlers["hpcnb-tally"] = timed(plugin._told, took)
    # Timing itself takes longer than most of what is timed. What it takes here is seen from a plugin that does nothing, behind ours;
    # before ours is another one, so that neither of the two finds less than the other in the processor's caches.
    for name, noted in (("before", []), ("hpcnb-work", took), ("behind", empty)):
        scheduler.plugins[name] = plugin if noted is took else SchedulerPlugin()
        if noted is not took:
            scheduler.plugins[name].transition = timed(scheduler.plugins[name].transition, noted)


def spent(dask_scheduler: Any) -> tuple[float, int, float]:
    """In the scheduler: what they have spent, in how many calls, and the whole process, both without the timing."""
    took, empty = dask_scheduler.hpcnb_took
    call, begun = SchedulerPlugin().transition, time.thread_time()
    for _ in range(10_000):
        call("key", "processing", "memory", stimulus_id="")
    bare = (time.thread_time() - begun) / 10_000
    timing = sum(empty) / max(1, len(empty)) - bare
    used = psutil.Process().cpu_times()
    return sum(took) - timing * len(took), len(took), used.user + used.system - 3 * sum(empty)


def run(cluster: hpc.Cluster, page: Page, kernel: list[float], **how: Any) -> None:
    """Run a hundred thousand calls, watched, and compare what the views cost with what they may."""
    client = cluster.client
    drawn, told, before, begun = page.messages, sum(kernel), client.run_on_scheduler(spent), time.perf_counter()
    hpc.wait(hpc.map(no_op, range(MANY), **how))
    lasted = time.perf_counter() - begun
    client.looks.settle(5.0)
    plugin, moves, process = (now - then for now, then in zip(client.run_on_scheduler(spent), before, strict=True))
    drawn, told = page.messages - drawn, sum(kernel) - told
    share = plugin / (process - plugin)
    print(
        f"\n{MANY:,} calls{'' if how else ' in batches'} in {lasted:.0f} s: the scheduler used {process:.1f} s for {moves:,} moves, {plugin:.3f} s of it for the views: "
        f"{share:.1%} above the rest, {plugin / lasted:.1%} of a core; the kernel {told:.2f} s for {drawn} drawings: {told / lasted:.1%} of a core; "
        f"the page {page.bytes / 1e3:.1f} kB, the timeline {len(cluster.timeline()._repr_html_()) / 1e3:.1f} kB"
    )
    assert drawn <= 5 * lasted + 5
    assert plugin / lasted <= SCHEDULER
    assert told / lasted <= KERNEL


def bench_the_work_view(cluster: hpc.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand calls that are watched live cost two hundredths of a core in the scheduler, a twentieth in the kernel."""
    client, page = cluster.client, Page()
    monkeypatch.setitem(hpc._SHOWN, "hpcnb.future.work", lambda _: Below(page))
    for function in (timed, watch, spent):
        function.__module__ = "__main__"  # the scheduler has no tests: they travel whole
    client.run_on_scheduler(watch)
    kernel: list[float] = []
    client._stream_handlers["hpcnb-work"] = timed(client.looks.told, kernel)
    run(cluster, page, kernel)
    run(cluster, page, kernel, batch_size=1)  # each a task of Dask's


def bench_short_calls(cluster: hpc.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of short calls, which travel in batches, is not slower for being counted call by call."""
    monkeypatch.setitem(hpc._SHOWN, "hpcnb.future.work", lambda _: Below(Page()))
    hpc.gather(hpc.map(no_op, range(10_000)))
    begun = time.perf_counter()
    hpc.gather(hpc.map(no_op, range(SOME)))
    print(f"\n{SOME:,} short calls, watched: {time.perf_counter() - begun:.2f} s (process {os.getpid()})")
