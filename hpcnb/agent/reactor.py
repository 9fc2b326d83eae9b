"""How a cluster's status changes when something is heard of it: values in, values out, no I/O.

One function for each source: the batch system, the pilot, the link, the user.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hpcnb.agent import postmortem
from hpcnb.errors import (
    BatchError,
    HPCError,
    JobFailed,
    JobOutOfMemory,
    JobPreempted,
    JobTimeout,
    NodeFailed,
)
from hpcnb.model import (
    ClusterStatus,
    Ending,
    GroupLoad,
    JobState,
    JobStatus,
    NodeLoad,
    Reason,
    State,
    WorkerCounts,
    move,
)

ERRORS: Mapping[Reason, type[BatchError]] = {
    Reason.TIMEOUT: JobTimeout,
    Reason.OUT_OF_MEMORY: JobOutOfMemory,
    Reason.NODE_FAIL: NodeFailed,
    Reason.PREEMPTED: JobPreempted,
}

VAGUE = (Reason.COMPLETED, Reason.CANCELLED, Reason.FAILED)

_LOADS: Mapping[str, type[NodeLoad | GroupLoad]] = {"nodes": NodeLoad, "groups": GroupLoad}

LOSSES = 5
"""How many losses of workers and further jobs are remembered."""
WORDS = 800
"""Characters of the log that stay with a loss, since each status carries all of them."""


def set_state(status: ClusterStatus, state: State, **changes: Any) -> ClusterStatus:
    """Move to a state that may follow, or stay in it, with further fields changed."""
    changed = status.changed if state is status.state else time.time()
    return replace(status, state=move(status.state, state), changed=changed, **changes)


def on_submitted(status: ClusterStatus, job_id: str) -> ClusterStatus:
    """The batch system has taken the leading job."""
    if status.state is State.ENDED:
        return status
    status = replace(status, jobs=(JobStatus(job_id=job_id, state=JobState.PENDING, submitted=time.time()),))
    if status.state is not State.REQUESTED:  # told to end while it was being submitted
        return status
    return set_state(status, State.QUEUED, detail="submitted")


def on_job(status: ClusterStatus, job: JobStatus, *, leads: bool, explanation: str = "") -> ClusterStatus:
    """The batch system said something about one of the cluster's jobs."""
    if status.state is State.ENDED:
        return status
    if job.state is JobState.UNKNOWN:
        return replace(status, unknown_since=status.unknown_since or time.time())
    status = replace(status, unknown_since=None, heard=time.time())
    # With the link up the job runs, whatever an answer says that was asked for earlier.
    if job.state is JobState.PENDING and leads and status.link:
        return status
    before = next((known for known in status.jobs if known.job_id == job.job_id), job)
    if before.state is JobState.RUNNING and job.state is not JobState.RUNNING:
        status = replace(status, spent=status.spent + before.core_seconds(status.heard))
    status = replace(status, jobs=_with(status.jobs, _followed(job, before, status), leads=leads))
    return _on_leader(status, job, explanation) if leads else status


def _on_leader(status: ClusterStatus, job: JobStatus, explanation: str) -> ClusterStatus:
    status = replace(status, walltime_left=job.time_left)
    if job.state is JobState.ENDED:
        return on_ended(status, job.ending or Ending(reason=Reason.FAILED, job_id=job.job_id))
    if job.state is JobState.PENDING and status.state is not State.DRAINING:
        return set_state(status, State.QUEUED, detail=explanation, counts=WorkerCounts())
    if job.state is JobState.RUNNING:
        where = ", ".join(job.nodes)
        return _started(status, f"the job runs on {where}; the scheduler is starting")
    return status


