"""Real deaths on a real Slurm: of each the right cause, the evidence and one suggestion, the same in HTML and as text."""

from __future__ import annotations

import functools
import html
import os
import re
import signal
import time

import pytest

import hpcnb as hpc
from hpcnb import handle
from hpcnb.model import Reason, State
from hpcnb.views.ending import deaths_html, deaths_text
from tests.site.account import jobs, until
from tests.site.account import slurm as run

pytestmark = [pytest.mark.site, pytest.mark.slow]

SOON = 60.0


@pytest.fixture(scope="module")
def slurm(sandbox):
    """Run one of Slurm's commands."""
    yield functools.partial(run, sandbox)
    until(lambda: not jobs(sandbox))


@pytest.fixture(scope="module")
def box(account, sandbox):
    """A site on the sandbox."""
    account.sites(box=sandbox.site_entry() | {"home": str(account.home)})
    yield "box"
    account.end()


@pytest.fixture
def cluster(box):
    """A cluster that is ready, on one node of two."""
    with hpc.Cluster(box, name="mortal", cores_per_node=2, memory_per_node="2GiB", workers_per_node=1) as made:
        made.wait_until_ready(SOON)
        yield made


@pytest.fixture
def urgent(slurm):
    """A partition whose jobs preempt those of the others."""
    slurm("scontrol", "create", "PartitionName=urgent", "Nodes=ALL", "PriorityTier=10", "State=UP")
    yield "urgent"
    slurm("scancel", "--partition=urgent")
    until(lambda: not slurm("squeue", "--noheader", "--partition=urgent"))
    slurm("scontrol", "delete", "PartitionName=urgent")


def ended(cluster, reason, error, words, suggestion):
    """It has ended so: in the state, the error, the sentence, as text and in HTML."""
    until(lambda: cluster.state is State.ENDED, within=SOON)
    ending, (job,) = cluster.ending, cluster.jobs
    assert (ending.reason, ending.job_id) == (reason, job.job_id)
    assert re.search(words, ending.message)
    assert suggestion in ending.suggestion
    with pytest.raises(error) as caught:
        cluster.wait_until_ready(1)
    assert f"job {job.job_id}" in str(caught.value)
    assert str(caught.value).endswith(f"→ {ending.suggestion}")
    assert cluster.why().startswith(f"mortal has ended: {ending.message} (job {job.job_id}")
    assert "\n" not in cluster.why()
    assert shown(cluster).startswith(f"✗ {reason.replace('_', ' ')}: {ending.message}")
    return ending


def shown(cluster):
    """What a page and a terminal say of deaths, which is the same."""
    text = deaths_text(cluster.snapshot)
    page = html.unescape(re.sub("</?(div|pre)[^>]*>", "\n", deaths_html(cluster.snapshot)))
    page = re.sub("<[^>]*>", "", page)
    assert page.split() == [word for word in text.split() if word != "|"]
    assert deaths_html(cluster.snapshot) in cluster._repr_html_()
    return text


def test_the_walltime(cluster, slurm):
    """A walltime that runs out is TIMEOUT, with a longer one to ask for."""
    (job,) = cluster.jobs
    slurm("scontrol", "update", f"JobId={job.job_id}", "EndTime=now")
    ended(cluster, Reason.TIMEOUT, hpc.JobTimeout, "walltime", "--walltime 2h")


def test_the_memory(cluster):
    """Too much memory is OUT_OF_MEMORY, with the peak, the limit, the node, whose it was, and how much to ask for."""
    with pytest.raises(hpc.JobOutOfMemory, match=r"--memory-per-node \dGiB"):
        cluster.session.wait(
            cluster.session.execute("x = bytearray(3 << 30); import time; time.sleep(600)", on_message=print)
        )
    words = r"\d(\.\d)? of 2 GiB on n\d"
    ending = ended(cluster, Reason.OUT_OF_MEMORY, hpc.JobOutOfMemory, words, "--memory-per-node")
    assert "memory limit" in ending.tail


