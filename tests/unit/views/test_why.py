"""Why a cluster is not ready, or how it ended: one sentence for each state."""

from __future__ import annotations

import pytest

from hpcnb.errors import JobTimeout, SiteError
from hpcnb.future.why import why_failed
from hpcnb.model import (
    ClusterSpec,
    ClusterStatus,
    Ending,
    JobState,
    JobStatus,
    Reason,
    Resources,
    State,
    WorkerCounts,
)
from hpcnb.views.why import why
from tests.unit.views.test_cluster import utc

__all__ = ["utc"]

NOW = 1_800_000_000.0  # Friday 15 January 2027, 08:00 UTC
PRIORITY = "3rd in its partition; jobs with a higher priority go first (Priority)"
DIED = Ending(
    reason=Reason.OUT_OF_MEMORY,
    job_id="117",
    node="n1",
    message="9.8 of 8 GiB",
    tail="x\ny",
    suggestion="Ask for 12 GiB.",
)
LOST = {"lost": "job 118 (node n2) was lost: the walltime ran out. Ask for 2h."}


def status(state, *, job_id="117", start=None, **fields):
    """A cluster in a state."""
    job = JobStatus(job_id=job_id, state=JobState.PENDING, estimated_start=start)
    spec = ClusterSpec(site="octopus", name="fit", resources=Resources())
    return ClusterStatus(id="0" * 16, spec=spec, state=state, jobs=(job,), changed=NOW - 14, **fields)


GOLDEN = [
    (status(State.REQUESTED, detail="connecting"), "fit is not submitted yet: connecting"),
    (
        status(State.QUEUED, start=NOW + 3900, detail=PRIORITY),
        f"fit is queued as job 117, to start about 09:05: {PRIORITY}",
    ),
    (status(State.QUEUED, start=NOW + 86400), "fit is queued as job 117, to start about Sat 16 Jan 08:00"),
    (
        status(State.STARTING, job_id="f" * 32, detail="its workers are starting"),
        "fit is starting: its workers are starting",
    ),
    (
        status(State.QUEUED, unknown_since=NOW - 60, detail="submitted"),
        "fit is queued as job 117: submitted (so it was 1:00 ago; the batch system has not answered since)",
    ),
    (status(State.READY), "fit is ready, but has no worker now"),
    (
        status(
            State.READY, counts=WorkerCounts(workers=2, cores=8, tasks={"processing": 8, "queued": 12_000, "memory": 3})
        ),
        "fit is ready: 2 workers, 8 tasks are with them and 12,000 wait",
    ),
    (status(State.READY, counts=WorkerCounts(workers=1), notices=LOST), f"fit is ready: 1 worker; {LOST['lost']}"),
    (
        status(State.UNREACHABLE, route="exec", detail="no answer"),
        "fit has been out of reach for 0:14, and its work goes on; the link (exec) is down: no answer",
    ),
    (status(State.DRAINING, detail="ending"), "fit is told to end: ending"),
    (status(State.ENDED, ending=DIED), "fit has ended: 9.8 of 8 GiB (job 117, node n1); Ask for 12 GiB."),
    (
        status(State.ENDED, ending=Ending(reason=Reason.COMPLETED), detail="ended as asked"),
        "fit has ended: ended as asked",
    ),
    (
        status(
            State.ENDED,
            ending=Ending(reason=Reason.FAILED, message="no such partition"),
            error=SiteError("no such partition", remedy="Choose main.").to_json(),
        ),
        "fit has ended: no such partition; Choose main.",
    ),
]


@pytest.mark.parametrize(("known", "sentence"), GOLDEN, ids=[f"{i}-{row[0].state}" for i, row in enumerate(GOLDEN)])
def test_each_state_has_its_sentence(known, sentence):
    """In one sentence: what is waited for, the place, the link, or what it died of and what to do."""
    assert why(known, NOW) == sentence


def test_every_state_is_there():
    """No state is forgotten above."""
    assert {row[0].state for row in GOLDEN} == {*State}


def test_hostile_words():
    """What a site says stays on one line, and is not obeyed by a terminal."""
    assert why(status(State.QUEUED, detail="a\nb\x1b[2J"), NOW) == "fit is queued as job 117: a b␛[2J"


def test_what_a_future_died_of():
    """An error of ours with its place and its remedy, another one with its type, each on one line."""
    ours = JobTimeout("the walltime ran out", where="job 7", evidence="a\nb", remedy="Ask for 2h.")
    assert why_failed("fit", ours) == "fit has failed: the walltime ran out (job 7); Ask for 2h"
    assert why_failed("fit", ValueError("a\nb")) == "fit has failed: ValueError: a b"
    assert why_failed("fit", KeyError()) == "fit has failed: KeyError"
