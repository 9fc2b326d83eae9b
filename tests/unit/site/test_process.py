"""Plain processes as a batch system, on this very machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcnb.errors import ConnectionFailed, SubmissionRejected
from hpcnb.model import JobState, JobStatus, Reason, Resources
from hpcnb.site import process
from hpcnb.site.batch import BatchUnknown, JobRequest
from hpcnb.site.local import LocalShell
from hpcnb.site.process import Process
from hpcnb.site.shell import Completed


async def until(look, good, seconds: float = 60):
    """Look until what is seen is good, and return it."""
    async with asyncio.timeout(seconds):
        while not good(seen := await look()):  # noqa: ASYNC110 (other processes signal no event)
            await asyncio.sleep(0.02)
    return seen


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


class Machine:
    """A process site in a folder, and the jobs that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.batch = Process(LocalShell(), "here", home=str(self.home))
        self.tokens: list[str] = []

    def request(self, script: str, name: str = "job", **resources) -> JobRequest:
        token = secrets.token_hex(16)
        self.tokens.append(token)
        path = self.folder / f"{name}.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o600)
        return JobRequest(
            token=token,
            name="job",
            script=str(path),
            directory=str(self.folder),
            log=str(self.folder / f"{name}.log"),
            resources=Resources(**resources),
        )

    async def submit(self, script: str, **resources) -> str:
        return await self.batch.submit(self.request(script, **resources))

    async def status(self, job_id: str) -> JobStatus:
        return (await self.batch.list([job_id]))[job_id]

    async def until_ended(self, job_id: str) -> JobStatus:
        await until(lambda: self.status(job_id), lambda status: status.state is JobState.ENDED)
        return await self.status(job_id)

    async def written(self, name: str) -> str:
        path = self.folder / name
        return await until(lambda: asyncio.to_thread(read, path), lambda text: text.endswith("\n"))

    def record(self, job_id: str) -> list[str]:
        return (self.home / "jobs" / job_id).read_text().split()

    def rewrite(self, job_id: str, **fields: str) -> None:
        names = ("leader", "began", "supervisor", "since", "end", "host", "boot")
        words = dict(zip(names, self.record(job_id), strict=True)) | fields
        (self.home / "jobs" / job_id).write_text(" ".join(words.values()) + "\n")


@pytest.fixture
async def machine(tmp_path):
    folder = tmp_path / "we ird '\"$x; %j"
    folder.mkdir()
    machine = Machine(folder)
    yield machine
    if (machine.home / "jobs").exists():
        await machine.batch.cancel(machine.tokens)
        for token in machine.tokens:
            if (await machine.status(token)).state is JobState.RUNNING:
                await machine.until_ended(token)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


async def gone(*pids: int) -> None:
    await until(lambda: asyncio.to_thread(lambda: [*filter(alive, pids)]), lambda left: not left)


@pytest.mark.parametrize(
    ("script", "reason", "code", "number"),
    [
        ("exit 0", Reason.COMPLETED, 0, None),
        ("exit 3", Reason.FAILED, 3, None),
        ("kill -9 $$", Reason.FAILED, None, 9),
        ("kill -SEGV $$", Reason.FAILED, None, 11),
        ("no-such-command", Reason.FAILED, 127, None),
    ],
)
async def test_how_it_ended(machine, script, reason, code, number):
    """The exit status or the signal of the script is kept, with a sentence."""
    job_id = await machine.submit(script)
    status = await machine.until_ended(job_id)
    assert (status.ending.reason, status.ending.exit_code, status.ending.signal) == (reason, code, number)
    assert status.ending.node == os.uname().nodename
    assert status.ending.message.startswith("the job ")
    assert await machine.status(job_id) == status


async def test_what_a_job_gets(machine):
    """A script starts where it was told to, in a session of its own, with its log private and its input empty."""
    job_id = await machine.submit("umask; pwd; cat; ps -o sid= -p $$; echo $$; echo oops >&2")
    await machine.until_ended(job_id)
    log = machine.folder / "job.log"
    umask, here, session, pid, oops = log.read_text().splitlines()
    assert (umask, here, oops) == ("0077", str(machine.folder), "oops")
    assert session.strip() == pid
    assert log.stat().st_mode & 0o777 == 0o600
    assert (machine.home / "jobs").stat().st_mode & 0o777 == 0o700
    assert all(f.stat().st_mode & 0o077 == 0 for f in (machine.home / "jobs").iterdir())


async def test_python_in_a_job_can_be_interrupted(machine):
    """Neither SIGINT nor any other signal arrives ignored, as it would from sh's own background."""
    job_id = await machine.submit("grep SigIgn /proc/self/status")
    await machine.until_ended(job_id)
    ignored = int((machine.folder / "job.log").read_text().split()[1], 16)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        assert not ignored & (1 << (number - 1))


