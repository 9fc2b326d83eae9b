"""What it costs to watch a hundred thousand tasks: in the scheduler above Dask itself, and in the kernel."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

import hpcnb as hpc
from hpcnb.notebook.work import Below
from tests.isolation import Isolation

NUMBER = 20_000
KERNEL = 0.05
SCHEDULER = 0.02
SLICE = 0.002
"""Seconds that no call takes by itself."""


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
    """A function that notes how long each of its calls takes."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        begun, inner = time.perf_counter(), len(took)
        try:
            return call(*args, **kwargs)
        finally:
            del took[inner:]  # calls within this one
            took.append(time.perf_counter() - begun)

    return timed


def cost(took: list[float], timing: float = 0.0) -> float:
    """Their sum, without those in which something else had the processor, and without the timing itself."""
    return sum(one - timing for one in took if one < SLICE)


def timing() -> float:
    """What `timed` itself adds to what it notes."""

    def nothing(*args: Any, **more: Any) -> None:
        """As often as the plugin is called."""

    took: list[float] = []
    noted, begun = timed(nothing, took), time.perf_counter()
    for _ in range(1000):
        nothing("key", "processing", "memory", stimulus_id="")
    bare = (time.perf_counter() - begun) / 1000
    for _ in range(1000):
        noted("key", "processing", "memory", stimulus_id="")
    return max(0.0, sorted(took)[500] - bare)


def watch(dask_scheduler: Any) -> None:
    """In the scheduler: note what its plugin for the views takes, call by call."""
    plugin = dask_scheduler.plugins["hpcnb-work"]
    took = dask_scheduler.hpcnb_took = []
    for name in ("transition", "_enter", "_show_all"):
        setattr(plugin, name, timed(getattr(plugin, name), took))
    dask_scheduler.stream_handlers["hpcnb-tally"] = timed(plugin._told, took)


def spent(dask_scheduler: Any) -> tuple[float, float]:
    """In the scheduler: what they have spent, and the whole process."""
    used = psutil.Process().cpu_times()
    return cost(dask_scheduler.hpcnb_took, min(timing() for _ in range(5))), used.user + used.system


def bench_the_work_view(cluster: hpc.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watched live, single tasks cost the scheduler two hundredths more than unwatched ones, and the kernel a twentieth of a core."""
    client, page = cluster.client, Page()
    monkeypatch.setitem(hpc._SHOWN, "hpcnb.future.work", lambda _: Below(page))
    for function in (timed, timing, cost, watch, spent):
        function.__module__ = "__main__"  # the scheduler has no tests: they travel whole
    client.run_on_scheduler(watch)
    kernel: list[float] = []
    client._stream_handlers["hpcnb-work"] = timed(client.looks.told, kernel)
    before, begun = client.run_on_scheduler(spent), time.perf_counter()
    hpc.wait(hpc.map(no_op, range(NUMBER), batch_size=1))
    lasted = time.perf_counter() - begun
    client.looks.settle(5.0)
    plugins, process = (now - then for now, then in zip(client.run_on_scheduler(spent), before, strict=True))
    share = plugins / (process - plugins)
    print(
        f"\n{NUMBER:,} tasks in {lasted:.0f} s: the scheduler used {process:.1f} s, {plugins:.2f} s of it for the views: "
        f"{share:.1%} above the rest, {plugins / lasted:.1%} of a core; the kernel {cost(kernel):.2f} s for {page.messages} drawings: {cost(kernel) / lasted:.1%} of a "
        f"core; the page {page.bytes / 1e3:.1f} kB, the timeline {len(cluster.timeline()._repr_html_()) / 1e3:.1f} kB"
    )
    assert page.messages <= 5 * lasted + 5
    assert share <= SCHEDULER
    assert cost(kernel) / lasted <= KERNEL


def bench_short_calls(cluster: hpc.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of short calls, which travel in batches, is not slower for being counted call by call."""
    monkeypatch.setitem(hpc._SHOWN, "hpcnb.future.work", lambda _: Below(Page()))
    hpc.gather(hpc.map(no_op, range(10_000)))
    begun = time.perf_counter()
    hpc.gather(hpc.map(no_op, range(NUMBER)))
    print(f"\n{NUMBER:,} short calls, watched: {time.perf_counter() - begun:.2f} s (process {os.getpid()})")