def test_scancel(cluster, slurm):
    """A job that is cancelled by hand is CANCELLED, and nobody here knows by whom; what its node has done can still be seen."""
    (job,) = cluster.jobs
    hpc.use(cluster)
    hpc.submit(time.sleep, 1).result()
    until(lambda: handle.run(cluster.handle.search("history")).get("number") == 1)
    future = hpc.submit(time.sleep, 600)
    until(lambda: "runs on worker" in future.why())
    slurm("scancel", job.job_id)
    ended(
        cluster, Reason.CANCELLED, hpc.JobFailed, "cancelled, by hand.* by whom is not recorded", "unless you meant it"
    )
    until(future.done)
    assert re.search(r" n\d: .*there 0:\d\d, busy .*\n1 task has ended", str(cluster.timeline()))
    assert re.match(f"sleep has failed: the batch job was cancelled.*job {job.job_id}", future.why())


def test_requeued(cluster, slurm):
    """A job that is put back into the queue, where its work is lost, ends the cluster at once, and does not run again."""
    (job,) = cluster.jobs
    slurm("scontrol", "update", f"JobId={job.job_id}", "Requeue=1")
    slurm("scontrol", "requeue", job.job_id)
    ended(cluster, Reason.CANCELLED, hpc.JobFailed, "put back into the queue", "Start the cluster again.")
    assert job.job_id not in slurm("squeue", "--noheader", "--format=%i").split()


def test_preempted(cluster, slurm, urgent):
    """A job that has to make room is PREEMPTED."""
    slurm("sbatch", f"--partition={urgent}", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 600")
    ended(cluster, Reason.PREEMPTED, hpc.JobPreempted, "make room for a more important one", "not preempted")


def test_what_a_cluster_loses(cluster, slurm):
    """A worker and a further job that die are told, each with its cause, and the cluster goes on; scaling clears the notice."""
    ((_, victim),) = cluster.client.run(os.getpid).items()
    os.kill(victim, signal.SIGSEGV)
    until(lambda: cluster.snapshot.losses)
    (worker,) = cluster.snapshot.losses
    assert (worker.reason, worker.signal, worker.job_id) == (Reason.FAILED, signal.SIGSEGV, cluster.jobs[0].job_id)
    assert "was killed by SIGSEGV" in worker.message
    cluster.scale(nodes=2)
    # A worker may be there before the batch system has said where its job runs.
    until(
        lambda: len(cluster.jobs) == 2 and cluster.jobs[1].nodes and cluster.snapshot.counts.workers == 2, within=SOON
    )
    further = cluster.jobs[1].job_id
    (there,) = cluster.jobs[1].nodes
    victims = cluster.client.run(lambda dask_worker: (dask_worker.name, os.getpid())).values()
    os.kill(next(pid for name, pid in victims if name.startswith(f"1-{there}-")), signal.SIGKILL)
    until(lambda: len(cluster.snapshot.losses) == 2)
    other = cluster.snapshot.losses[1]
    assert (other.job_id, other.node, "was killed by SIGKILL" in other.message) == (further, there, True)
    slurm("scancel", further)
    until(lambda: len(cluster.snapshot.losses) == 3)
    lost = cluster.snapshot.losses[2]
    assert (lost.reason, lost.job_id) == (Reason.CANCELLED, further)
    assert f"job {further}" in cluster.snapshot.notices["lost"]
    assert [line[:9] for line in shown(cluster).splitlines() if "✗" in line] == ["✗ failed:", "✗ failed:", "✗ cancell"]
    assert cluster.state is State.READY
    cluster.scale(nodes=2)
    until(lambda: cluster.snapshot.counts.workers == 2, within=SOON)
    assert "lost" not in cluster.snapshot.notices
    cluster.scale(nodes=1)
    until(lambda: len(cluster.jobs) == 1)
    assert len(cluster.snapshot.losses) == 3