async def test_running(machine):
    """A running job tells its node and the walltime that is left."""
    job_id = await machine.submit("sleep 60", walltime=100)
    status = await machine.status(job_id)
    assert (status.state, status.nodes) == (JobState.RUNNING, (os.uname().nodename,))
    assert 90 <= status.time_left <= 100
    assert status.ending is None


async def test_the_same_token_twice_is_one_job(machine):
    """A submission repeated because its answer was lost, even at the same moment, starts nothing more."""
    request = machine.request("echo x >>count; exec sleep 60")
    answers = await asyncio.gather(*(machine.batch.submit(request) for _ in range(5)))
    assert set(answers) == {request.token}
    assert await machine.batch.submit(request) == request.token
    assert await machine.written("count") == "x\n"
    assert await machine.batch.find(request.token) == [request.token]


async def test_find(machine):
    """A token that nobody submitted is not found, also where there has never been a job."""
    assert await machine.batch.find("0" * 32) == []
    await machine.submit("exit 0")
    assert await machine.batch.find("0" * 32) == []


async def test_the_walltime_ends_a_job(machine):
    """At its walltime a job gets the polite signal, and with it all its processes."""
    job_id = await machine.submit("sleep 60 & echo $! >child; sleep 60", walltime=1)
    child = int(await machine.written("child"))
    status = await machine.until_ended(job_id)
    assert status.ending.reason is Reason.TIMEOUT
    await gone(child)


async def test_cancel_is_polite_first(machine):
    """A job that cleans up on the polite signal has the time to."""
    job_id = await machine.submit("trap 'echo bye >bye; exit 0' TERM; echo up >up; while :; do sleep 0.05; done")
    await machine.written("up")
    begun = time.monotonic()
    await machine.batch.cancel([job_id])
    assert time.monotonic() - begun < 2
    status = await machine.until_ended(job_id)
    assert await machine.written("bye") == "bye\n"
    assert status.ending.reason is Reason.CANCELLED


async def test_cancel_ends_the_stubborn(machine):
    """What ignores the polite signal is killed after the grace, in the session whatever its process group."""
    script = "trap '' TERM; (set -m; sleep 61 & echo $! >child; wait) & while :; do sleep 0.1; done"
    job_id = await machine.submit(script)
    child = int(await machine.written("child"))
    await machine.batch.cancel([job_id])
    await machine.batch.cancel([job_id])
    status = await machine.until_ended(job_id)
    assert (status.ending.reason, status.ending.signal) == (Reason.CANCELLED, 9)
    await gone(child)


async def test_cancel_what_has_ended_or_never_was(machine):
    """To cancel an ended job, or one that never was, is no error and changes nothing."""
    job_id = await machine.submit("exit 3")
    await machine.until_ended(job_id)
    await machine.batch.cancel([job_id, "0" * 32])
    assert (await machine.status(job_id)).ending.reason is Reason.FAILED
    assert (await machine.status("0" * 32)).ending.message.startswith("the job is not known")


async def test_nothing_is_left_of_a_job(machine):
    """What a script leaves running ends with it, and so does all that looked after it."""
    job_id = await machine.submit("sleep 61 & echo $! >child; exit 5")
    supervisor = int(machine.record(job_id)[2])
    child = int(await machine.written("child"))
    status = await machine.until_ended(job_id)
    assert status.ending.exit_code == 5
    await gone(child, supervisor)


async def test_a_job_outlives_its_supervisor(machine):
    """Without its supervisor a job still runs, and can be cancelled; how it ended is then not known."""
    job_id = await machine.submit("exec sleep 61")
    leader, _, supervisor, *_ = machine.record(job_id)
    os.killpg(int(supervisor), signal.SIGKILL)
    await gone(int(supervisor))
    assert (await machine.status(job_id)).state is JobState.RUNNING
    await machine.batch.cancel([job_id])
    await gone(int(leader))
    status = await machine.until_ended(job_id)
    assert status.ending.message == "the job was killed together with its supervisor; how is not known"


