"""Workers in nodes."""

from __future__ import annotations

import pytest

from hpcnb.model import ClusterSpec, ClusterStatus, JobState, JobStatus, Resources, State, WorkerCounts
from hpcnb.scaling import leaving, nodes_for, workers_per_node


def cluster(*states, workers=0, nodes=1, each=None):
    """A cluster whose jobs are in these states."""
    jobs = tuple(JobStatus(job_id=str(i), state=state) for i, state in enumerate(states))
    spec = ClusterSpec(site="octopus", name="fit", resources=Resources(nodes=nodes), workers_per_node=each)
    return ClusterStatus(id="0" * 16, spec=spec, state=State.READY, jobs=jobs, counts=WorkerCounts(workers=workers))


RUNS, WAITS = JobState.RUNNING, JobState.PENDING


@pytest.mark.parametrize(
    ("status", "each"),
    [
        (cluster(RUNS, workers=8), 8),
        (cluster(RUNS, RUNS, workers=8), 4),
        (cluster(RUNS, WAITS, workers=8), 8),
        (cluster(RUNS, workers=8, nodes=2), 4),
        (cluster(RUNS, workers=3, each=16), 16),
        (cluster(WAITS), 1),
    ],
)
def test_workers_of_a_node(status, each):
    """As many as were asked for, or as there are on those that run."""
    assert workers_per_node(status) == each
    assert nodes_for(each * 2, status) == 2
    assert nodes_for(each * 2 + 1, status) == 3
    assert nodes_for(0, status) == 0


def test_who_leaves():
    """Whole nodes go, those that came last first; those of the first job stay, and who is not ours is left alone."""
    names = ["0-n1-0", "0-n2-0", "1-n3-0", "1-n3-1", "12-n-4-0", "3-n5-0", "tcp://somebody"]
    status = cluster(RUNS, RUNS, RUNS, RUNS, nodes=2)
    assert leaving(names, 5, status) == []
    assert leaving(names, 4, status) == ["12-n-4-0"]
    assert leaving(names, 3, status) == ["12-n-4-0", "3-n5-0"]
    assert leaving(names, 0, status) == ["1-n3-0", "1-n3-1", "12-n-4-0", "3-n5-0"]
