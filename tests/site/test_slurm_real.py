"""Slurm as it really answers: queues, refusals, nodes, and answers that get lost."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcnb.errors import SubmissionRejected
from hpcnb.model import JobState, Reason, Resources
from hpcnb.site.batch import BatchUnknown, JobRequest
from hpcnb.site.local import LocalShell
from hpcnb.site.slurm import Slurm
from hpcnb.site.slurm_pending import explain_pending

pytestmark = pytest.mark.site


class Site:
    """The sandbox's Slurm, and the jobs that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.slurm = Slurm(LocalShell(), "sandbox")
        self.folder = folder
        self.log = folder / "job.log"

    def request(self, script: str = "sleep 60", **resources) -> JobRequest:
        (self.folder / "job.sh").write_text(f"#!/bin/sh\n{script}\n")
        return JobRequest(
            token=secrets.token_hex(16),
            name="job",
            script=str(self.folder / "job.sh"),
            directory=str(self.folder),
            log=str(self.log),
            resources=Resources(**resources),
        )

    async def submit(self, script: str = "sleep 60", **resources) -> str:
        return await self.slurm.submit(self.request(script, **resources))

    async def until(self, job_id: str, good):
        async with asyncio.timeout(60):
            while not good(status := (await self.slurm.list([job_id]))[job_id]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return status

    async def ended(self, job_id: str):
        return await self.until(job_id, lambda status: status.state is JobState.ENDED)

    async def running(self, job_id: str):
        return await self.until(job_id, lambda status: status.state is JobState.RUNNING)

    def command(self, *argv: str) -> str:
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


@pytest.fixture
async def site(sandbox, tmp_path, monkeypatch):
    for name, value in sandbox.slurm_env.items():
        monkeypatch.setenv(name, value)
    site = Site(tmp_path)
    yield site
    site.command("scancel", "--me")
    async with asyncio.timeout(60):
        while await asyncio.to_thread(site.command, "squeue", "--noheader"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_queue(site):
    """Jobs that wait tell why, at which place, and when they may start; the sentence tells it to the user."""
    first = await site.submit(nodes=2, cores_per_node=4, walltime=600)
    await site.running(first)
    second, third = [await site.submit(nodes=2, cores_per_node=4, walltime=600) for _ in range(2)]
    held = await site.submit(options={"--hold": ""})
    jobs = [first, second, third, held]
    found = await site.slurm.list(jobs)
    status = await site.until(third, lambda s: s.reason == "Priority" and s.estimated_start and s.position == 2)
    # Between two looks at the queue Slurm forgets the reasons for a moment.
    waiting = await site.until(second, lambda s: s.reason == "Resources" and s.estimated_start)
    async with asyncio.timeout(60):
        while [found[i].position for i in jobs] != [None, 1, 2, None]:
            found = await site.slurm.list(jobs)
    assert found[first].nodes == ("n1", "n2")
    assert waiting.estimated_start < status.estimated_start
    assert explain_pending(status).startswith("1 ahead in main; jobs with a higher priority go first")
    assert "scontrol release" in explain_pending(await site.until(held, lambda s: s.reason == "JobHeldUser"))
    await site.slurm.cancel([second, held])
    assert (await site.until(third, lambda s: s.position)).position == 1
    assert (await site.ended(held)).ending.reason is Reason.CANCELLED


async def test_one_task_per_node_with_all_its_cores(site):
    """Inside, one srun starts one process on each node with all the cores that were asked for."""
    job_id = await site.submit(
        "srun --cpus-per-task=$SLURM_CPUS_ON_NODE sh -c 'echo $SLURMD_NODENAME $SLURM_CPUS_PER_TASK $SLURM_CPUS_ON_NODE'",
        nodes=2,
        cores_per_node=3,
        memory_per_node=2**28,
    )
    assert (await site.ended(job_id)).ending.reason is Reason.COMPLETED
    assert sorted(site.log.read_text().splitlines()) == ["n1 3 3", "n2 3 3"]


async def test_the_environment_of_a_job(site, monkeypatch):
    """Secrets and foreign limits of the submitting process do not reach the job; PATH and HOME do."""
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "s3cret")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "77")
    monkeypatch.setenv("SBATCH_PARTITION", "no-such")
    await site.ended(await site.submit("env"))
    seen = dict(line.split("=", 1) for line in site.log.read_text().splitlines())
    assert "JUPYTERHUB_API_TOKEN" not in seen
    assert "SLURM_TIME_FORMAT" not in seen
    assert seen["SLURM_MEM_PER_CPU"] != "77"
    assert seen["SLURM_JOB_PARTITION"] == "main"
    assert (seen["PATH"], seen["HOME"]) == (os.environ["PATH"], os.environ["HOME"])


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"partition": "gpuu"}, "Partitions there: main (2 nodes, 4 cores each, up to 1d, default), debug (1 node"),
        ({"partition": "debug", "walltime": 3600}, "1h is above the limit of partition debug, 30m"),
        ({"partition": "debug", "nodes": 2, "walltime": 600}, "2 nodes are more than partition debug gives one job, 1"),
        ({"cores_per_node": 5}, "5 cores per node are more than partition main gives one job, 4"),
        ({"memory_per_node": 2**50}, "less memory_per_node="),
        ({"gpus_per_node": 1}, "gpus_per_node="),
        ({"options": {"--constraint": "no-such"}}, "Invalid feature specification"),
        ({"options": {"--no-such-option": "1"}}, "unrecognized option"),
    ],
)
async def test_refusals(site, resources, words):
    """Slurm's real refusals are recognised, and what would wait for ever is refused first."""
    with pytest.raises(SubmissionRejected) as caught:
        await site.submit(**resources)
    assert words in str(caught.value)
    assert not site.command("squeue", "--noheader", "--me")