async def test_another_process_with_the_same_number(machine):
    """A process that has got a job's number since is neither taken for the job nor killed."""
    stranger = await asyncio.create_subprocess_exec("sleep", "61", start_new_session=True)
    try:
        job_id = await machine.submit("exit 0")
        await machine.until_ended(job_id)
        (machine.home / "jobs" / f"{job_id}.exit").unlink()
        machine.rewrite(job_id, leader=str(stranger.pid), supervisor=str(stranger.pid))
        assert (await machine.status(job_id)).ending.message.startswith("the job was killed together")
        done = await LocalShell().run(["sh", "-c", process._text(), "x", "", "finish", str(stranger.pid), "1"])
        assert done.returncode == 0
        assert stranger.returncode is None
        assert alive(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_machine_that_was_restarted(machine):
    """After a restart of the machine the job's ending says so, and nothing is killed."""
    job_id = await machine.submit("exec sleep 61")
    leader = int(machine.record(job_id)[0])
    boot = machine.record(job_id)[6]
    machine.rewrite(job_id, boot="another")
    status = await machine.status(job_id)
    assert (status.state, status.ending.reason) == (JobState.ENDED, Reason.NODE_FAIL)
    await machine.batch.cancel([job_id])
    assert alive(leader)
    machine.rewrite(job_id, boot=boot)


async def test_a_job_of_another_machine(machine):
    """What another machine with the same home directory runs is unknown here, and not cancelled."""
    job_id = await machine.submit("exec sleep 61")
    machine.rewrite(job_id, host="elsewhere")
    status = await machine.status(job_id)
    assert (status.state, status.nodes) == (JobState.UNKNOWN, ("elsewhere",))
    with pytest.raises(BatchUnknown, match="runs on elsewhere"):
        await machine.batch.cancel([job_id])
    machine.rewrite(job_id, host=os.uname().nodename)


async def test_a_home_that_is_not_there(machine):
    """Where the records cannot be seen nothing is known, least of all that a job is gone."""
    job_id = await machine.submit("exec sleep 61")
    (machine.home / "jobs").rename(machine.home / "away")
    with pytest.raises(BatchUnknown, match="there is no directory"):
        await machine.status(job_id)
    (machine.home / "away").rename(machine.home / "jobs")


async def test_many_jobs_one_command(machine):
    """However many jobs there are, one command tells of all."""
    asked = []

    class Counting(LocalShell):
        async def run(self, argv, *, stdin=b"", timeout=30.0) -> Completed:
            asked.append(argv)
            return await super().run(argv, stdin=stdin, timeout=timeout)

    ids = [await machine.batch.submit(machine.request("exit 0", name=f"job{n}")) for n in range(5)]
    found = await Process(Counting(), "here", home=str(machine.home)).list(ids)
    assert set(found) == set(ids)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "resources",
    [{"nodes": 2}, {"partition": "debug"}, {"account": "m1"}, {"qos": "x"}, {"options": {"--x": ""}}, {"walltime": 0}],
)
async def test_what_one_machine_has_not(machine, resources):
    """Words that mean nothing without a batch system are refused, not dropped."""
    with pytest.raises(SubmissionRejected, match="site here"):
        await machine.submit("exit 0", **resources)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("script", "/no/such/script"),
        ("directory", "/no/such/directory"),
        ("log", "/no/such/directory/log"),
        ("script", "relative"),
        ("log", "/a\0b"),
        ("token", "../../etc"),
    ],
)
async def test_what_cannot_be_started(machine, field, value):
    """A script, directory or log that is not there is named, and nothing is started."""
    request = replace(machine.request("exit 0"), **{field: value})
    with pytest.raises(SubmissionRejected) as caught:
        await machine.batch.submit(request)
    assert value in str(caught.value) or repr(value) in str(caught.value)
    assert not list(machine.home.glob("jobs/*"))


async def test_a_machine_without_setsid(machine, tmp_path, monkeypatch):
    """What the machine lacks is named."""
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "uname", "mkdir", "chmod", "find"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SubmissionRejected, match="util-linux"):
        await machine.submit("exit 0")
    machine.tokens.clear()


@pytest.mark.parametrize("job_id", ["", "7", "../x", "-n", "0" * 31 + "\n", "A" * 32])
async def test_what_is_no_job_id(machine, job_id):
    """Nothing but a token of ours ever becomes part of a path."""
    for act in (machine.batch.cancel, machine.batch.list):
        with pytest.raises(ValueError, match="not the id"):
            await act([job_id])


class Answering:
    """A shell that answers what a test wants."""

    name = "there"

    def __init__(self, answer: Completed | Exception) -> None:
        self.answer = answer

    async def run(self, argv, *, stdin=b"", timeout=30.0) -> Completed:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def said(text: str, status: int = 0) -> Completed:
    return Completed(returncode=status, stdout=text.encode(), stderr=b"")


JOB = "a" * 32


@pytest.mark.parametrize(
    "answer",
    [
        said(""),
        said("garbage"),
        said(f"{JOB}\n"),
        said(f"{JOB} dreaming\n"),
        said(f"{JOB} running here soon\n"),
        said(f"{JOB} ended here\n", 1),
        ConnectionFailed("cut"),
        TimeoutError("slow"),
    ],
)
async def test_no_answer_is_not_gone(answer):
    """A failed, empty or garbled answer says nothing about any job."""
    with pytest.raises(BatchUnknown):
        await Process(Answering(answer), "there").list([JOB])


