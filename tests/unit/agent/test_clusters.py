"""One live cluster on this machine's shell and a batch system that does as it is told: requests, ends, replaced agents."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcnb import config
from hpcnb.agent import allocation, closing, clusters, places, record
from hpcnb.agent import sites as sites_module
from hpcnb.agent.client import nobody_to_ask
from hpcnb.agent.clusters import LiveCluster
from hpcnb.agent.sites import Site
from hpcnb.errors import (
    ClusterError,
    ConnectionFailed,
    HPCError,
    JobFailed,
    NotReady,
    SiteError,
    SubmissionRejected,
    error_from_json,
)
from hpcnb.model import ClusterSpec, Ending, JobState, JobStatus, Reason, Resources, State
from hpcnb.site.batch import BatchUnknown, JobRequest, Pace
from hpcnb.site.environment import Probe, versions
from tests.isolation import DEADLINE, until

ID = "0123456789abcdef"
SPEC = ClusterSpec(site="local", name="fit", resources=Resources())


class ScriptedBatch:
    """A batch system of this process: jobs run when a test says so, and questions fail when it says so."""

    kind = "process"
    pace = Pace(soonest=0.01, steps=(), calm=0.05)

    def __init__(self):
        self.requests = {}
        self.jobs = {}
        self.cancelled = []
        self.deaf = False  # gives no answer
        self.error = None  # what a submission raises
        self.submitting, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def submit(self, request):
        """Take a job."""
        self.submitting.set()
        await self.go_on.wait()
        if self.error:
            raise self.error
        job_id = str(117 + len(self.requests))
        self.requests[job_id] = request
        self.jobs[job_id] = JobStatus(job_id=job_id, state=JobState.PENDING)
        return job_id

    async def find(self, token):
        """The job with that token."""
        self._check()
        return [job_id for job_id, request in self.requests.items() if request.token == token]

    async def list(self, job_ids):
        """As the test said."""
        self._check()
        return {job_id: self.jobs[job_id] for job_id in job_ids}

    async def canceller(self, job_id):
        """Nobody keeps account."""
        return ""

    async def cancel(self, job_ids):
        """End jobs at once."""
        self._check()
        self.cancelled += job_ids
        for job_id in job_ids:
            self.end(job_id, Reason.CANCELLED)

    def run(self, job_id="117"):
        """Have a job run."""
        self.jobs[job_id] = JobStatus(job_id=job_id, state=JobState.RUNNING, nodes=("n1",))

    def end(self, job_id="117", reason=Reason.FAILED, **fields):
        """Have a job be over."""
        ending = Ending(reason=reason, job_id=job_id, **fields)
        self.jobs[job_id] = JobStatus(job_id=job_id, state=JobState.ENDED, ending=ending)

    def _check(self):
        if self.deaf:
            raise BatchUnknown("slurmctld is down")


class Life:
    """A site, its batch system, and clusters on it."""

    def __init__(self, isolated):
        self.site = Site(config.load().site("local"))
        self.batch = self.site.batch = ScriptedBatch()
        ours = versions()
        found = Probe(
            python=ours.python,
            executable=sys.executable,
            packages=ours.packages,
            home=str(isolated.home),
            user_home=str(isolated.home),
            host="n1",
            clock=time.time(),
        )
        self.site._probes[sys.executable] = ours, found
        self.states = []
        self._stack = contextlib.AsyncExitStack()

    def cluster(self, kept=None):
        """A cluster; a new one, or one that an earlier agent left."""
        made = LiveCluster(kept or record.new(ID, SPEC), self.site, lambda status: self.states.append(status.state))
        self._stack.push_async_callback(made.leave)
        return made

    async def requested(self):
        """A cluster whose job is submitted."""
        made = self.cluster()
        await made.request(nobody_to_ask)
        return made

    async def running(self):
        """A cluster whose job runs, and whose scheduler has said where it is."""
        made = await self.requested()
        self.batch.run()
        await until(lambda: made._connection)
        made._connection.scheduler = "tls://192.0.2.1:8786"
        return made

    async def left(self, state=State.READY):
        """The record that an earlier agent has left of a cluster with a running job."""
        earlier = await self.requested()
        await earlier.leave()
        (kept,) = record.load_all()
        self.batch.run()
        return replace(kept, status=replace(kept.status, state=state))

    async def close(self):
        """Let go of everything."""
        await self._stack.aclose()
        await self.site.close()


@pytest.fixture
async def life(isolated, monkeypatch):
    """A site of this process."""
    monkeypatch.setattr(sites_module, "SLOWEST", 0.05)
    made = Life(isolated)
    yield made
    await made.close()


async def reach(cluster, state):
    """Wait for a state."""
    await until(lambda: cluster.status.state is state)


def run_directory(isolated):
    """Where the leading allocation's files are."""
    return isolated.home / "runs" / ID