def _followed(job: JobStatus, before: JobStatus, status: ClusterStatus) -> JobStatus:
    """What a job's earlier answers tell besides the new one: how its estimate moved, and when and on what it began."""
    job = replace(job, submitted=before.submitted or status.heard)
    if job.state is JobState.PENDING:
        return replace(job, first_estimate=before.first_estimate or job.estimated_start)
    started, cores = job.started or before.started, job.cores or before.cores
    if job.state is JobState.RUNNING and not started and job.time_left is not None:
        started = status.heard - (status.spec.resources.walltime - job.time_left)
    nodes, partition = job.nodes or before.nodes, job.partition or before.partition
    if not nodes and job.ending and job.ending.node and status.spec.resources.nodes == 1:
        nodes = (job.ending.node,)  # it was over before it was ever seen to run
    return replace(job, started=started, cores=cores, nodes=nodes, partition=partition)


def _started(status: ClusterStatus, detail: str) -> ClusterStatus:
    """The leading job runs: the batch system or the pilot says so, whoever is first."""
    if status.state not in (State.REQUESTED, State.QUEUED):
        return status
    if status.jobs and status.jobs[0].state is JobState.PENDING:
        leader = replace(status.jobs[0], state=JobState.RUNNING, reason="", started=time.time())
        status = replace(status, jobs=(leader, *status.jobs[1:]))
    # An agent that was replaced while it submitted leaves a running job behind as "requested".
    return set_state(set_state(status, State.QUEUED), State.STARTING, detail=detail)


def _with(jobs: tuple[JobStatus, ...], job: JobStatus, *, leads: bool) -> tuple[JobStatus, ...]:
    others = tuple(j for j in jobs if j.job_id != job.job_id)
    if job.state is JobState.ENDED and not leads:
        return others
    return (job, *others) if leads else (*others, job)


def on_pilot(status: ClusterStatus, event: Mapping[str, Any]) -> ClusterStatus:
    """The pilot passed on what its processes said."""
    if status.state is State.ENDED:
        return status
    if event["event"] == "load":
        counts = replace(status.counts, workers=event["workers"], cores=event["cores"], tasks=event["tasks"])
        return _on_load(status, counts)
    if kind := _LOADS.get(what := event["event"]):
        loads: dict[str, Any] = {what: tuple(map(kind.from_json, event[what]))}
        return replace(status, counts=replace(status.counts, **loads))
    if event["event"] == "idle":
        return on_notice(status, "idle", _idle(event["left"]))
    if event["event"] == "worker-exit":
        lost = postmortem.of_worker(event, status.jobs)
        status = replace(status, detail=lost.message)
        return status if lost.reason is Reason.COMPLETED else _remember(status, lost)
    if event["event"] == "ended" and status.state is not State.DRAINING:
        # Nobody here asked for it: the reason is kept, or the end would count as asked for.
        said = Ending(reason=Reason(event["reason"]), message=event["message"])
        return replace(on_draining(status), detail=said.message, ending=said)
    return status


def on_lost(status: ClusterStatus, ending: Ending) -> ClusterStatus:
    """A further job is over that nobody here has ended; the cluster goes on with the others."""
    if status.state in (State.DRAINING, State.ENDED):
        return status
    where = f"job {ending.job_id}" + (f" (node {ending.node})" if ending.node else "")
    text = f"{where} was lost: {ending.message}. {ending.suggestion}".rstrip()
    return on_notice(_remember(status, ending), "lost", text)


def _remember(status: ClusterStatus, ending: Ending) -> ClusterStatus:
    losses = (*status.losses, replace(ending, tail=ending.tail[-WORDS:]))
    return replace(status, losses=losses[-LOSSES:])


def was_begun(status: ClusterStatus, job: JobStatus, *, leads: bool) -> bool:
    """Whether the pilot of a job that is pending now has begun before."""
    if leads:
        asked = status.state is State.DRAINING and (not status.ending or status.ending.message == postmortem.REQUEUED)
        return bool(status.route) and not status.link and not asked
    return any(known.job_id == job.job_id and known.state is JobState.RUNNING for known in status.jobs)


def on_requeued(status: ClusterStatus) -> ClusterStatus:
    """The leading job was put back into the queue after its pilot had begun: what it ran is lost."""
    ending = Ending(reason=Reason.CANCELLED, message=postmortem.REQUEUED)
    return replace(on_draining(status), detail=ending.message, ending=ending)


