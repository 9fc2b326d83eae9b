"""What every batch system promises: Slurm and plain processes, here and over SSH."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from pathlib import Path

import pytest

from hpcnb.errors import SubmissionRejected
from hpcnb.model import JobState, Reason, Resources
from hpcnb.site.batch import Batch, JobRequest
from hpcnb.site.local import LocalShell
from hpcnb.site.process import Process
from hpcnb.site.slurm import Slurm
from hpcnb.site.ssh import SSHShell
from tests.site.sshd import User

pytestmark = pytest.mark.site

NASTY = "we ird '\"$x; %j `id`"


class Place:
    """A batch system and a directory in which its jobs start."""

    def __init__(self, batch: Batch, folder: Path) -> None:
        self.batch = batch
        self.folder = folder
        self.submitted: list[str] = []

    def request(self, script: str, *, directory: str = "", **resources) -> JobRequest:
        token = secrets.token_hex(16)
        run = self.folder / (directory or token)
        run.mkdir(exist_ok=True)
        (run / "job.sh").write_text(f"#!/bin/sh\n{script}\n")
        paths = {"script": str(run / "job.sh"), "directory": str(run), "log": str(run / "job.log")}
        return JobRequest(token=token, name="a.b_c-1", resources=Resources(**resources), **paths)

    async def submit(self, request: JobRequest) -> str:
        job_id = await self.batch.submit(request)
        self.submitted.append(job_id)
        return job_id

    async def until(self, job_id: str, *states: JobState):
        async with asyncio.timeout(60):
            while (status := (await self.batch.list([job_id]))[job_id]).state not in states:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return status


# Slurm on this very machine has its own tests.
@pytest.fixture(params=["slurm-ssh", "process-ssh", "process-local"])
async def place(request, sandbox, tmp_path):
    kind, way = request.param.split("-")
    if way == "ssh":
        shell = await SSHShell.connect(sandbox.host, ask=User(), config_file=sandbox.ssh_config)
    else:
        shell = LocalShell()
    batch = Slurm(shell, "site") if kind == "slurm" else Process(shell, "site", home=str(tmp_path / "home"))
    place = Place(batch, tmp_path)
    yield place
    if place.submitted:
        await place.batch.cancel(place.submitted)
    for job_id in place.submitted:
        await place.until(job_id, JobState.ENDED)
    await shell.close()


async def test_a_job_lives_and_ends(place):
    """A job is submitted, runs where it was told to, writes its log for its owner alone, and has ended."""
    request = place.request("pwd; echo oops >&2; exit 0", directory=NASTY)
    job_id = await place.submit(request)
    status = await place.until(job_id, JobState.ENDED)
    assert (status.job_id, status.ending.reason, status.ending.exit_code) == (job_id, Reason.COMPLETED, 0)
    assert status.ending.job_id == job_id
    assert (await LocalShell().read(request.log)).decode() == f"{request.directory}\noops\n"
    assert (await asyncio.to_thread(Path(request.log).stat)).st_mode & 0o777 == 0o600


async def test_a_running_job(place):
    """A running job tells where, and how much walltime is left."""
    job_id = await place.submit(place.request("sleep 60", walltime=600))
    status = await place.until(job_id, JobState.RUNNING)
    assert len(status.nodes) == 1
    assert 500 < status.time_left <= 600
    assert (status.ending, status.position) == (None, None)


@pytest.mark.parametrize(("script", "code", "number"), [("exit 7", 7, None), ("kill -9 $$", None, 9)])
async def test_a_job_that_fails(place, script, code, number):
    """A job that fails leaves its exit status or signal, its node, and a sentence."""
    job_id = await place.submit(place.request(script))
    ending = (await place.until(job_id, JobState.ENDED)).ending
    assert (ending.reason, ending.exit_code, ending.signal) == (Reason.FAILED, code, number)
    assert ending.node
    assert str(code or number) in ending.message


async def test_limits(place):
    """Slurm tells its partitions with what they allow, plain processes have none."""
    known = (await place.batch.limits()).partitions
    assert bool(known) == (place.batch.kind == "slurm")
    assert all(one.nodes >= 1 and one.up for one in known)


async def test_cancel(place):
    """A job that is cancelled says so, and to cancel it again changes nothing; the other job runs on."""
    job_id, other = [await place.submit(place.request("sleep 60")) for _ in range(2)]
    await place.until(job_id, JobState.RUNNING)
    await place.batch.cancel([job_id])
    status = await place.until(job_id, JobState.ENDED)
    assert status.ending.reason is Reason.CANCELLED
    await place.batch.cancel([job_id])
    found = await place.batch.list([job_id, other])
    assert found[job_id].ending == status.ending
    assert (await place.until(other, JobState.RUNNING)).ending is None


async def test_find(place):
    """A job is found by its token, while it runs and after it has ended; another token finds nothing."""
    request = place.request("exit 0")
    job_id = await place.submit(request)
    assert await place.batch.find(request.token) == [job_id]
    await place.until(job_id, JobState.ENDED)
    assert await place.batch.find(request.token) == [job_id]
    assert await place.batch.find(secrets.token_hex(16)) == []


async def test_a_job_that_never_was(place):
    """A job that a valid answer does not know has ended, with an honest word on how; to cancel it is no error."""
    job_id = await place.submit(place.request("exit 0"))
    stranger = "f" * 32 if place.batch.kind == "process" else "99999999"
    found = await place.batch.list([job_id, stranger])
    assert found[stranger] == (await place.batch.list([stranger]))[stranger]
    assert found[stranger].state is JobState.ENDED
    assert "known" in found[stranger].ending.message
    await place.batch.cancel([stranger])


async def test_a_no_submits_nothing(place):
    """A request that cannot be met is refused with the cause, the site and a remedy."""
    request = place.request("exit 0", nodes=99)
    with pytest.raises(SubmissionRejected, match="99 nodes") as caught:
        await place.submit(request)
    assert "site" in caught.value.where
    assert caught.value.remedy
    assert await place.batch.find(request.token) == []


async def test_no_signal_arrives_ignored(place):
    """A program in a job can be interrupted and asked to end, as in a terminal."""
    request = place.request("exec grep SigIgn /proc/self/status")
    await place.until(await place.submit(request), JobState.ENDED)
    ignored = int((await LocalShell().read(request.log)).split()[1], 16)
    assert not [s for s in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP) if ignored >> (s - 1) & 1]


async def test_when_a_job_would_start(place):
    """A batch system says when a job would start without submitting it, what would be refused, and what a job can have."""
    request = place.request("exit 0")
    assert abs(await place.batch.starts(request) - time.time()) < 600
    with pytest.raises(SubmissionRejected, match="99 nodes"):
        await place.batch.starts(place.request("exit 0", nodes=99))
    cores, nodes = await place.batch.room(request.resources)
    assert cores >= 1
    assert nodes >= 1
    assert await place.batch.find(request.token) == []