def secrets_in(isolated):
    """The files with secrets that are left at the site."""
    return [str(path) for path in isolated.home.rglob("*") if path.suffix in {".key", ".secret"}]


# -- the request ----------------------------------------------------------------------------------------------------


async def test_a_request_is_submitted_and_followed(life, isolated):
    """A request writes the run directory, submits its script, and follows the job."""
    cluster = await life.requested()
    request = life.batch.requests["117"]
    assert (cluster.status.state, cluster.status.jobs[0].job_id) == (State.QUEUED, "117")
    assert request.name == "fit"
    assert Path(request.script) == run_directory(isolated) / "job.sh"
    assert Path(request.script).exists()
    life.batch.run()
    await reach(cluster, State.STARTING)
    assert life.states == [State.REQUESTED, State.REQUESTED, State.QUEUED, State.STARTING]


async def test_the_record_comes_before_the_submission(life, isolated):
    """Should the agent die while it submits, the token that finds the job again is on disk."""
    life.batch.go_on.clear()
    request = asyncio.create_task(life.cluster().request(nobody_to_ask))
    await life.batch.submitting.wait()
    (kept,) = record.load_all()
    assert (kept.status.state, kept.jobs[0].job_id, len(kept.jobs[0].token)) == (State.REQUESTED, "", 32)
    life.batch.go_on.set()
    await request
    assert life.batch.requests["117"].token == kept.jobs[0].token


