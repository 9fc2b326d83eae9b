"""Slurm's commands replaced on PATH by programs that answer what a test wants."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from hpcnb.errors import ConnectionFailed, SubmissionRejected
from hpcnb.model import JobState, Reason, Resources
from hpcnb.site.batch import BatchUnknown, JobRequest
from hpcnb.site.local import LocalShell
from hpcnb.site.shell import Completed
from hpcnb.site.slurm import Slurm
from hpcnb.site.slurm_answers import SEPARATOR

TOKEN = "0123456789abcdef0123456789abcdef"
JOBS = "JOBID|STATE|REASON|NODELIST|TIME_LEFT|START_TIME|PARTITION|PRIORITY|CPUS\n"
TOKENS = "JOBID|COMMENT|COMMAND\n"
SINFO = "PARTITION|AVAIL|TIMELIMIT|NODES|JOB_SIZE|CPUS\nmain*|up|1:00:00|2|1-infinite|4\n"
RUNNING = "7|RUNNING|None|n[1-2]|10:00|1795310721|main|5|4\n"
DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"
LOST = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"

# Writes down how it was called and gives its nth answer, or its last.
SHIM = """#!/bin/sh
n=$(($(cat "$0.calls" 2>/dev/null | wc -l) + 1))
echo "$*" >>"$0.calls"
env >"$0.env"
while [ ! -e "$0.$n.status" ]; do n=$((n - 1)); done
cat "$0.$n.out"
cat "$0.$n.err" >&2
exit "$(cat "$0.$n.status")"
"""


class Shims:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for tool in ("sh", "env", "cat", "wc", "timeout", "id"):
            (folder / tool).symlink_to(shutil.which(tool))

    def answer(self, name: str, out: str = "", err: str = "", status: int = 0) -> None:
        """Say what a command answers next, and from then on."""
        path = self.folder / name
        path.write_text(SHIM)
        path.chmod(0o755)
        n = len(list(self.folder.glob(f"{name}.*.status"))) + 1
        out = out.replace("|", SEPARATOR) if name in ("squeue", "sinfo") else out
        for part, text in (("out", out), ("err", err), ("status", str(status))):
            (self.folder / f"{name}.{n}.{part}").write_text(text)

    def forget(self, name: str) -> None:
        for file in self.folder.glob(f"{name}*"):
            file.unlink()

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def environment(self, name: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.folder / f"{name}.env").read_text().splitlines())


@pytest.fixture
def shims(tmp_path, monkeypatch):
    shims = Shims(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    # No profile of the machine's may bring a real Slurm back.
    monkeypatch.setattr(Slurm, "_login_path", _no_path)
    shims.answer("sinfo", SINFO)
    return shims


async def _no_path(self: Slurm) -> str:
    return ""


@pytest.fixture
def slurm(shims, monkeypatch):
    monkeypatch.setattr(Slurm, "settle", 0.01)
    return Slurm(LocalShell(), "octopus")


def request_(**resources) -> JobRequest:
    return JobRequest(
        token=TOKEN, name="fit", script="/x/job.sh", directory="/x", log="/x/log", resources=Resources(**resources)
    )


async def test_which_slurm_it_is(slurm, shims):
    """Its version and its cluster, from an answer that the controller itself gives."""
    shims.answer(
        "scontrol", "Configuration data\nClusterName             = octopus\nSLURM_VERSION           = 24.11.5\n"
    )
    assert await slurm.version() == "Slurm 24.11.5 of cluster octopus"


@pytest.mark.parametrize("answer", [{"err": DOWN, "status": 1}, {"out": "hello\n"}])
async def test_no_slurm_is_made_up(slurm, shims, answer):
    """A controller that gives no answer, or one that makes no sense, is unknown."""
    shims.answer("scontrol", **answer)
    with pytest.raises(BatchUnknown):
        await slurm.version()


async def test_without_slurm_there_is_no_version(slurm):
    """That there is none is a no, with what to do."""
    with pytest.raises(SubmissionRejected, match="there is no sbatch on this machine") as caught:
        await slurm.version()
    assert "batch: process" in caught.value.remedy


async def test_who_pays(slurm, shims):
    """The user's accounts, and the one that pays by default; where accounts are not kept, none."""
    shims.answer("sacctmgr", err="You are not running a supported accounting_storage plugin\n", status=1)
    assert (await slurm.limits()).default_account == ""
    path = shims.folder / "sacctmgr"
    path.write_text('#!/bin/sh\ncase "$*" in *format=account) echo m2; echo m1;; *) echo m2;; esac\n')
    found = await slurm.limits()
    assert (found.accounts, found.default_account) == (("m1", "m2"), "m2")


