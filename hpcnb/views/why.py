"""Why a cluster is not ready, or how it ended: one sentence, pure, from one snapshot and the time."""

from __future__ import annotations

import time

from hpcnb.model import ClusterStatus, JobStatus, Reason, State
from hpcnb.views.cluster import clock
from hpcnb.views.ending import facts
from hpcnb.views.visible import visible

__all__ = ["why"]


def why(status: ClusterStatus, now: float) -> str:
    """How it stands with a cluster.

    Examples
    --------
    ``fit is queued as job 117, to start about 14:05: 3rd in its partition; jobs with a higher priority go first (Priority)``
    """
    sentence = f"{status.spec.name} {_predicate(status, now)}"
    if status.unknown_since and status.state is not State.ENDED:
        sentence += f" (so it was {clock(now - status.unknown_since)} ago; the batch system has not answered since)"
    return visible(" ".join(sentence.split()))


def _predicate(status: ClusterStatus, now: float) -> str:
    detail = f": {status.detail}" if status.detail else ""
    job = _as_job(status.jobs[0], now) if status.jobs else ""
    link = f"the link ({status.route})" if status.route else "the link"
    words = {
        State.REQUESTED: "is not submitted yet",
        State.QUEUED: f"is queued{job}",
        State.STARTING: f"is starting{job}",
        State.UNREACHABLE: f"has been out of reach for {clock(now - status.changed)}, and its work goes on; {link} is down",
        State.DRAINING: "is told to end",
    }
    if status.state is State.READY:
        return _ready(status)
    return words[status.state] + detail if status.state in words else _ended(status)


def _as_job(job: JobStatus, now: float) -> str:
    if len(job.job_id) >= 32:  # a token, which tells nobody anything
        return ""
    start = job.estimated_start
    form = "%H:%M" if start is not None and abs(start - now) < 12 * 3600 else "%a %d %b %H:%M"
    return f" as job {job.job_id}" + (f", to start about {time.strftime(form, time.localtime(start))}" if start else "")


def _ready(status: ClusterStatus) -> str:
    counts = status.counts
    if counts.workers:
        waiting = sum(counts.tasks.get(state, 0) for state in ("waiting", "queued", "no-worker"))
        tasks = (
            f", {counts.tasks.get('processing', 0):,} tasks are with them and {waiting:,} wait" if counts.tasks else ""
        )
        sentence = f"is ready: {counts.workers} worker{'s' * (counts.workers != 1)}{tasks}"
    else:
        sentence = "is ready, but has no worker now"
    lost = status.notices.get("lost")
    return f"{sentence}; {lost}" if lost else sentence


def _ended(status: ClusterStatus) -> str:
    ending = status.ending
    if ending is None or ending.reason is Reason.COMPLETED:
        return f"has ended: {status.detail or 'as asked'}"
    place = facts(ending)
    # What never was submitted has an error of its own, with its own remedy.
    remedy = ending.suggestion or (status.error or {}).get("remedy", "")
    return f"has ended: {ending.message}" + (f" ({place})" if place else "") + (f"; {remedy}" if remedy else "")