async def test_a_node_that_fails(site):
    """The end of a node ends its job with that reason."""
    job_id = await site.submit(options={"--nodelist": "n2"})
    await site.running(job_id)
    site.command("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    try:
        status = await site.ended(job_id)
    finally:
        # It may have come back by itself meanwhile, and cannot be told to then.
        site.command("sh", "-c", "scontrol update nodename=n2 state=resume || true")
    async with asyncio.timeout(60):
        while "idle" not in await asyncio.to_thread(site.command, "sinfo", "-h", "-n", "n2", "-o", "%T"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (status.ending.reason, status.ending.node) == (Reason.NODE_FAIL, "n2")


async def test_a_log_that_cannot_be_written(site):
    """A job whose log cannot be opened on its node says so, and not that it was killed by signal 53."""
    request = site.request()
    site.log.mkdir()
    status = await site.ended(await site.slurm.submit(request))
    assert status.ending.reason is Reason.FAILED
    assert "could not open the batch job's log" in status.ending.message


async def test_an_answer_that_gets_lost(site, tmp_path, monkeypatch):
    """A job that was queued although sbatch reported a failure is adopted, and there is one of it."""
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "sbatch").write_text(
        f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >/dev/null\n'
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\nexit 1\n"
    )
    (shims / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    request = site.request()
    job_id = await site.slurm.submit(request)
    assert await site.slurm.find(request.token) == [job_id]
    assert site.command("squeue", "--noheader", "--me", "--format=%i").split() == [job_id]


async def test_slurm_without_its_cluster(site, monkeypatch, tmp_path):
    """Commands that cannot find their cluster know nothing of jobs, and a submission says why it failed."""
    job_id = await site.submit()
    (tmp_path / "slurm.conf").write_text("nonsense\n")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
        with pytest.raises(BatchUnknown):
            await site.slurm.list([job_id])
        with pytest.raises(SubmissionRejected, match="configuration"):
            await site.submit()
    assert (await site.running(job_id)).job_id == job_id