async def test_submit(slurm, shims):
    """A job is submitted once and its id returned."""
    shims.answer("sbatch", "Welcome!\n7;octopus\n")
    assert await slurm.submit(request_()) == "7"
    [call] = shims.calls("sbatch")
    assert call.startswith("--parsable --export=ALL ")
    assert call.endswith(" --time=60 /x/job.sh")


async def test_the_environment_of_a_job_is_small(slurm, shims, monkeypatch):
    """Neither secrets nor variables of Slurm's reach a command, and so not the job; what it needs does."""
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "secret")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SQUEUE_FORMAT", "%A")
    monkeypatch.setenv("SBATCH_ACCOUNT", 'm1 "quoted" $HOME')
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/it's.conf")
    monkeypatch.delenv("LANG", raising=False)
    shims.answer("sbatch", "7\n")
    await slurm.submit(request_())
    seen = shims.environment("sbatch")
    assert seen["SBATCH_ACCOUNT"] == 'm1 "quoted" $HOME'
    assert seen["SLURM_CONF"] == "/etc/slurm/it's.conf"
    assert seen["HOME"] == os.environ["HOME"]
    assert not {"JUPYTERHUB_API_TOKEN", "SLURM_MEM_PER_CPU", "SQUEUE_FORMAT", "SLURM_TIME_FORMAT", "LANG"} & set(seen)


@pytest.mark.parametrize(
    ("err", "remedy"),
    [
        ("sbatch: error: invalid partition specified: gpuu\n", "Partitions there: main (2 nodes, 4 cores each, up to 1h, default)."),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n", "Your accounts there: m1, m2."),
        ("sbatch: error: Batch job submission failed: Invalid qos specification\n", "Change qos= or"),
        ("sbatch: error: Memory specification can not be satisfied\n", "less memory_per_node="),
    ],
)  # fmt: skip
async def test_a_no_is_explained(slurm, shims, err, remedy):
    """A refusal comes at once, verbatim, with what the site has instead."""
    shims.answer("sbatch", err=err, status=1)
    shims.answer("sacctmgr", "m2\nm1\nm1\n")
    with pytest.raises(SubmissionRejected) as caught:
        await slurm.submit(request_())
    assert caught.value.evidence == err.strip()
    assert remedy in caught.value.remedy
    assert caught.value.where == "site octopus"
    assert not shims.calls("squeue")


async def test_a_site_without_accounts(slurm, shims):
    """Where no accounts are kept, the message says so instead of listing none."""
    shims.answer("sbatch", err="sbatch: error: Batch job submission failed: Invalid account\n", status=1)
    with pytest.raises(SubmissionRejected, match="names no accounts of yours"):
        await slurm.submit(request_())


async def test_a_host_without_slurm(slurm):
    """Without sbatch the message names the host and both ways out."""
    with pytest.raises(SubmissionRejected, match="there is no sbatch on this machine") as caught:
        await slurm.submit(request_())
    assert "batch: process" in caught.value.remedy
    assert "~/.profile" in caught.value.remedy


async def test_slurm_that_only_a_login_shell_finds(slurm, shims, tmp_path, monkeypatch):
    """A command that is not found is looked for once more, with the PATH of a login shell, from then on."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    asked = []

    async def login_path(self):
        asked.append(1)
        return f"{os.environ['PATH']}:{hidden}"

    monkeypatch.setattr(Slurm, "_login_path", login_path)
    shims.answer("sbatch", "7\n")
    for file in tmp_path.glob("sbatch*"):
        file.rename(hidden / file.name)
    assert await slurm.submit(request_()) == "7"
    assert await slurm.submit(request_()) == "7"
    assert len(asked) == 1


async def test_the_path_of_a_login_shell(monkeypatch, tmp_path):
    """The PATH is taken out of whatever a profile prints around it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".profile").write_text('echo "Welcome!"\nPATH=$PATH:/opt/slurm/bin\n')
    assert (await Slurm(LocalShell(), "octopus")._login_path()).endswith(":/opt/slurm/bin")