REFUSALS = [
    SubmissionRejected("invalid partition: gpuu", remedy="Partitions there: gpu."),
    ConnectionFailed("the connection is lost"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
async def test_a_refusal_ends_the_cluster(life, isolated, error):
    """What the site refuses is raised as it is, and is the cluster's end; no secret is kept of it."""
    life.batch.error = error
    cluster = life.cluster()
    with pytest.raises(type(error)) as caught:
        await cluster.request(nobody_to_ask)
    assert str(caught.value) == str(error)
    assert (cluster.status.state, cluster.status.error["what"]) == (State.ENDED, error.what)
    (kept,) = record.load_all()
    assert (kept.authority_key, kept.secret) == ("", "")


@pytest.mark.parametrize("error", [TimeoutError("too slow"), KeyError("x"), PermissionError(13, "no")])
async def test_a_fault_ends_the_cluster_too(life, error):
    """Whatever goes wrong, no cluster is left as requested for ever."""
    life.batch.error = error
    cluster = life.cluster()
    with pytest.raises(SiteError, match=type(error).__name__):
        await cluster.request(nobody_to_ask)
    assert cluster.status.state is State.ENDED


@pytest.fixture
def looks_often(monkeypatch):
    """A job whose submission got no answer is looked for at once."""
    monkeypatch.setattr(allocation, "LOOKS", (0.01, 0.01))


async def test_a_lost_answer_is_waited_for(life, looks_often):
    """While the batch system does not answer, nobody knows whether there is a job; when it does, the job is found."""
    life.batch.error, life.batch.deaf = BatchUnknown("timed out"), True
    cluster = life.cluster()
    requesting = asyncio.create_task(cluster.request(nobody_to_ask))
    await until(lambda: "has not said whether" in cluster.status.detail)
    assert cluster.status.state is State.REQUESTED
    (job,) = cluster._book.record.jobs
    life.batch.requests["117"] = JobRequest(
        token=job.token, name="fit", script="", directory="", log="", resources=Resources()
    )
    life.batch.jobs["117"] = JobStatus(job_id="117", state=JobState.PENDING)
    life.batch.deaf = False
    await requesting
    assert cluster.status.state is State.QUEUED
    assert [job.job_id for job in cluster.status.jobs] == ["117"]
    assert Path(job.path, "job.sh").exists()


async def test_a_submission_that_was_never_heard(life, looks_often):
    """When the batch system answers and has no such job, that is said, with what the job would be known by."""
    life.batch.error = BatchUnknown("timed out")
    cluster = life.cluster()
    with pytest.raises(SiteError, match="no answer to the submission, and has no job of it") as caught:
        await cluster.request(nobody_to_ask)
    assert cluster.status.ending.reason is Reason.FAILED
    assert re.search("[0-9a-f]{32}", caught.value.remedy)
    assert not Path(cluster._book.record.jobs[0].path).exists()


async def test_a_cluster_closed_while_its_answer_is_lost(life, looks_often):
    """Whoever does not want to wait for a batch system that is away need not: no run directory is left for a job."""
    life.batch.error, life.batch.deaf = BatchUnknown("timed out"), True
    cluster = life.cluster()
    requesting = asyncio.create_task(cluster.request(nobody_to_ask))
    await until(lambda: "has not said whether" in cluster.status.detail)
    await cluster.close()
    with pytest.raises(NotReady, match="closed before it was submitted"):
        await requesting
    assert cluster.status.state is State.ENDED
    assert not Path(cluster._book.record.jobs[0].path).exists()


async def test_a_full_disk_submits_nothing(life, isolated):
    """When the run directory cannot be written there is no job, and the message names the place."""
    isolated.home.joinpath("runs").touch()
    cluster = life.cluster()
    with pytest.raises(SiteError, match="cannot write"):
        await cluster.request(nobody_to_ask)
    assert life.batch.requests == {}
    assert cluster.status.state is State.ENDED


async def test_a_cluster_closed_while_connecting_is_not_submitted(life, monkeypatch):
    """Interrupting `up` while the site asks for a password leaves nothing behind."""
    opening = asyncio.Event()

    async def stuck(spec, ask):
        opening.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(life.site, "open", stuck)
    cluster = life.cluster()
    request = asyncio.create_task(cluster.request(nobody_to_ask))
    await opening.wait()
    async with asyncio.timeout(DEADLINE):
        await cluster.close()
    with pytest.raises(NotReady, match="closed before it was submitted"):
        await request
    assert cluster.status.state is State.ENDED
    assert life.batch.requests == {}


async def test_a_cluster_closed_while_being_submitted_is_cancelled(life, isolated):
    """Interrupting `up` between the submission and its answer leaves no job behind."""
    life.batch.go_on.clear()
    cluster = life.cluster()
    request = asyncio.create_task(cluster.request(nobody_to_ask))
    await life.batch.submitting.wait()
    close = asyncio.create_task(cluster.close())
    await reach(cluster, State.DRAINING)
    life.batch.go_on.set()
    async with asyncio.timeout(DEADLINE):
        await request
        await close
    assert life.batch.cancelled == ["117"]
    assert (cluster.status.state, cluster.status.error) == (State.ENDED, None)
    assert secrets_in(isolated) == []


# -- the end --------------------------------------------------------------------------------------------------------


async def test_a_job_that_ends_before_the_pilot_says_why(life, isolated):
    """A job that dies at its start ends the cluster with the end of its log; no pilot ever wrote a word."""
    cluster = await life.requested()
    (run_directory(isolated) / "job.log").write_text("python: command not found\n")
    life.batch.end(exit_code=127)
    await reach(cluster, State.ENDED)
    error = error_from_json(cluster.status.error)
    assert type(error) is JobFailed
    assert error.evidence == "python: command not found"
    assert secrets_in(isolated) == []


async def test_the_pilots_word_is_the_cause(life, isolated):
    """What the pilot wrote of the end is more telling than an exit status."""
    cluster = await life.requested()
    said = Ending(reason=Reason.FAILED, message="the scheduler process was killed by SIGKILL", tail="its log")
    (run_directory(isolated) / "ended.json").write_text(json.dumps(said.to_json()))
    life.batch.end(exit_code=1)
    await reach(cluster, State.ENDED)
    error = error_from_json(cluster.status.error)
    assert (error.what, error.evidence) == ("the scheduler process was killed by SIGKILL", "its log")


async def test_the_batch_systems_word_on_limits_stands(life, isolated):
    """A pilot that was told to end at the walltime does not know why; the batch system does."""
    cluster = await life.requested()
    said = Ending(reason=Reason.CANCELLED, message="told to end")
    (run_directory(isolated) / "ended.json").write_text(json.dumps(said.to_json()))
    life.batch.end(reason=Reason.TIMEOUT)
    await reach(cluster, State.ENDED)
    assert cluster.status.ending.reason is Reason.TIMEOUT


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "{}", '{"reason": "boredom"}'])
async def test_a_broken_word_of_the_pilot(life, isolated, text):
    """A file that a full disk cut short is no reason for a cluster never to end."""
    cluster = await life.requested()
    (run_directory(isolated) / "ended.json").write_text(text)
    life.batch.end(exit_code=1)
    await reach(cluster, State.ENDED)
    assert cluster.status.ending.exit_code == 1


