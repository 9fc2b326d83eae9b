"""What a client says in the moment in which its connection breaks, to a real scheduler."""

from __future__ import annotations

import contextlib
import time

import pytest
from distributed import LocalCluster
from distributed import versions as version_module

from hpcnb.future import batches
from hpcnb.kept import NotebookClient
from hpcnb.pilot.scheduler.keeper import Keeper
from hpcnb.pilot.scheduler.once import Once
from tests.isolation import until

RUNS: list[int] = []


def noted(number):
    """Note that it ran; the worker is in this process."""
    RUNS.append(number)
    return number


@pytest.fixture
async def cluster():
    """A scheduler and a worker in this process, connected as if they were not."""
    anywhere = {"dashboard_address": "127.0.0.1:0"}
    options = {"processes": False, "protocol": "tcp://", "dashboard_address": None, "scheduler_kwargs": anywhere}
    async with LocalCluster(n_workers=1, threads_per_worker=1, asynchronous=True, **options) as cluster:
        for plugin in (Once, Keeper):
            cluster.scheduler.add_plugin(plugin(cluster.scheduler))
        yield cluster


@pytest.fixture
async def client(cluster):
    """A notebook's client."""
    RUNS.clear()
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(NotebookClient(cluster))


async def back(client, before):
    """Wait until it has another connection than that one."""
    await until(lambda: client.status == "running" and client.id != before)


def waiting(client):
    """What is not known to have been heard."""
    return len(client._said._unheard)


@pytest.mark.parametrize("moment", ["before it is sent", "while it is sent", "when it was sent"])
async def test_nothing_said_is_lost_and_nothing_is_heard_twice(cluster, client, moment):
    """Calls, in order, that were submitted just before a cut, with it, and behind it, run once each."""
    futures = []
    for cut in range(5):
        before, comm = client.id, client.scheduler_comm
        if moment == "before it is sent":  # with nobody who knows yet
            client.loop.add_callback(comm.comm.abort)
        futures += client.map(noted, range(10 * cut, 10 * cut + 10), pure=False)
        if moment == "while it is sent":
            client.loop.add_callback(comm.comm.abort)
        elif moment == "when it was sent":
            await until(lambda cut=cut: len(RUNS) > 10 * cut)
            comm.comm.abort()
        futures += client.map(noted, [-1 - cut], pure=False)
        await back(client, before)
    assert await client.gather(futures) == [
        future for cut in range(5) for future in (*range(10 * cut, 10 * cut + 10), -1 - cut)
    ]
    assert sorted(RUNS) == sorted([*range(50), *range(-5, 0)])
    await until(lambda: not waiting(client))


async def test_what_is_cancelled_or_dropped_in_a_cut_is(cluster, client):
    """The scheduler hears of both over the next connection: nothing runs, or is kept, that nobody wants any more."""
    first, second = client.map(noted, range(2), pure=False)
    await client.gather([first, second])
    before, keys = client.id, [first.key, second.key]
    client.loop.add_callback(client.scheduler_comm.comm.abort)
    await client.cancel([first])
    del second
    await back(client, before)
    await until(lambda: not any(key in cluster.scheduler.tasks for key in keys))
    await until(lambda: not waiting(client))


async def test_what_was_heard_is_forgotten(client):
    """What the client remembers does not grow with what it says."""
    for number in range(200):
        assert await client.submit(noted, number, pure=False) == number
    await until(lambda: not waiting(client))


async def test_a_scheduler_that_takes_it_back_no_more(client, monkeypatch):
    """The scheduler's reason ends what waits, and nobody waits for ever."""
    held = batches.send(client, time.sleep, [0.2], {})
    monkeypatch.setattr(version_module, "error_message", lambda *_: {"error": "by its rules"})
    client.scheduler_comm.comm.abort()
    with pytest.raises(ImportError, match="by its rules"):
        await held
    await until(lambda: client.status == "closed")
