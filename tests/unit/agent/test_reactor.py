"""How a cluster's status changes with each thing that is heard: every row, and any order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.agent import postmortem, reactor
from hpcnb.errors import JobFailed, JobOutOfMemory, JobPreempted, JobTimeout, NodeFailed, SiteError, error_from_json
from hpcnb.model import (
    ClusterSpec,
    ClusterStatus,
    Ending,
    GroupLoad,
    JobState,
    JobStatus,
    NodeLoad,
    Reason,
    Resources,
    State,
    WorkerCounts,
)

SPEC = ClusterSpec(site="octopus", name="fit", resources=Resources())
LONG_AGO = 1.0
LOAD = {"event": "load", "workers": 2, "cores": 8, "tasks": {"processing": 3}}
NO_WORKERS = {"event": "load", "workers": 0, "cores": 0, "tasks": {}}


def status(state, **fields):
    """A cluster in a state."""
    return ClusterStatus(id="c0ffee", spec=SPEC, state=state, created=LONG_AGO, changed=LONG_AGO, **fields)


def job(state, job_id="117", **fields):
    """What the batch system says."""
    return JobStatus(job_id=job_id, state=state, **fields)


def ended(reason, **fields):
    """A job that is over."""
    return job(JobState.ENDED, ending=Ending(reason=reason, job_id="117", **fields))


def by_batch(before, said, **options):
    """What the batch system said of the leading job."""
    return reactor.on_job(before, said, leads=True, **options)


def test_submission():
    """A submitted cluster is queued, and its job is known."""
    after = reactor.on_submitted(status(State.REQUESTED), "117")
    assert (after.state, after.jobs[0].job_id) == (State.QUEUED, "117")
    assert after.changed > LONG_AGO


def test_submission_of_what_was_closed_meanwhile():
    """A cluster that was closed while it was being submitted keeps draining, and its job is known, to be cancelled."""
    after = reactor.on_submitted(status(State.DRAINING), "117")
    assert (after.state, after.jobs[0].job_id) == (State.DRAINING, "117")


def test_a_pending_job_explains_itself():
    """While the job waits, the detail says for what."""
    after = by_batch(status(State.QUEUED), job(JobState.PENDING, reason="Priority"), explanation="others go first")
    assert (after.state, after.detail, after.jobs[0].reason) == (State.QUEUED, "others go first", "Priority")


def test_a_job_that_was_never_seen_to_run_says_where_it_did():
    """A job that begins and ends between two questions has the node of its end; of several nodes one would be too few."""
    over = ended(Reason.COMPLETED, node="n1")
    before = status(State.QUEUED, jobs=(job(JobState.PENDING),))
    assert by_batch(before, over).jobs[0].nodes == ("n1",)
    wider = replace(before, spec=replace(SPEC, resources=Resources(nodes=2)))
    assert by_batch(wider, over).jobs[0].nodes == ()


def test_time_in_a_state_goes_on_while_news_come():
    """News that leave the state as it is do not start its clock anew."""
    after = by_batch(status(State.QUEUED), job(JobState.PENDING), explanation="others go first")
    assert after.changed == LONG_AGO


@pytest.mark.parametrize("state", [State.REQUESTED, State.QUEUED])
def test_a_running_job_starts_the_cluster(state):
    """A job that runs makes the cluster start, also one that an earlier agent left as requested."""
    after = by_batch(status(state), job(JobState.RUNNING, nodes=("n1",), time_left=60))
    assert (after.state, after.walltime_left) == (State.STARTING, 60)
    assert "n1" in after.detail


@pytest.mark.parametrize("state", [State.STARTING, State.READY, State.UNREACHABLE, State.DRAINING])
def test_a_running_job_is_no_news_later(state):
    """That the job still runs leaves every later state as it is."""
    assert by_batch(status(state), job(JobState.RUNNING)).state is state


@pytest.mark.parametrize("state", [State.STARTING, State.READY, State.UNREACHABLE])
def test_a_requeued_job_waits_again(state):
    """A job that is pending again puts the cluster back into the queue, without workers."""
    after = by_batch(status(state, counts=WorkerCounts(workers=2)), job(JobState.PENDING))
    assert (after.state, after.counts.workers) == (State.QUEUED, 0)


@pytest.mark.parametrize("state", [State.STARTING, State.READY])
def test_a_late_answer_is_not_believed_while_the_link_is_up(state):
    """An answer "pending" that was asked for before the job started changes no state once the pilot has answered."""
    assert by_batch(status(state, link="direct"), job(JobState.PENDING)).state is state


def test_pending_while_draining():
    """A cluster that is told to end does not go back to the queue."""
    assert by_batch(status(State.DRAINING), job(JobState.PENDING)).state is State.DRAINING


@pytest.mark.parametrize("state", [s for s in State if s is not State.ENDED])
def test_no_answer_changes_no_state(state):
    """What the batch system could not be asked is unknown since the first time, until it answers."""
    first = by_batch(status(state), job(JobState.UNKNOWN))
    assert first.state is state
    assert first.unknown_since is not None
    assert by_batch(first, job(JobState.UNKNOWN)).unknown_since == first.unknown_since
    assert by_batch(first, job(JobState.RUNNING)).unknown_since is None


def test_further_jobs_come_and_go():
    """Jobs that add nodes are listed after the leading one, and leave the list when they end."""
    leading, further = job(JobState.RUNNING), job(JobState.PENDING, "118")
    after = reactor.on_job(status(State.READY, jobs=(leading,)), further, leads=False)
    assert [j.job_id for j in after.jobs] == ["117", "118"]
    assert [j.job_id for j in by_batch(after, leading).jobs] == ["117", "118"]
    gone = reactor.on_job(after, job(JobState.ENDED, "118"), leads=False)
    assert [j.job_id for j in gone.jobs] == ["117"]
    assert gone.state is State.READY


def test_how_an_estimate_moves():
    """The first estimate stays beside the latest one, also while there is none."""
    after = status(State.QUEUED)
    for estimate in (None, 500.0, 300.0, None):
        after = by_batch(after, job(JobState.PENDING, estimated_start=estimate))
    assert (after.jobs[0].estimated_start, after.jobs[0].first_estimate) == (None, 500.0)


def test_what_jobs_have_used(monkeypatch):
    """Core-seconds count from the start of each job to its end, also of those that are over or wait again."""
    at = 1000.0
    monkeypatch.setattr(reactor.time, "time", lambda: at)
    after = by_batch(status(State.QUEUED), job(JobState.RUNNING, cores=4, started=990.0))
    after = reactor.on_job(after, job(JobState.RUNNING, "118", cores=2, started=900.0), leads=False)
    assert (after.core_seconds(1000.0), after.core_seconds(1010.0)) == (40.0 + 200.0, 80.0 + 220.0)
    after = reactor.on_job(after, job(JobState.ENDED, "118"), leads=False)
    at = 1010.0
    assert (after.spent, after.core_seconds(1010.0)) == (200.0, 280.0)
    after = by_batch(after, job(JobState.PENDING))
    assert (after.spent, after.core_seconds(2000.0)) == (280.0, 280.0)
    assert by_batch(after, ended(Reason.CANCELLED)).spent == 280.0


def test_what_a_machine_without_a_batch_system_uses(monkeypatch):
    """There a job begins as long ago as its walltime has passed, and uses the cores of its workers."""
    monkeypatch.setattr(reactor.time, "time", lambda: 1000.0)
    after = by_batch(status(State.QUEUED), job(JobState.RUNNING, time_left=SPEC.resources.walltime - 10))
    after = reactor.on_pilot(after, LOAD)
    assert after.core_seconds(1000.0) == 80.0
    assert after.left(1060.0) == SPEC.resources.walltime - 70


def test_the_pilot_tells_of_the_start_first():
    """When the link is up, the job runs, whatever the batch system was last heard to say."""
    waits = by_batch(status(State.QUEUED), job(JobState.PENDING, reason="Priority"))
    after = reactor.on_link(waits, "direct")
    assert (after.state, after.jobs[0].state, after.jobs[0].reason) == (State.STARTING, JobState.RUNNING, "")
    assert by_batch(after, job(JobState.PENDING)).jobs == after.jobs


def test_what_the_nodes_do():
    """Their load is kept beside the counts, which change without it."""
    said = {"name": "n1", "nodes": 1, "workers": 2, "cores": 8, "busy": 7.5, "memory": 1, "limit": 2}
    after = reactor.on_pilot(status(State.READY), {"event": "nodes", "nodes": [said]})
    after = reactor.on_pilot(after, LOAD)
    assert (after.counts.nodes, after.counts.workers) == ((NodeLoad(**said),), 2)


def test_what_goes_on():
    """So are the groups of calls that go on, until none does."""
    said = {"id": "g", "label": "fit", "waiting": 5, "running": 2, "done": 3, "failed": 1, "cancelled": 0, "rate": 0.5}
    after = reactor.on_pilot(status(State.READY), {"event": "groups", "groups": [said]})
    assert after.counts.groups == (GroupLoad(**said),)
    assert reactor.on_pilot(after, {"event": "groups", "groups": []}).counts.groups == ()


def test_a_further_job_that_is_lost_is_told():
    """How a job that added a node died stands with the cluster, and is announced; the cluster goes on."""
    lost = Ending(
        reason=Reason.TIMEOUT, job_id="118", node="n2", message="its walltime ran out", suggestion="Ask for 2h."
    )
    after = reactor.on_lost(status(State.READY), lost)
    assert (after.state, after.losses) == (State.READY, (lost,))
    assert after.notices == {"lost": "job 118 (node n2) was lost: its walltime ran out. Ask for 2h."}
    for _ in range(9):
        after = reactor.on_lost(after, replace(lost, tail="x" * 10_000))
    assert (len(after.losses), len(after.losses[-1].tail)) == (reactor.LOSSES, reactor.WORDS)


def test_a_worker_that_is_lost_is_told():
    """A worker's death stands with the cluster, with its node, its signal and what to do; one that ended well does not."""
    news = {
        "event": "worker-exit",
        "worker": "worker-0-n1-2",
        "how": "was killed by SIGSEGV",
        "code": -11,
        "tail": "oh",
    }
    after = reactor.on_pilot(status(State.READY, jobs=(job(JobState.RUNNING),)), news)
    (lost,) = after.losses
    assert (lost.reason, lost.job_id, lost.node, lost.signal, lost.tail) == (Reason.FAILED, "117", "n1", 11, "oh")
    assert after.detail == lost.message == "worker-0-n1-2 was killed by SIGSEGV; it was started again"
    assert reactor.on_pilot(status(State.READY), news | {"code": 0}).losses == ()