async def test_close_cancels_a_job_that_waits(life, isolated):
    """Closing a cluster that is still queued cancels its job, and nothing secret is left."""
    cluster = await life.requested()
    async with asyncio.timeout(DEADLINE):
        await cluster.close()
    assert life.batch.cancelled == ["117"]
    assert (cluster.status.state, cluster.status.ending.reason) == (State.ENDED, Reason.COMPLETED)
    assert secrets_in(isolated) == []
    (kept,) = record.load_all()
    assert (kept.status.state, kept.secret) == (State.ENDED, "")


async def test_closing_twice_is_closing_once(life):
    """Two who close the same cluster both see it end, and closing what has ended is no error."""
    cluster = await life.requested()
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(cluster.close(), cluster.close())
        await cluster.close()
    assert cluster.status.state is State.ENDED


async def test_a_batch_system_that_is_down_is_asked_again(life, monkeypatch):
    """A cluster that cannot be cancelled now is said to be so, and is cancelled as soon as that is possible."""
    monkeypatch.setattr(closing, "CANCELLING", 0.1)
    cluster = await life.requested()
    life.batch.deaf = True
    with pytest.raises(ClusterError, match="has not ended yet: ending; jobs cannot be cancelled now"):
        await cluster.close()
    assert cluster.status.state is State.DRAINING
    life.batch.deaf = False
    await reach(cluster, State.ENDED)
    assert cluster.status.error is None


async def test_a_site_out_of_reach_does_not_keep_a_cluster_from_ending(life, monkeypatch):
    """When a job is known to be over, the cluster ends, even if its log and its secrets cannot be reached."""
    cluster = await life.requested()

    async def lost(*args, **kwargs):
        raise ConnectionFailed("the connection is lost")

    for method in ("read", "run"):
        monkeypatch.setattr(life.site.shell, method, lost)
    life.batch.end()
    await reach(cluster, State.ENDED)
    assert cluster.status.ending.reason is Reason.FAILED


async def test_the_end_takes_the_other_jobs_along(life, isolated):
    """When the leading job is over, those that added nodes are cancelled, and their secrets forgotten."""
    cluster = await life.running()
    await cluster.scale(3)
    assert len(secrets_in(isolated)) > 10
    life.batch.end()
    await reach(cluster, State.ENDED)
    assert life.batch.cancelled == ["118", "119"]
    assert secrets_in(isolated) == []


async def test_other_jobs_that_cannot_be_cancelled_do_not_keep_it_from_ending(life, monkeypatch):
    """A batch system that falls silent at the wrong moment leaves no cluster without an end."""
    cluster = await life.running()
    await cluster.scale(2)

    async def refuse(jobs):
        raise BatchUnknown("slurmctld is down")

    monkeypatch.setattr(life.batch, "cancel", refuse)
    life.batch.end()
    await reach(cluster, State.ENDED)


async def test_a_fault_in_one_cluster_harms_no_other(life, monkeypatch, caplog):
    """An error of ours in what one cluster makes of its news is logged; the site goes on asking for all."""
    cluster = await life.requested()

    def fail(status):
        raise ZeroDivisionError

    life.batch.jobs["5"] = JobStatus(job_id="5", state=JobState.RUNNING)
    life.site.watch("5", fail)
    await until(lambda: "ZeroDivisionError" in caplog.text)
    life.batch.end()
    await reach(cluster, State.ENDED)


# -- nodes ----------------------------------------------------------------------------------------------------------


