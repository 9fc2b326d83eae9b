"""Who connects to a real scheduler in the moment in which somebody cancels something."""

from __future__ import annotations

import asyncio
import functools

import pytest
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import SchedulerPlugin

from hpcnb.kept import NotebookClient
from hpcnb.pilot.scheduler.greeting import greet_alone
from hpcnb.pilot.scheduler.once import Once
from tests.isolation import until


def cancel(scheduler):
    """Cancel, as for some client, what is there no longer: all clients are told."""
    somebody = next(iter(scheduler.clients))
    scheduler.stimulus_cancel(keys=["a"], client=somebody, force=False, reason="as told", msg="")


class Cancels(SchedulerPlugin):
    """Cancels something when a client was entered in the scheduler's books, and has read nothing yet."""

    def add_client(self, scheduler, client):
        asyncio.get_running_loop().call_soon(cancel, scheduler)


@pytest.mark.parametrize(
    "client",
    [NotebookClient, functools.partial(Client, asynchronous=True, set_as_default=False)],
    ids=["ours", "Dask's"],
)
async def test_a_client_connects_while_something_is_cancelled(client):
    """It is not told, and connects; it is told what is cancelled after that."""
    anywhere = {"dashboard_address": "127.0.0.1:0"}
    options = {"protocol": "tcp://", "dashboard_address": None, "scheduler_kwargs": anywhere}
    async with LocalCluster(n_workers=0, asynchronous=True, **options) as cluster:
        for plugin in (Once(cluster.scheduler), Cancels()):
            cluster.scheduler.add_plugin(plugin)
        greet_alone(cluster.scheduler)
        heard = []
        async with client(cluster) as connected:
            connected._stream_handlers["cancelled-keys"] = lambda **told: heard.append(told["reason"])
            cancel(cluster.scheduler)
            await until(lambda: heard)
            assert heard == ["as told"]