async def test_above_a_limit_nothing_is_submitted(slurm, shims):
    """What Slurm would let wait for ever is refused with the limit."""
    with pytest.raises(SubmissionRejected, match="above the limit of partition main, 1h"):
        await slurm.submit(request_(walltime=3601))
    assert not shims.calls("sbatch")


@pytest.mark.parametrize("out", ["", "garbage"])
async def test_limits_that_nobody_tells(slurm, shims, out):
    """A sinfo that makes no sense forbids nothing."""
    shims.forget("sinfo")
    shims.answer("sinfo", out)
    shims.answer("sbatch", "7\n")
    assert await slurm.submit(request_(walltime=10**6)) == "7"


@pytest.mark.parametrize("answer", [{"err": LOST, "status": 1}, {"out": "garbage\n"}, {"err": "what?", "status": 1}])
async def test_a_lost_answer_is_found_again(slurm, shims, answer):
    """A job that was queued although sbatch failed is found by its comment, on the second look too."""
    shims.answer("sbatch", **answer)
    shims.answer("squeue", TOKENS)
    shims.answer("squeue", f"{TOKENS}6|other|/x\n7|{TOKEN}|/x/job.sh\n")
    assert await slurm.submit(request_()) == "7"
    assert len(shims.calls("sbatch")) == 1
    assert len(shims.calls("squeue")) == 2


@pytest.mark.parametrize(
    "queue",
    [
        {"out": TOKENS},
        {"out": f"{TOKENS}7|{TOKEN}|/x\n8|{TOKEN}|/x\n"},
        {"out": ""},
        {"err": DOWN, "status": 1},
    ],
)
async def test_what_cannot_be_told_stays_unknown(slurm, shims, queue):
    """After a lost answer, none, two or no readable jobs of ours leave the submission unknown, never refused."""
    shims.answer("sbatch", err=LOST, status=1)
    shims.answer("squeue", **queue)
    with pytest.raises(BatchUnknown, match="octopus"):
        await slurm.submit(request_())
    assert len(shims.calls("sbatch")) == 1


async def test_unclear_words_without_a_job_are_a_no(slurm, shims):
    """A complaint that we do not know is a refusal once two looks found no job."""
    shims.answer("sbatch", err="sbatch: error: You shall not pass\n", status=1)
    shims.answer("squeue", TOKENS)
    with pytest.raises(SubmissionRejected, match="You shall not pass"):
        await slurm.submit(request_())
    assert len(shims.calls("squeue")) == 2


async def test_one_question_for_all_jobs(slurm, shims):
    """However many jobs there are, squeue is asked once."""
    shims.answer("squeue", JOBS + RUNNING + RUNNING.replace("7", "8", 1))
    found = await slurm.list(["8", "7"])
    assert {i: s.state for i, s in found.items()} == {"7": JobState.RUNNING, "8": JobState.RUNNING}
    [call] = shims.calls("squeue")
    assert "--jobs=7,8 " in call


async def test_no_jobs_no_question(slurm, shims):
    """Nothing is asked about nothing."""
    assert await slurm.list([]) == {}
    await slurm.cancel([])
    assert not shims.calls("squeue")


@pytest.mark.parametrize(
    "answer",
    [
        {"err": DOWN, "status": 1},
        {"out": ""},
        {"out": "garbage"},
        {"out": JOBS + "7|RUN"},
        {"out": JOBS + "7|RUNNING|None|n[[|1|1|main|1|1\n"},
        {"err": "squeue: error: Invalid user: x", "status": 1},
    ],
)
async def test_no_answer_is_not_gone(slurm, shims, answer):
    """A failed, empty or garbled squeue says nothing about any job."""
    shims.answer("squeue", **answer)
    with pytest.raises(BatchUnknown, match="octopus"):
        await slurm.list(["7"])