def on_notice(status: ClusterStatus, topic: str, text: str) -> ClusterStatus:
    """There is something that the user should do, or (an empty text) no longer."""
    notices = {known: words for known, words in status.notices.items() if known != topic}
    return replace(status, notices=notices | ({topic: text} if text else {}))


def _idle(left: float | None) -> str:
    if left is None:
        return ""
    at = time.strftime("%H:%M", time.localtime(time.time() + left))
    return f"ends at {at} because nobody uses it (idle-timeout): any use, or `%hpc keep`, keeps it"


def _on_load(status: ClusterStatus, counts: WorkerCounts) -> ClusterStatus:
    status = replace(status, counts=counts)
    if status.jobs and not status.jobs[0].cores and status.jobs[0].state is JobState.RUNNING:
        # A batch system that counts no cores: those of the workers are what is used.
        status = replace(status, jobs=(replace(status.jobs[0], cores=counts.cores), *status.jobs[1:]))
    if status.state is not State.STARTING:
        return status
    if counts.workers:
        return set_state(status, State.READY, detail="")
    return replace(status, detail="the scheduler runs; its workers are starting")


def on_link(status: ClusterStatus, route: str) -> ClusterStatus:
    """The link came up by a route, or went down (an empty route)."""
    if status.state is State.ENDED:
        return status
    status = replace(status, link=route, route=route or status.route)
    if route:
        if status.state is State.UNREACHABLE:
            return set_state(status, State.READY, detail="")
        return _started(status, "the pilot answers")
    if status.state is State.READY:
        return set_state(status, State.UNREACHABLE, detail="the connection is cut; it is being made again")
    return status


def on_trouble(status: ClusterStatus, what: str) -> ClusterStatus:
    """The link cannot be made, for now or for good."""
    if status.link or status.state not in (State.STARTING, State.UNREACHABLE):
        return status
    return replace(status, detail=what)


def on_draining(status: ClusterStatus) -> ClusterStatus:
    """The user (or idleness) asked for the end."""
    if status.state in (State.DRAINING, State.ENDED):
        return status
    return set_state(status, State.DRAINING, detail="ending")


def on_ended(status: ClusterStatus, ending: Ending) -> ClusterStatus:
    """The leading job is over; what was asked for counts as completed."""
    if status.state is State.ENDED:
        return status
    asked = status.state is State.DRAINING and status.ending is None
    if asked and ending.reason in (Reason.CANCELLED, Reason.FAILED):
        ending = replace(ending, reason=Reason.COMPLETED, message="ended as asked", suggestion="")
    if status.ending and status.ending.message == postmortem.REQUEUED and ending.reason in VAGUE:
        # A start after that has overwritten the log.
        ending = replace(ending, reason=status.ending.reason, message=postmortem.REQUEUED)
    return set_state(
        status,
        State.ENDED,
        ending=ending,
        error=error_of(ending, status),
        link="",
        counts=WorkerCounts(),
        walltime_left=None,
        notices={},
        detail=ending.message or f"ended: {ending.reason}",
    )


def on_error(status: ClusterStatus, error: HPCError) -> ClusterStatus:
    """It could not even be submitted."""
    if status.state is State.ENDED:
        return status
    ending = Ending(reason=Reason.FAILED, message=error.what)
    return set_state(status, State.ENDED, ending=ending, error=error.to_json(), detail=error.what)


def error_of(ending: Ending, status: ClusterStatus) -> dict[str, str] | None:
    """The error that says how a cluster ended; None if it ended as it should."""
    if ending.reason is Reason.COMPLETED:
        return None
    place = [f"site {status.spec.site}"]
    place += [f"job {ending.job_id}"] if ending.job_id else []
    place += [f"node {ending.node}"] if ending.node else []
    cls = ERRORS.get(ending.reason, JobFailed)
    return cls(ending.message, where=", ".join(place), evidence=ending.tail, remedy=ending.suggestion).to_json()