def test_a_job_that_is_requeued_in_its_work():
    """A job that is put back after its pilot has begun ends the cluster for that reason, whatever comes of the job."""
    after = reactor.on_requeued(status(State.READY))
    assert after.state is State.DRAINING
    end = by_batch(after, ended(Reason.COMPLETED, message="the batch job ended by itself")).ending
    assert (end.reason, end.message) == (Reason.CANCELLED, postmortem.REQUEUED)
    assert by_batch(after, ended(Reason.PREEMPTED, message="more important")).ending.reason is Reason.PREEMPTED


ERRORS = {
    Reason.TIMEOUT: JobTimeout,
    Reason.OUT_OF_MEMORY: JobOutOfMemory,
    Reason.NODE_FAIL: NodeFailed,
    Reason.PREEMPTED: JobPreempted,
    Reason.FAILED: JobFailed,
    Reason.CANCELLED: JobFailed,
}


@pytest.mark.parametrize(("reason", "error"), ERRORS.items())
def test_each_end_is_named(reason, error):
    """Every end but the wanted one carries an error of its own class, with site, job and evidence."""
    ending = ended(reason, tail="the last line", exit_code=1)
    after = by_batch(status(State.READY, link="direct", counts=WorkerCounts(workers=2)), ending)
    assert (after.state, after.ending.reason) == (State.ENDED, reason)
    assert (after.link, after.counts.workers, after.walltime_left) == ("", 0, None)
    found = error_from_json(after.error)
    assert type(found) is error
    assert found.where == "site octopus, job 117"
    assert found.evidence == "the last line"