async def test_a_state_that_we_do_not_know(slurm, shims):
    """A new word of a newer Slurm is unknown, and no error."""
    shims.answer("squeue", JOBS + RUNNING.replace("RUNNING", "DREAMING"))
    status = (await slurm.list(["7"]))["7"]
    assert (status.state, status.raw) == (JobState.UNKNOWN, "DREAMING")


@pytest.mark.parametrize(
    "answer", [{"out": JOBS}, {"err": "slurm_load_jobs error: Invalid job id specified\n", "status": 1}]
)
@pytest.mark.parametrize(
    "sacct",
    [{"out": "7|OUT_OF_MEMORY|0:125|n2\n"}, {"err": "Slurm accounting storage is disabled\n", "status": 1}, None],
)
async def test_a_job_that_slurm_has_forgotten(slurm, shims, answer, sacct):
    """A valid answer without the job means that it has ended; how, the accounting tells, or nobody."""
    shims.answer("squeue", **answer)
    if sacct:
        shims.answer("sacct", **sacct)
    status = (await slurm.list(["7"]))["7"]
    assert status.state is JobState.ENDED
    if sacct and "out" in sacct:
        assert (status.ending.reason, status.ending.node) == (Reason.OUT_OF_MEMORY, "n2")
    else:
        assert "no longer known to Slurm" in status.ending.message


async def test_how_a_job_ended(slurm, shims):
    """For jobs that have ended the controller is asked for the exit status, once for all."""
    shims.answer("squeue", JOBS + "7|FAILED|NonZeroExitCode|n1|1:00|1|main|1|1\n8|COMPLETED|None|n1|1:00|1|main|1|1\n")
    shims.answer("scontrol", "JobId=7 JobState=FAILED Reason=NonZeroExitCode ExitCode=3:0 BatchHost=n1\n")
    shims.answer("scontrol", err="slurm_load_jobs error: Invalid job id specified\n", status=1)
    found = await slurm.list(["7", "8"])
    assert (found["7"].ending.exit_code, found["7"].ending.node) == (3, "n1")
    assert found["8"].ending.reason is Reason.COMPLETED


WAITING = "7|PENDING|Priority||1:00|N/A|main,long|5|4\n"


async def test_the_place_comes_with_the_state(slurm, shims):
    """While one of ours waits, the same one question asks for all that wait where it does; else for ours alone."""
    shims.answer("scontrol", "PrivateData = none\n")
    shims.answer("squeue", JOBS + WAITING)
    shims.answer("squeue", JOBS + "6|PENDING|Priority||1:00|N/A|main|9|2\n" + WAITING)
    shims.answer("squeue", JOBS + RUNNING)
    assert (await slurm.list(["7"]))["7"].position is None
    status = (await slurm.list(["7"]))["7"]
    assert (status.position, status.smaller, status.hidden, status.partition) == (2, 1, False, "main,long")
    for _ in range(2):
        assert (await slurm.list(["7"]))["7"].state is JobState.RUNNING
    calls = shims.calls("squeue")
    assert [("--partition=long,main" in call, "--jobs=7" in call) for call in calls] == [
        (False, True),
        (True, False),
        (True, False),
        (False, True),
    ]
    assert shims.calls("scontrol") == ["show config"]


@pytest.mark.parametrize(
    ("config", "hidden"), [({"out": "PrivateData = jobs,usage\n"}, True), ({"err": DOWN, "status": 1}, False)]
)
async def test_a_place_that_nobody_tells(slurm, shims, config, hidden):
    """Where users see their own jobs alone, that is said; no place is guessed from what can be seen."""
    shims.answer("scontrol", **config)
    shims.answer("squeue", JOBS + WAITING)
    await slurm.list(["7"])
    status = (await slurm.list(["7"]))["7"]
    assert (status.state, status.position, status.hidden) == (JobState.PENDING, None, hidden)