async def test_a_chatty_shell():
    """What a login shell prints around the answer is no part of it."""
    batch = Process(Answering(said(f"Welcome {JOB}!\n\n{JOB} running n1 60\nbye\n")), "there")
    assert (await batch.list([JOB]))[JOB].time_left == 60


@pytest.mark.parametrize("answer", [said("", -9), said("", 5), ConnectionFailed("cut"), TimeoutError("slow")])
async def test_a_submission_without_an_answer(machine, answer):
    """Whether the job was started is then unknown, not refused."""
    with pytest.raises(BatchUnknown):
        await Process(Answering(answer), "there").submit(machine.request("exit 0"))


async def test_what_ended_a_month_ago_is_forgotten(machine):
    """The next submission clears the records of jobs that ended a month ago, and of no others."""
    old, recent = [await machine.submit("exit 0") for _ in range(2)]
    for job_id in (old, recent):
        await machine.until_ended(job_id)
    os.utime(machine.home / "jobs" / f"{old}.exit", (0, 0))
    await machine.until_ended(await machine.submit("exit 0"))
    assert not list((machine.home / "jobs").glob(f"{old}*"))
    assert await machine.batch.find(recent) == [recent]
    assert (await machine.status(old)).raw == "gone"


@pytest.mark.parametrize("variable", ["HPCNB_HOME", "HOME"])
async def test_the_default_place(machine, monkeypatch, variable):
    """Without a home of the site's the records go to $HPCNB_HOME, or below the home directory."""
    monkeypatch.delenv("HPCNB_HOME", raising=False)
    monkeypatch.setenv(variable, str(machine.folder / "place"))
    machine.home = machine.folder / ("place" if variable == "HPCNB_HOME" else "place/.hpcnb")
    machine.batch = Process(LocalShell(), "here")
    job_id = await machine.submit("exit 0")
    await machine.until_ended(job_id)
    assert (machine.home / "jobs" / f"{job_id}.exit").exists()
    machine.tokens.clear()  # which are known only while the variable is set


@pytest.mark.parametrize("how", ["exit 0", "kill -9 $$", "kill -9 0"])
async def test_a_job_that_follows(machine, how):
    """A job can submit one that begins when it has ended, however that was; its id is told at once."""
    request = machine.request("")
    follow = shlex.join(process.submission(str(machine.home), request, "follow"))
    first = f"touch first; {follow} > id.new; mv id.new id; sleep 0.2; echo over >> order; {how}"
    Path(request.script).write_text(
        f"#!/bin/sh\n[ ! -e first ] || {{ echo $HPCNB_JOB_ID >> order; exit 0; }}\n{first}\n"
    )
    await machine.batch.submit(request)
    job_id = (await machine.written("id")).strip()
    machine.tokens.append(job_id)
    assert job_id != request.token
    assert (
        await until(lambda: asyncio.to_thread(read, machine.folder / "order"), lambda text: text.count("\n") == 2)
    ) == (f"over\n{job_id}\n")
    assert (await machine.until_ended(job_id)).ending.reason is Reason.COMPLETED


async def test_a_job_that_is_not_to_follow(machine):
    """A job that was to follow another one, and was withdrawn, does not begin, and leaves nothing behind."""
    request = machine.request("")
    home = str(machine.home)
    follow = shlex.join(process.submission(home, request, "follow"))
    withdraw = shlex.join(process.command(home, "withdraw"))
    script = f"{follow} > id.new; {withdraw} $(cat id.new); mv id.new id; echo begun >> order"
    Path(request.script).write_text(f"#!/bin/sh\n{script}\n")
    job_id = await machine.batch.submit(request)
    follower = (await machine.written("id")).strip()
    await machine.until_ended(job_id)
    await until(lambda: asyncio.to_thread((machine.home / "jobs" / f"{follower}.why").exists), lambda there: not there)
    assert (await machine.status(follower)).raw == "gone"
    assert read(machine.folder / "order") == "begun\n"


async def test_a_job_that_is_not_to_follow_although_that_is_seen_late(machine):
    """Withdrawn while nobody looked, it does not begin either when the job before it has ended."""
    before = await machine.submit("exit 0")
    await machine.until_ended(before)
    request = machine.request("echo begun > begun")
    jobs = machine.home / "jobs"
    (jobs / f"{request.token}.why").write_text("CANCELLED\n")
    # As `follow` in process.sh starts it.
    words = ("after", before, request.token, *process.submission("", request, "follow")[6:])
    assert (await LocalShell().run(process.command(str(machine.home), *words))).returncode == 0
    assert sorted(path.name for path in jobs.iterdir()) == [before, f"{before}.exit"]