def test_every_reason_has_a_row():
    """No reason is forgotten above."""
    assert {*ERRORS, Reason.COMPLETED} == {*Reason}


def test_an_end_without_evidence_is_a_failure():
    """A job that is over, nobody knows how, has failed."""
    assert by_batch(status(State.READY), job(JobState.ENDED)).ending.reason is Reason.FAILED


def test_a_completed_cluster_has_no_error():
    """What ends as it should carries no error."""
    after = by_batch(status(State.READY), ended(Reason.COMPLETED))
    assert (after.state, after.error) == (State.ENDED, None)


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.FAILED])
def test_what_was_asked_for_is_no_failure(reason):
    """A cluster that the user closed has completed, even if its job had to be cancelled."""
    after = by_batch(reactor.on_draining(status(State.READY)), ended(reason))
    assert (after.ending.reason, after.error) == (Reason.COMPLETED, None)


def test_walltime_while_draining():
    """Even a cluster that was told to end says so when the walltime was faster."""
    assert by_batch(status(State.DRAINING), ended(Reason.TIMEOUT)).ending.reason is Reason.TIMEOUT


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.FAILED])
def test_the_pilots_own_end_is_not_the_users(reason):
    """What the pilot ends by itself, nobody asked for: its cause is not glossed over."""
    news = {"event": "ended", **Ending(reason=reason, message="the scheduler died").to_json()}
    draining = reactor.on_pilot(status(State.READY), news)
    assert (draining.state, draining.detail) == (State.DRAINING, "the scheduler died")
    after = by_batch(draining, ended(reason, message="the scheduler died"))
    assert after.ending.reason is reason
    assert error_from_json(after.error).what == "the scheduler died"


