"""Persistent queues over the REST interface of the Jupyter server's extension: the same queues that the command line has."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from hpcnb.queue.desk import Here
from hpcnb.queue.queue import Queue
from hpcnb.server.aside import MOST
from tests.site.account import until

pytestmark = pytest.mark.slow


def made(jupyter, name):
    """A queue of the server's user."""
    desk = Here("local", jupyter.folder / "home")
    desk("create", name=name)
    return Queue(desk, name)


@pytest.fixture(scope="module")
def queue(jupyter):
    """A queue of five tasks, one of which fails and one of which is markup and control characters."""
    made(jupyter, "extract").add_multiple(["true", "false", "echo '<b>3</b>\x1b[31m'", "true", "true"])
    return "queues/extract"


def test_queues_over_rest(jupyter, api, queue):
    """Listed with their counts, tasks by the page, paused and resumed, drained by a job, what failed tried again."""
    (listed,) = api.get("queues").json()["queues"]
    assert (listed["name"], listed["state"], listed["ntasks"]["Pending"]) == ("extract", "Active", 5)
    first = api.get(f"{queue}/tasks", params={"most": 3}).json()
    rest = api.get(f"{queue}/tasks", params={"most": 3, "after": first["next"]}).json()
    assert [one["id"] for one in first["tasks"] + rest["tasks"]] == [1, 2, 3, 4, 5]
    assert (first["next"], rest["next"], first["tasks"][2]["task"]) == (3, None, "echo '<b>3</b>\x1b[31m'")

    assert api.post(f"{queue}/pause").json()["state"] == "Paused"
    assert json.loads(jupyter.command("queue", "list", "--json"))[0]["state"] == "Paused"
    assert api.post(f"{queue}/resume").json()["state"] == "Active"

    launched = api.post(f"{queue}/launch", json={"jobs": 1, "wishes": {"walltime": "10m"}})
    assert (launched.status_code, len(launched.json()["jobs"])) == (201, 1), launched.text
    until(lambda: api.get(queue).json()["ntasks"]["Succeeded"] == 4)
    until(lambda: api.get(queue).json()["ntasks"]["Failed"] == 1)
    (failed,) = api.get(f"{queue}/tasks", params={"state": "Failed"}).json()["tasks"]
    assert failed["task"] == "false"
    log = api.get(f"{queue}/tasks/3/log").json()
    assert (log["text"], log["attempt"], log["state"], log["out"]) == ("<b>3</b>\x1b[31m\n", 1, "Succeeded", 14)
    assert log["attempts"] == [{"number": 1, "state": "Succeeded", "error": None}]
    assert api.get(f"{queue}/tasks/3/log", params={"out": 10, "err": 0}).json()["text"] == "31m\n"
    missing = api.get(f"{queue}/tasks/3/log", params={"attempt": 2})
    assert (missing.status_code, "has no attempt 2" in missing.json()["message"]) == (409, True)
    assert api.post(f"{queue}/retry").json() == {"retried": 1}


def test_a_wish_that_cannot_be_400(api, queue):
    """A job that cannot be asked for is refused with the reason, and nothing is submitted."""
    said = api.post(f"{queue}/launch", json={"wishes": {"walltime": "soon"}})
    assert (said.status_code, "'soon' is not a duration" in said.json()["message"]) == (400, True)
    for asked, why in (
        ({"queued": "two"}, "a whole number"),
        ({"jobs": 3, "queued": 0}, "queued= says how many"),
        ({"core_hours": 1e6, "wishes": {"cores_per_node": 4, "nodes": 1}}, "are more than one job can have here"),
    ):
        said = api.post(f"{queue}/launch", json=asked)
        assert (said.status_code in (400, 409), why in said.json()["message"]) == (True, True), said.text


@pytest.fixture
def stopped(jupyter, api):
    """A queue whose owner drains it, and is stopped; it goes on when called."""
    made(jupyter, "stopped").add("sleep 600")
    code = "from hpcnb.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "queue", "do", "stopped"],
        env=os.environ | jupyter.environ,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: api.get("queues/stopped").json()["ntasks"]["Running"] == 1)
    os.kill(process.pid, signal.SIGSTOP)
    yield lambda: os.kill(process.pid, signal.SIGCONT)
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def test_nothing_blocks_the_server(api, stopped):
    """While a queue's owner does not answer, the server does, and whoever comes when too many wait is told so."""
    with ThreadPoolExecutor(MOST + 1) as pool:
        asked = [pool.submit(api.post, "queues/stopped/pause") for _ in range(MOST + 1)]
        until(lambda: any(one.done() for one in asked))
        (refused,) = [one for one in asked if one.done()]
        assert api.get("sites").status_code == 200
        stopped()
    assert refused.result().status_code == 409
    assert "are under way already" in refused.result().json()["message"]
    assert [one.result().json()["state"] for one in asked if one is not refused] == ["Paused"] * MOST