async def test_nodes_wait_for_the_scheduler(life):
    """A cluster without a scheduler cannot grow; the message says when it can, and nothing is submitted."""
    cluster = await life.requested()
    with pytest.raises(NotReady, match="no scheduler yet"):
        await cluster.scale(2)
    assert [*life.batch.requests] == ["117"]


async def test_scaling_at_the_same_time(life):
    """Two who ask for the same number of nodes get that number."""
    cluster = await life.running()
    await asyncio.gather(cluster.scale(3), cluster.scale(3))
    assert [*life.batch.requests] == ["117", "118", "119"]
    assert len({request.script for request in life.batch.requests.values()}) == 3


async def test_scaling_down_cancels_the_youngest(life, isolated):
    """Fewer nodes are fewer of the added jobs; what they were told is forgotten."""
    cluster = await life.running()
    await cluster.scale(3)
    await cluster.scale(2)
    assert life.batch.cancelled == ["119"]
    await until(lambda: len([*isolated.home.glob(f"runs/{ID}-*/tls")]) == 1)
    assert (isolated.home / "runs" / f"{ID}-1" / "tls").exists()
    await cluster.scale(0)
    assert life.batch.cancelled == ["119", "118"]
    await until(lambda: not [*isolated.home.glob(f"runs/{ID}-*/tls")] and not cluster._tasks)


async def test_scaling_down_and_up_again(life, isolated):
    """A job that is cancelled and not gone yet is no node; the new one begins in a directory of its own."""
    cluster = await life.running()
    await cluster.scale(2)
    life.batch.end = lambda *args: None  # it takes its time
    await cluster.scale(1)
    await cluster.scale(2)
    assert (life.batch.cancelled, [*life.batch.requests]) == (["118"], ["117", "118", "119"])
    del life.batch.end
    life.batch.end("118")
    await until(lambda: len([*isolated.home.glob(f"runs/{ID}-*/tls")]) == 1 and not cluster._tasks)
    await cluster.scale(3)
    assert len(life.batch.requests) == len({request.directory for request in life.batch.requests.values()}) == 4


async def test_a_node_that_is_lost_is_told(life):
    """Line 6: a job that added a node and dies says why; one that we have ended ourselves does not."""
    cluster = await life.running()
    await cluster.scale(3)
    life.batch.end("119", Reason.TIMEOUT, message="the walltime of the batch job ran out")
    await until(lambda: cluster.status.losses)
    (lost,) = cluster.status.losses
    assert (lost.reason, lost.job_id) == (Reason.TIMEOUT, "119")
    assert "job 119 was lost: the walltime" in cluster.status.notices["lost"]
    await cluster.scale(1)
    await until(lambda: len(cluster._book.record.jobs) == 1)
    assert (cluster.status.losses, cluster.status.notices) == ((lost,), {})
    await cluster.scale(2)
    paths = [request.directory for request in life.batch.requests.values()]
    assert len(set(paths)) == len(paths) == 4  # a run directory that is claimed would let no job start


async def test_a_job_that_is_put_back_ends_the_cluster(life):
    """A leading job that is pending again after its pilot was met is cancelled, and is the cluster's end."""
    cluster = await life.running()
    await until(lambda: cluster.status.jobs[0].state is JobState.RUNNING)
    cluster._on_link("direct")
    life.batch.jobs["117"] = JobStatus(job_id="117", state=JobState.PENDING, reason="BeginTime")
    cluster._on_link("")
    await reach(cluster, State.ENDED)
    assert life.batch.cancelled == ["117"]
    assert (cluster.status.ending.reason, "put back" in cluster.status.ending.message) == (Reason.CANCELLED, True)


async def test_a_further_job_that_is_put_back_is_given_back(life):
    """One that added a node is cancelled as well, since what it ran is lost; it is told, and the cluster goes on."""
    cluster = await life.running()
    cluster._on_link("direct")
    await cluster.scale(2)
    life.batch.run("118")
    await until(lambda: [job.state for job in cluster.status.jobs] == [JobState.RUNNING] * 2)
    life.batch.jobs["118"] = JobStatus(job_id="118", state=JobState.PENDING, reason="BeginTime")
    await until(lambda: cluster.status.losses)
    assert (life.batch.cancelled, cluster.status.losses[0].job_id) == (["118"], "118")
    assert cluster.status.state is not State.DRAINING