def test_the_pilot_obeys():
    """What the pilot says of an end that the user asked for leaves it asked for."""
    news = {"event": "ended", **Ending(reason=Reason.CANCELLED, message="told to end").to_json()}
    after = reactor.on_pilot(reactor.on_draining(status(State.READY)), news)
    assert by_batch(after, ended(Reason.CANCELLED)).error is None


@pytest.mark.parametrize("state", [State.REQUESTED, State.QUEUED])
def test_the_link_may_be_faster_than_the_batch_system(state):
    """A pilot that answers runs, whatever the batch system has not yet said."""
    after = reactor.on_link(status(state), "direct")
    assert (after.state, after.link) == (State.STARTING, "direct")


def test_a_link_alone_is_not_ready():
    """The cluster starts until the first worker has come."""
    after = reactor.on_link(status(State.STARTING), "direct")
    assert after.state is State.STARTING
    after = reactor.on_pilot(after, NO_WORKERS)
    assert (after.state, after.detail) == (State.STARTING, "the scheduler runs; its workers are starting")
    after = reactor.on_pilot(after, LOAD)
    assert (after.state, after.detail) == (State.READY, "")
    assert after.counts == WorkerCounts(workers=2, cores=8, tasks={"processing": 3})


def test_workers_may_go():
    """A ready cluster stays ready while its workers are replaced."""
    assert reactor.on_pilot(status(State.READY), NO_WORKERS).state is State.READY


def test_a_cut_and_its_end():
    """A cut makes a ready cluster unreachable, the next link makes it ready."""
    cut = reactor.on_link(status(State.READY, link="direct"), "")
    assert (cut.state, cut.link) == (State.UNREACHABLE, "")
    assert cut.detail
    cut = reactor.on_trouble(cut, "the login node does not answer")
    assert (cut.state, cut.detail) == (State.UNREACHABLE, "the login node does not answer")
    back = reactor.on_link(cut, "direct")
    assert (back.state, back.link, back.detail) == (State.READY, "direct", "")


def test_the_last_route_is_remembered():
    """While the link is down the status still says by which route it went."""
    cut = reactor.on_link(reactor.on_link(status(State.READY), "exec"), "")
    assert (cut.link, cut.route) == ("", "exec")


@pytest.mark.parametrize("state", [State.REQUESTED, State.QUEUED, State.READY, State.DRAINING, State.ENDED])
def test_trouble_with_the_link_is_told_where_it_matters(state):
    """A cluster that does not wait for its link shows what it showed before."""
    before = status(state, detail="x")
    assert reactor.on_trouble(before, "the pilot refuses us") == before
    assert reactor.on_trouble(status(State.STARTING), "no way").detail == "no way"


@pytest.mark.parametrize("state", [State.REQUESTED, State.QUEUED, State.STARTING, State.DRAINING])
def test_a_cut_elsewhere_is_no_news(state):
    """A cluster that is not ready cannot become unreachable."""
    assert reactor.on_link(status(state), "").state is state


def test_a_worker_that_died_is_named():
    """The detail says which worker ended, and how."""
    news = {"event": "worker-exit", "worker": "worker-0-n1-0", "how": "was killed by SIGKILL", "tail": ""}
    after = reactor.on_pilot(status(State.READY), news)
    assert after.detail == "worker-0-n1-0 was killed by SIGKILL; it was started again"


def test_news_of_another_kind_change_nothing():
    """What a later pilot may say is passed over."""
    assert reactor.on_pilot(status(State.READY), {"event": "weather"}) == status(State.READY)


