"""A scheduler with the keeper, a worker, and a notebook's client."""

from __future__ import annotations

import sys

import pytest
from cloudpickle import cloudpickle
from distributed import Client, LocalCluster

from hpcnb import serializing
from hpcnb.future import batches, work
from hpcnb.kept import NotebookClient
from hpcnb.pilot.scheduler.greeting import greet_alone
from hpcnb.pilot.scheduler.history import History
from hpcnb.pilot.scheduler.keeper import Keeper
from hpcnb.pilot.scheduler.known import Known
from hpcnb.pilot.scheduler.once import Once
from hpcnb.pilot.scheduler.work import Work
from tests.site.account import until
from tests.unit.future.tasks import DEADLINE, gate


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """The worker is in this process: what it runs is the very function of the test, whose gate is no copy."""
    monkeypatch.setattr(serializing, "_is_own", lambda *_: False)
    for name in cloudpickle.list_registry_pickle_by_value():
        if name.startswith("tests.unit.future"):  # another test of this process has sent one of its own
            cloudpickle.unregister_pickle_by_value(sys.modules[name])


@pytest.fixture(autouse=True)
def _nobody_looks(monkeypatch):
    """Work is shown to those that a test names: an earlier one of this process may have used `hpc`, which shows all."""
    monkeypatch.setattr(work, "_show", lambda _: None)


@pytest.fixture(scope="module")
def dask_cluster():
    """A scheduler and a worker with two threads, all in this process."""
    # Dask's HTTP server comes without a dashboard, too, on a port that another test of this machine may have.
    anywhere = {"dashboard_address": "127.0.0.1:0"}
    options = {"processes": False, "protocol": "tcp://", "dashboard_address": None, "scheduler_kwargs": anywhere}
    with LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        for plugin in (Once, Keeper, Known):
            cluster.scheduler.add_plugin(plugin(cluster.scheduler))
        cluster.scheduler.add_plugin(Work(cluster.scheduler, History(cluster.scheduler)))
        greet_alone(cluster.scheduler)  # one client cancels while the next connects
        yield cluster


@pytest.fixture
def client(dask_cluster):
    """A notebook's client, and a worker that runs nothing of an earlier test, which would wait for this one's gate."""
    gate.clear()
    client = NotebookClient(dask_cluster)
    client.wait_until_connected()
    yield client
    gate.set()
    with Client(dask_cluster, set_as_default=False) as behind:  # all that the worker was sent before
        behind.submit(int, pure=False).result(DEADLINE)
    (worker,) = dask_cluster.workers.values()
    until(lambda: not worker.state.all_running_tasks)
    client.close()


@pytest.fixture
def submit(client):
    """`hpc.submit`, to that client."""

    def submit(fn, *args, key=None, tag="", retries=None, **kwargs):
        return batches.send(client, fn, args, kwargs, key=key, tag=tag, retries=retries)

    return submit