async def test_a_refused_node_leaves_nothing_behind(life):
    """A node that the batch system refuses is not counted, so that the next attempt asks for it again."""
    cluster = await life.running()
    life.batch.error = SubmissionRejected("over the limit")
    with pytest.raises(SubmissionRejected):
        await cluster.scale(2)
    assert cluster.status.state is not State.ENDED
    life.batch.error = None
    await cluster.scale(2)
    assert [*life.batch.requests] == ["117", "118"]


# -- an agent that was replaced -------------------------------------------------------------------------------------


async def test_what_ran_is_followed_again(life):
    """A cluster that an earlier agent left as ready is unreachable until its link is made."""
    cluster = life.cluster(await life.left(State.READY))
    await cluster.resume(nobody_to_ask)
    assert cluster.status.state is State.UNREACHABLE
    life.batch.end()
    await reach(cluster, State.ENDED)


async def test_what_waited_is_followed_again(life):
    """A cluster that was queued may run by now."""
    cluster = life.cluster(await life.left(State.QUEUED))
    await cluster.resume(nobody_to_ask)
    await reach(cluster, State.STARTING)


async def test_a_job_without_an_id_is_found_by_its_token(life):
    """An agent that died while it submitted left only the token; the job is found by it, and followed."""
    kept = await life.left(State.REQUESTED)
    kept = replace(kept, jobs=(replace(kept.jobs[0], job_id=""),))
    cluster = life.cluster(kept)
    await cluster.resume(nobody_to_ask)
    await reach(cluster, State.STARTING)
    assert cluster.status.jobs[0].job_id == "117"


async def test_what_was_never_submitted_has_ended(life):
    """An agent that died before it submitted left no job; the cluster says so."""
    cluster = life.cluster(replace(await life.left(State.REQUESTED), jobs=()))
    await cluster.resume(nobody_to_ask)
    assert cluster.status.state is State.ENDED
    assert "never submitted" in cluster.status.detail


async def test_what_was_draining_is_cancelled_again(life):
    """A cluster that was told to end does not live on because its agent was replaced."""
    cluster = life.cluster(await life.left(State.DRAINING))
    await cluster.resume(nobody_to_ask)
    await reach(cluster, State.ENDED)
    assert (life.batch.cancelled, cluster.status.error) == (["117"], None)


async def test_what_has_ended_stays_so(life):
    """A cluster that has ended is not looked for."""
    cluster = life.cluster(await life.left(State.ENDED))
    life.batch.deaf = True
    await cluster.resume(nobody_to_ask)
    assert cluster.status.state is State.ENDED


async def test_a_site_that_cannot_be_asked_is_asked_again(life):
    """While nobody answers, a cluster stays as it was; the next attempt finds it."""
    kept = await life.left(State.REQUESTED)
    cluster = life.cluster(replace(kept, jobs=(replace(kept.jobs[0], job_id=""),)))
    life.batch.deaf = True
    with pytest.raises(HPCError, match="gave no answer"):
        await cluster.resume(nobody_to_ask)
    assert cluster.status.state is State.REQUESTED
    life.batch.deaf = False
    await asyncio.gather(cluster.resume(nobody_to_ask), cluster.resume(nobody_to_ask))
    await reach(cluster, State.STARTING)


async def test_resuming_does_not_disturb_a_request(life):
    """A client that attaches while a cluster is being submitted does not take it for one that was left."""
    life.batch.go_on.clear()
    cluster = life.cluster()
    request = asyncio.create_task(cluster.request(nobody_to_ask))
    await life.batch.submitting.wait()
    await cluster.resume(nobody_to_ask)
    assert cluster.status.state is State.REQUESTED
    life.batch.go_on.set()
    await request
    assert cluster.status.state is State.QUEUED


async def test_a_record_that_cannot_be_written_stops_nothing(life, monkeypatch, caplog):
    """When the user's disk is full, clusters still change their states."""
    cluster = await life.requested()

    def full(kept):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "save", full)
    life.batch.run()
    await reach(cluster, State.STARTING)
    assert "could not be written" in caplog.text


@pytest.fixture
def full(monkeypatch):
    """The user's disk can be made full."""
    written, now = record.save, []

    def save(kept):
        if now:
            raise OSError(28, "No space left on device")
        written(kept)

    monkeypatch.setattr(record, "save", save)
    return now


