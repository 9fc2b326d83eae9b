"""What a future says of itself: where it runs, how often it was begun, why it is not done."""

from __future__ import annotations

import pytest

import hpcnb as hpc
from hpcnb.future import batches
from hpcnb.future.why import node_of, why
from hpcnb.kept import NotebookClient
from tests.isolation import until
from tests.unit.future.tasks import DEADLINE, fails, gate, waits

KNOWN = {
    "state": "",
    "worker": "0-node1-2",
    "attempts": 1,
    "needs": 0,
    "first": [],
    "asks": {},
    "deaths": [],
    "before": [],
}


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"state": "executing"}, "fit runs on worker 0-node1-2 of job 17"),
        ({"state": "executing", "attempts": 2}, "fit runs on worker 0-node1-2 of job 17, attempt 2"),
        ({"state": "processing"}, "fit is with worker 0-node1-2 of job 17, and runs there as soon as a core is free"),
        (
            {"state": "processing", "before": ["load", "fit"]},
            "fit is with worker 0-node1-2 of job 17, and runs there as soon as a core is free: it is at work on load, fit",
        ),
        ({"state": "waiting", "needs": 4, "first": ["a", "b", "c"]}, "fit waits for 4 other calls: a, b, c, …"),
        ({"state": "queued"}, "fit waits for a free core: all are at work"),
        ({"state": "no-worker", "asks": {"gpus": 2.0}}, "no worker that there is may run fit: it asks for 2 gpus"),
        ({"state": "memory"}, "fit has finished on worker 0-node1-2 of job 17"),
        ({"state": "erred"}, "fit has failed on worker 0-node1-2 of job 17"),
        (
            {"state": "executing", "deaths": ["its worker a died", "its worker b was killed by SIGKILL"]},
            "fit runs on worker 0-node1-2 of job 17; its worker b was killed by SIGKILL",
        ),
        ({"state": "forgotten"}, "the cluster knows nothing of fit (any more)"),
    ],
)
def test_how_it_is_said(known, said):
    """Each state has its words, with what a user can do something about."""
    assert why("fit", KNOWN | known, job="17") == said


def test_a_worker_is_named_after_its_node():
    """Whatever the node is called."""
    assert node_of("0-node-a-1-2") == "node-a-1"
    assert node_of("alien") == ""


async def test_what_a_future_says(submit, client):
    """While it runs, while it waits for another one or for a core, when it is done, cancelled or has failed."""
    runs = submit(waits, 1)
    after = submit(abs, runs)
    await until(lambda: runs.why().startswith("waits runs on worker 0"))
    assert after.why() == f"abs waits for 1 other calls: {runs.key}"
    assert (runs.worker, runs.attempts, runs.job_id) == ("0", 1, "")
    assert (after.worker, after.attempts) == ("", 0)
    gate.set()
    assert hpc.gather([after, runs]) == [1, 1]
    assert runs.why() == "waits has finished on worker 0"
    failed = submit(fails, retries=1)
    assert "ValueError: as it should" in failed.traceback(DEADLINE)
    assert failed.why() == "fails has failed: ValueError: as it should"
    assert failed.attempts == 2
    assert runs.traceback() == ""
    gate.clear()
    held = submit(waits)
    held.cancel()
    assert held.why() == "waits was cancelled"


def test_before_there_is_anybody_to_ask(dask_cluster):
    """What is not sent yet says so."""
    client = NotebookClient(dask_cluster)
    client.wait_until_connected()
    client.status = "connecting"
    future = batches.send(client, abs, [-1], {})
    assert future.why() == "abs is not sent yet: nobody is connected"
    assert (future.worker, future.job_id, future.attempts) == ("", "", 0)
    client.status = "running"
    client.close()


async def test_what_the_scheduler_has_not_read_yet_is_on_its_way(submit, client, monkeypatch):
    """It reads what is submitted in a thread of its own; asked before that, it knows nothing of it."""
    runs = submit(waits, 2)
    monkeypatch.setattr(client, "known", lambda key: KNOWN | {"state": "forgotten", "worker": ""})
    assert runs.why() == "waits is on its way to the scheduler"
    gate.set()
    assert hpc.gather([runs]) == [2]