@pytest.mark.parametrize("state", [s for s in State if s is not State.ENDED])
def test_everything_can_be_told_to_end(state):
    """A wish to end is heard in every state."""
    assert reactor.on_draining(status(state)).state is State.DRAINING


def test_an_error_before_the_submission_ends_it():
    """A request that fails ends the cluster with that very error."""
    after = reactor.on_error(status(State.REQUESTED), SiteError("no answer", where="octopus", remedy="Wait."))
    assert (after.state, after.ending.reason) == (State.ENDED, Reason.FAILED)
    assert str(error_from_json(after.error)) == "no answer (octopus)\n→ Wait."


JOB_IDS = st.sampled_from(["117", "118"])
ENDINGS = st.none() | st.builds(Ending, reason=st.sampled_from(Reason), message=st.sampled_from(["", "why"]))
JOBS = st.builds(
    JobStatus,
    job_id=JOB_IDS,
    state=st.sampled_from(JobState),
    nodes=st.sampled_from([(), ("n1",)]),
    ending=ENDINGS,
)
EVENTS = st.one_of(
    st.builds(lambda n: {"event": "load", "workers": n, "cores": n, "tasks": {}}, st.integers(0, 3)),
    st.just({"event": "worker-exit", "worker": "w", "how": "ended"}),
    st.builds(lambda reason: {"event": "ended", "reason": reason.value, "message": "m"}, st.sampled_from(Reason)),
    st.just({"event": "failed", "what": "x", "tail": ""}),
)
INPUTS = st.one_of(
    st.builds(lambda job_id: lambda s: reactor.on_submitted(s, job_id), JOB_IDS),
    st.builds(lambda said, leads: lambda s: reactor.on_job(s, said, leads=leads), JOBS, st.booleans()),
    st.builds(lambda event: lambda s: reactor.on_pilot(s, event), EVENTS),
    st.builds(lambda route: lambda s: reactor.on_link(s, route), st.sampled_from(["", "direct"])),
    st.just(lambda s: reactor.on_trouble(s, "no way")),
    st.just(reactor.on_draining),
    st.builds(lambda ending: lambda s: reactor.on_ended(s, ending or Ending(reason=Reason.FAILED)), ENDINGS),
    st.just(lambda s: reactor.on_error(s, SiteError("no"))),
    st.just(lambda s: ClusterStatus.from_json(s.to_json())),  # the agent was replaced
)


@given(st.lists(INPUTS, max_size=40), st.sampled_from(State))
def test_any_order_is_legal(inputs, first):
    """Whatever is heard in whatever order, no move is illegal, and nothing that has ended changes."""
    now = status(first)
    for heard in inputs:
        after = heard(now)
        if now.state is State.ENDED:
            assert after == now
        assert (after.ending is not None) >= (after.state is State.ENDED and first is not State.ENDED)
        now = after


@given(st.lists(INPUTS, max_size=20))
def test_every_walk_can_end(inputs):
    """From wherever the news have led, the end of the leading job ends the cluster."""
    now = status(State.REQUESTED)
    for heard in inputs:
        now = heard(now)
    assert by_batch(now, ended(Reason.FAILED)).state is State.ENDED


@given(st.lists(INPUTS, max_size=20))
def test_a_cut_walk_recovers(inputs):
    """From wherever the news have led, a running job with a link and workers is ready, unless it is told to end."""
    now = replace(status(State.REQUESTED))
    for heard in inputs:
        now = heard(now)
    for heard in (
        lambda s: reactor.on_link(s, ""),
        lambda s: by_batch(s, job(JobState.RUNNING)),
        lambda s: reactor.on_link(s, "direct"),
        lambda s: reactor.on_pilot(s, LOAD),
    ):
        now = heard(now)
    assert now.state in (State.READY, State.DRAINING, State.ENDED)


def test_an_idle_cluster_says_when_it_ends():
    """The pilot's warning stands until it is taken back, or the cluster has ended; other notices stay."""
    before = status(State.READY, notices={"login": "needs you"})
    warned = reactor.on_pilot(before, {"event": "idle", "left": 240.0})
    assert warned.notices["idle"].startswith("ends at ")
    assert warned.notices["login"] == "needs you"
    assert reactor.on_pilot(warned, {"event": "idle", "left": None}).notices == before.notices
    assert by_batch(warned, ended(Reason.COMPLETED)).notices == {}