async def test_a_job_that_has_left_its_queue(slurm, shims):
    """One that is not where it waited has ended, was moved to another partition, or is forgotten: the controller tells."""
    shims.answer("scontrol", "PrivateData = none\n")
    shims.answer("scontrol", "JobId=7 JobState=CANCELLED ExitCode=0:0 NodeList=(null)\n")
    shims.answer("scontrol", "JobId=8 JobState=PENDING ExitCode=0:0 Partition=other\n")
    shims.answer("scontrol", err="slurm_load_jobs error: Invalid job id specified\n", status=1)
    rows = [WAITING, WAITING.replace("7", "8", 1), WAITING.replace("7", "9", 1)]
    shims.answer("squeue", JOBS + "".join(rows))
    shims.answer("squeue", JOBS)
    moved = rows[1].replace("main,long", "other")
    shims.answer("squeue", JOBS + moved)
    assert len(await slurm.list(["7", "8", "9"])) == 3
    found = await slurm.list(["7", "8", "9"])
    assert set(found) == {"7", "9"}
    assert found["7"].ending.reason is Reason.CANCELLED
    assert "no longer known to Slurm" in found["9"].ending.message
    assert (await slurm.list(["8"]))["8"].partition == "other"
    assert "--jobs=8" in shims.calls("squeue")[-1]


async def test_cancel(slurm, shims):
    """Only the jobs given are cancelled."""
    shims.answer("scancel")
    await slurm.cancel({"8", "7"})
    assert shims.calls("scancel") == ["7 8"]


@pytest.mark.parametrize("words", ["Invalid job id specified", "Job/step already completing or completed"])
async def test_to_cancel_what_has_ended_is_no_error(slurm, shims, words):
    """The end was what was asked for."""
    shims.answer("scancel", err=f"scancel: error: Kill job error on job id 7: {words}\n", status=1)
    await slurm.cancel(["7"])


async def test_to_cancel_without_an_answer(slurm, shims):
    """A cancellation that nobody heard is unknown."""
    shims.answer("scancel", err="scancel: error: Kill job error on job id 7: Socket timed out\n", status=140)
    with pytest.raises(BatchUnknown, match="Socket timed out"):
        await slurm.cancel(["7"])


@pytest.mark.parametrize("job_id", ["--user=root", "", "7 8", "7;8", "-1", "7\n", "\u0667"])
async def test_what_is_no_job_id(slurm, shims, job_id):
    """Nothing but a number ever reaches scancel or squeue."""
    for act in (slurm.cancel, slurm.list):
        with pytest.raises(ValueError, match="not the id"):
            await act([job_id])


class Broken:
    """A shell whose connection fails."""

    name = "octopus"

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def run(self, argv, *, stdin=b"", timeout=30.0) -> Completed:
        raise self.error


@pytest.mark.parametrize("error", [ConnectionFailed("cut"), TimeoutError("slow"), OSError(27, "flood")])
async def test_a_broken_connection_leaves_all_unknown(error, monkeypatch):
    """Without a connection nothing is known: not of jobs, and not of what was being submitted."""
    monkeypatch.setattr(Slurm, "settle", 0.0)
    slurm = Slurm(Broken(error), "octopus")
    for question in (slurm.list(["7"]), slurm.find(TOKEN), slurm.cancel(["7"]), slurm.submit(request_())):
        with pytest.raises(BatchUnknown):
            await question


async def test_questions_at_once(slurm, shims):
    """Several notebooks may ask at the same time."""
    shims.answer("squeue", JOBS + RUNNING)
    answers = await asyncio.gather(*(slurm.list(["7"]) for _ in range(5)))
    assert all(a["7"].state is JobState.RUNNING for a in answers)


@pytest.mark.parametrize(
    ("answer", "who"),
    [("CANCELLED by 0\n", "root"), ("CANCELLED by 4242424\n", "user 4242424"), ("CANCELLED\n", ""), ("TIMEOUT\n", "")],
)
async def test_who_cancelled_a_job(slurm, shims, monkeypatch, answer, who):
    """Where Slurm keeps account, who cancelled a job has a name; elsewhere nobody is named."""
    for name in ("id", "sed"):
        if not (shims.folder / name).exists():
            (shims.folder / name).symlink_to(shutil.which(name, path="/usr/bin:/bin"))
    shims.answer("sacct", answer)
    assert await slurm.canceller("7") == who


async def test_nobody_keeps_account(slurm, shims):
    """A site without accounting is no error."""
    assert await slurm.canceller("7") == ""