async def test_a_job_whose_id_cannot_be_written_is_followed(life, full):
    """The disk is full when the answer to the submission comes: the job is there, and costs, so nobody may forget it."""
    life.batch.go_on.clear()
    cluster = life.cluster()
    request = asyncio.create_task(cluster.request(nobody_to_ask))
    await life.batch.submitting.wait()
    full.append(True)
    life.batch.go_on.set()
    await request
    assert (cluster.status.state, cluster.status.jobs[0].job_id) == (State.QUEUED, "117")
    await cluster.close()
    assert life.batch.cancelled == ["117"]


async def test_a_further_job_whose_id_cannot_be_written_is_followed(life, full):
    """It belongs to the cluster, and ends with it."""
    cluster = await life.running()
    life.batch.submitting.clear()
    life.batch.go_on.clear()
    scaling = asyncio.create_task(cluster.scale(2))
    await life.batch.submitting.wait()
    full.append(True)
    life.batch.go_on.set()
    await scaling
    await cluster.scale(1)
    assert life.batch.cancelled == ["118"]


async def test_nothing_is_submitted_that_could_not_be_found_again(life, full):
    """Where the record cannot be written there is no job, and the message says on which machine there is no room."""
    full.append(True)
    cluster = life.cluster()
    with pytest.raises(HPCError, match="cannot be written: No space left") as caught:
        await cluster.request(nobody_to_ask)
    assert "this machine" in caught.value.remedy
    assert life.batch.requests == {}


async def test_a_job_that_appears_late_is_found(life, looks_often, isolated):
    """The agent was killed while it submitted, and the next one asks before the batch system has taken the job."""
    kept = await life.left(State.REQUESTED)
    kept = replace(kept, jobs=(replace(kept.jobs[0], job_id=""),))
    find, asked = life.batch.find, []

    async def late(token):
        asked.append(token)
        return await find(token) if len(asked) > 1 else []

    life.batch.find = late
    cluster = life.cluster(kept)
    await cluster.resume(nobody_to_ask)
    await reach(cluster, State.STARTING)


async def test_what_was_prepared_and_never_submitted_leaves_no_secret(life, looks_often, isolated):
    """The agent was killed between the run directory and the submission; should a job appear yet, it finds nothing and ends."""
    kept = await life.left(State.REQUESTED)
    life.batch.requests.clear()
    assert secrets_in(isolated)
    cluster = life.cluster(replace(kept, jobs=(replace(kept.jobs[0], job_id=""),)))
    await cluster.resume(nobody_to_ask)
    assert (cluster.status.state, secrets_in(isolated)) == (State.ENDED, [])


async def test_a_link_that_cannot_be_kept_is_made_again(life, monkeypatch):
    """The directory of its sockets is unusable for a while: what failed is said, and tried again."""
    monkeypatch.setattr(clusters, "AGAIN", 0.05)
    (folder := places.runtime()).chmod(0o755)
    cluster = await life.requested()
    await until(lambda: "open to other users" in cluster.status.detail)
    folder.chmod(0o700)
    await until(lambda: cluster._connection)


async def test_logs_of_a_cluster_that_left_none(life, isolated):
    """Logs are those that exist; a cluster that was never submitted has none."""
    cluster = await life.requested()
    assert await cluster.logs("", 100, nobody_to_ask) == {}
    (run_directory(isolated) / "job.log").write_text("one\ntwo\n")
    (run_directory(isolated) / "logs" / "scheduler.log").write_text("three\n")
    assert await cluster.logs("", 4, nobody_to_ask) == {"job.log": "two\n", "logs/scheduler.log": "ree\n"}
    assert await cluster.logs("job", 100, nobody_to_ask) == {"job.log": "one\ntwo\n"}
    assert await LiveCluster(record.new(ID, SPEC), life.site, print).logs("", 100, nobody_to_ask) == {}


async def test_no_secret_in_the_log(life, isolated, caplog):
    """What the agent logs of a whole life holds neither key nor secret."""
    with caplog.at_level(logging.DEBUG):
        cluster = await life.requested()
        kept = cluster._book.record
        async with asyncio.timeout(DEADLINE):
            await cluster.close()
    for secret in (kept.secret, *kept.authority_key.splitlines()[1:-1]):
        assert secret not in caplog.text
