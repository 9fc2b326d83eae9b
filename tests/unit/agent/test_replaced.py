"""Agents come and go, a real cluster on this machine goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest

import hpcnb
from hpcnb.agent.client import AgentClient, nobody_to_ask
from hpcnb.model import ClusterSpec, Reason, Resources, State
from tests.isolation import until
from tests.unit.pilot.tiny import alive

pytestmark = pytest.mark.slow

ID = "0123456789abcdef"


class Follower:
    """A client that follows one cluster."""

    def __init__(self, isolated):
        spec = ClusterSpec(
            site="local", name="fit", resources=Resources(), workers_per_node=1, directory=str(isolated.folder)
        )
        self.spec = spec.to_json()
        self.client = AgentClient(nobody_to_ask)
        self.statuses = []
        self.client.listen(ID, self.statuses.append)

    async def up(self):
        """Have the cluster up."""
        await self.client.call("create", id=ID, spec=self.spec)
        await self.client.call("attach", id=ID)
        await self.reach(State.READY)

    async def reach(self, state):
        """Wait until the last thing heard is a state."""
        await until(lambda: self.statuses and self.statuses[-1].state is state, deadline=40)

    async def agent(self):
        """The pid of the agent."""
        return (await self.client.call("hello", version=hpcnb.__version__))["pid"]

    async def kill_agent(self):
        """End the agent without a word, and wait until it is gone."""
        pid = await self.agent()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
        self.statuses.clear()


@pytest.fixture
async def follower(isolated):
    """A client with a cluster that is up."""
    made = Follower(isolated)
    await made.up()
    yield made
    await made.client.close()


def pilots(isolated):
    """The pilots that run."""
    return [pid for pid, words in running(isolated) if "hpcnb.pilot" in words]


def running(isolated):
    """What runs, and by which words."""
    found = []
    for process in isolated.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append((process.pid, process.cmdline()))
    return found


async def test_a_cluster_survives_its_agent(follower, isolated):
    """A killed agent takes no cluster along: the next one finds it, and it is ready, and ends when told to."""
    (pilot,) = pilots(isolated)
    await follower.kill_agent()
    assert pilots(isolated) == [pilot]
    await follower.client.call("list")
    await follower.reach(State.READY)
    assert pilots(isolated) == [pilot]
    assert follower.statuses[-1].counts.workers == 1
    await follower.client.call("close", id=ID)
    await follower.reach(State.ENDED)
    assert follower.statuses[-1].ending.reason is Reason.COMPLETED
    await until(lambda: not pilots(isolated))
    assert not list(isolated.home.rglob("*.key"))


async def test_an_agent_that_dies_while_a_cluster_ends(follower, isolated):
    """A cluster that was told to end does so, also when the agent that was told is killed in the middle of it."""
    (pilot,) = pilots(isolated)
    psutil.Process(pilot).suspend()
    closing = asyncio.create_task(follower.client.call("close", id=ID, start=False))
    await follower.reach(State.DRAINING)
    await follower.kill_agent()
    closing.cancel()
    psutil.Process(pilot).resume()
    await follower.client.call("list")
    await follower.reach(State.ENDED)
    assert follower.statuses[-1].error is None
    await until(lambda: not pilots(isolated))


async def test_an_agent_that_is_stopped_hands_over(follower, isolated):
    """A stopped agent leaves a cluster as it is, and its sockets to the next one."""
    first = await follower.agent()
    await follower.client.call("stop")
    await until(lambda: not alive(first))
    assert not (isolated.runtime / ID).exists()
    follower.statuses.clear()
    assert await follower.agent() != first
    await follower.reach(State.READY)
    assert {path.name for path in (isolated.runtime / ID).iterdir()} == {
        "scheduler.sock",
        "session.sock",
        "dashboard.sock",
    }


async def test_a_pilot_that_is_killed_is_named(follower, isolated):
    """A pilot that dies without a word ends the cluster with a cause, and nothing of it runs on."""
    (pilot,) = pilots(isolated)
    os.kill(pilot, signal.SIGKILL)
    await follower.reach(State.ENDED)
    assert follower.statuses[-1].ending.reason is Reason.FAILED
    assert follower.statuses[-1].error["type"] == "JobFailed"
    await until(lambda: all("hpcnb.agent" in words for _, words in running(isolated)))


async def test_a_scheduler_that_is_killed_is_named(follower, isolated):
    """Without its scheduler a cluster ends, and says that it was that."""
    same_log = [process for process in isolated.processes() if _log_of(process) == "scheduler.log"]
    # What the scheduler is just starting has its log, too; but it alone leads its group.
    (child,) = [process for process in same_log if os.getpgid(process.pid) == process.pid]
    child.kill()
    await follower.reach(State.ENDED)
    assert follower.statuses[-1].error["what"] == "the scheduler process was killed by SIGKILL"
    await until(lambda: all("hpcnb.agent" in words for _, words in running(isolated)))


def _log_of(process):
    try:
        return Path(f"/proc/{process.pid}/fd/1").readlink().name
    except OSError:
        return ""
