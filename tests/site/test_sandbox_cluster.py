"""A cluster on a real Slurm site, from its beginning to its end, and what may befall it and its agent between."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import hpcnb as hpc
from hpcnb.agent import places
from hpcnb.model import State
from hpcnb.sandbox import Sandbox
from tests.site.account import ESTABLISHED, connections, jobs, until
from tests.site.sshd import Sshd

pytestmark = [pytest.mark.site, pytest.mark.slow]

LATER = "--option=--begin=now+600"
"""Keeps a job in the queue."""


class Site:
    """A Slurm of three nodes behind a login node whose programs can be replaced."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self._shims = folder / "shims"
        self._shims.mkdir(parents=True)
        slurm = sandbox.slurm_env["SLURM_CONF"]
        self.sshd = Sshd(folder, f"SetEnv HOME={folder} SLURM_CONF={slurm} PATH={self._shims}:/usr/bin:/bin")
        self.entry = sandbox.site_entry() | {"host": self.sshd.name, "ssh-config": str(self.sshd.config)}

    def jobs(self) -> list[str]:
        return jobs(self.sandbox)

    @contextlib.contextmanager
    def instead_of(self, name: str, *lines: str):
        """Have another program in the place of one of Slurm's."""
        path = self._shims / name
        aside = path.with_suffix(".new")
        aside.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        aside.chmod(0o755)
        aside.rename(path)
        try:
            yield
        finally:
            path.unlink()


@pytest.fixture(scope="module")
def site(debian, short_path, account):
    with Sandbox(short_path(), nodes=3, cores_per_node=2) as sandbox:
        site = Site(sandbox, account.folder / "login")
        account.sites(box=site.entry | {"home": str(account.home)})
        yield site
        account.end()
        site.sshd.stop()


@pytest.fixture(scope="module")
def fit(site, account):
    """A cluster on one whole node of the site, ready, with a session."""
    cluster = hpc.Cluster("box", name="fit", cores_per_node=2, workers_per_node=1)
    cluster.wait_until_ready(60)
    cluster.session.push({"a": 1})
    yield cluster
    cluster.close()


# -- while it runs -----------------------------------------------------------------------------------------------


def test_one_connection_for_all(site, account, fit):
    """Two clusters and four clients at work share one connection to the login node, made once."""
    other = hpc.Cluster("box", name="other", workers_per_node=1)
    other.wait_until_ready(60)
    third = account.python("import hpcnb as hpc; print(hpc.attach('fit').client.submit(sum, [1, 2]).result())")
    assert third.stdout == "3\n", third.stderr
    until(lambda: account.run("status").out.count("ready") == 2)
    assert other.client.submit(sum, [1, 2]).result(30) == fit.client.submit(sum, [1, 2]).result(30) == 3
    there = [peer for _, peer, state, _ in connections() if state == ESTABLISHED and peer[1] == site.sshd.port]
    assert len(there) == 1
    assert site.sshd.connections == 1
    other.close()
    assert len(site.jobs()) == 1


def test_files_of_the_user_have_his_own_modes(fit, tmp_path):
    """What cells and tasks write is as private as what a login there writes, no more; what is ours is private."""
    write = "import pathlib; pathlib.Path({!r}).touch()"
    fit.session.wait(fit.session.execute(write.format(str(tmp_path / "cell")), on_message=print))
    fit.client.submit(exec, write.format(str(tmp_path / "task"))).result(30)
    usual = subprocess.run(["sh", "-c", "umask"], capture_output=True, text=True, check=True).stdout
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o666 & ~int(usual, 8)] * 2


def test_three_nodes_and_back(site, account, fit):
    """Nodes are added by further jobs and taken away again; work goes on, and they leave no secret behind."""
    fit.scale(nodes=3)
    until(lambda: fit.snapshot.counts.workers == 3, within=60)
    until(lambda: {node for job in fit.jobs for node in job.nodes} == {"n1", "n2", "n3"})
    assert len(set(fit.client.run(os.getpid))) == 3
    fit.scale(nodes=1)
    until(lambda: fit.snapshot.counts.workers == 1 and len(site.jobs()) == 1)
    assert fit.client.submit(sum, [1, 2]).result(30) == 3
    until(lambda: [job.job_id for job in fit.jobs] == site.jobs())
    until(lambda: len(list(account.home.glob("runs/*/tls"))) == 1)


def test_as_many_nodes_as_the_work_needs(fit):
    """An adaptive cluster has a second node while there is much work, and gives it back; `scale` ends that."""
    adaptive = fit.adapt(nodes=(1, 2), interval="200ms")
    work = fit.client.map(time.sleep, [0.5] * 80, pure=False)
    until(lambda: fit.snapshot.counts.workers == 2)
    until(lambda: len(fit.jobs) == 2)
    fit.client.gather(work)
    del work
    until(lambda: fit.snapshot.counts.workers == 1 and len(fit.jobs) == 1)
    fit.scale(nodes=1)
    assert adaptive.periodic_callback is None


def test_a_batch_system_that_does_not_answer(site, account, fit):
    """While Slurm does not answer, the state stays and says since when nothing is known; nothing is cancelled."""
    job = fit.jobs[0].job_id
    why = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    with site.instead_of("squeue", f"echo '{why}' >&2; exit 1"):
        until(lambda: fit.snapshot.unknown_since)
        assert "the batch system has not answered for 0:" in account.run("status").out
        assert fit.state is State.READY
        assert fit.client.submit(sum, [1, 2]).result(30) == 3
    until(lambda: fit.snapshot.unknown_since is None)
    assert (fit.state, site.jobs()) == (State.READY, [job])


def test_an_agent_that_is_killed(site, account, fit):
    """The next command starts another agent, which finds the allocation again: it can be used, and ended, as before."""
    (agent,) = account.agents()
    agent.kill()
    psutil.wait_procs([agent], timeout=30)
    said = account.run("status")
    assert (said.status, said.err) == (0, "")
    (found,) = account.clusters()
    assert [job["job_id"] for job in found["jobs"]] == site.jobs()
    kernel = account.python(
        "import hpcnb as hpc; c = hpc.attach('fit'); print(c.client.submit(sum, [1, 2]).result(), c.session.pull(['a']))"
    )
    assert kernel.stdout == "3 {'a': 1}\n", kernel.stderr
    until(lambda: account.clusters()[0]["state"] == "ready")
    assert fit.client.submit(sum, [1, 2]).result(30) == 3  # and this kernel's own connection is made again
    assert fit.session.pull(["a"]) == {"a": 1}
    assert agent not in account.agents()
    until(lambda: len(account.agents()) == 1)  # both of us may have started one, and one of them leaves


def test_never_two_agents(site, account):
    """Commands that start at the same time start one agent together; a second one goes away by itself."""
    account.stop_agent()
    commands = [account.start("status") for _ in range(3)]
    ended = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0], ended
    until(lambda: len(account.agents()) == 1)  # who comes second needs a moment to find out
    (agent,) = account.agents()
    second = subprocess.run(
        [sys.executable, "-m", "hpcnb.agent"], env=os.environ | account.environ, timeout=30, check=False
    )
    assert second.returncode == 0
    assert account.agents() == [agent]


# -- while it waits ----------------------------------------------------------------------------------------------


def test_an_interrupt_gives_a_queued_job_up(site, account):
    """Ctrl-C while a job is queued leaves no job, and says so; with --keep it stays in the queue."""
    before = set(site.jobs())
    kept = account.start("up", "box", "--name", "kept", "--keep", LATER)
    given_up = account.start("up", "box", "--name", "wrong", LATER)
    until(lambda: len(set(site.jobs()) - before) == 2)
    until(lambda: sum(cluster["state"] == "queued" for cluster in account.clusters()) == 2)
    for command in (kept, given_up):
        command.send_signal(signal.SIGINT)
    (_, said_kept), (_, said) = kept.communicate(timeout=60), given_up.communicate(timeout=60)
    assert (kept.returncode, given_up.returncode) == (130, 130)
    assert "wrong was given up; no job of it is left" in said
    assert "kept stays" in said_kept
    assert "Traceback" not in said + said_kept
    (job,) = set(site.jobs()) - before
    assert [c["jobs"][0]["job_id"] for c in account.clusters() if c["spec"]["name"] == "kept"] == [job]
    assert account.run("down", "kept").status == 0
    assert set(site.jobs()) == before


def test_ten_notebooks_and_one_question(site, account, tmp_path):
    """However many notebooks wait, Slurm's squeue is called once for all of them, and not more often than every 5 s."""
    before, calls = site.jobs(), tmp_path / "calls"
    with site.instead_of("squeue", f'date +%s.%N >>{calls}; exec /usr/bin/squeue "$@"'):
        waiting = [account.start("up", "box", "--name", f"wait{i}", "--cores-per-node=1", LATER) for i in range(10)]
        until(lambda: sum(cluster["state"] == "queued" for cluster in account.clusters()) == 10)
        until(calls.exists)
        asked = len(calls.read_text().split())
        until(lambda: len(calls.read_text().split()) >= asked + 3)
        times = [float(line) for line in calls.read_text().split()]
    for command in waiting:
        command.send_signal(signal.SIGINT)
    said = [command.communicate(timeout=60)[1] for command in waiting]
    assert ["was given up" in one for one in said] == [True] * 10
    assert site.jobs() == before
    assert min(later - at for at, later in itertools.pairwise(times)) > 4.5


def test_an_interrupt_while_connecting(site, account):
    """Ctrl-C ends the waiting for a login node that does not answer, too."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = site.sshd.folder / "mute"
        config.write_text(f"Host mute\n  HostName 127.0.0.1\n  Port {mute.getsockname()[1]}\n")
        account.sites(
            box=site.entry | {"home": str(account.home)},
            mute={"host": "mute", "ssh-config": str(config), "connect-timeout": "60s"},
        )
        command = account.start("up", "mute")
        until(lambda: "connecting to mute" in [cluster["detail"] for cluster in account.clusters()])
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=30)
    assert (command.returncode, "Traceback" in said) == (130, False)
    assert "mute" not in [cluster["spec"]["name"] for cluster in account.clusters()]


@pytest.mark.parametrize(
    "answer",
    ["exit 0", "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1"],
    ids=["nothing", "an error"],
)
def test_a_lost_answer_of_sbatch(site, account, answer):
    """A job that was queued although sbatch said nothing, or no, is found again; there is one, and one alone."""
    before = set(site.jobs())
    with site.instead_of("sbatch", '/usr/bin/sbatch "$@" >/dev/null', answer):
        said = account.run("up", "box", "--name", "lost", "--no-wait", LATER)
    assert said.status == 0, said.err
    (job,) = set(site.jobs()) - before
    (cluster,) = (cluster for cluster in account.clusters() if cluster["spec"]["name"] == "lost")
    assert [job["job_id"] for job in cluster["jobs"]] == [job]
    assert account.run("down", "lost").status == 0
    assert set(site.jobs()) == before


def test_an_answer_that_stays_lost(site, account):
    """While nothing at all is known of a submission, that is said and the job is looked for, until it is found."""
    before = set(site.jobs())
    with site.instead_of("sbatch", '/usr/bin/sbatch "$@" >/dev/null'):
        with site.instead_of("squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1"):
            command = account.start("up", "box", "--name", "lost", "--no-wait", LATER)
            until(lambda: "the batch system has not said whether it has the job" in account.run("status").out)
            (job,) = set(site.jobs()) - before
        _, said = command.communicate(timeout=30)
    assert command.returncode == 0, said
    assert set(site.jobs()) - before == {job}
    assert [c["jobs"][0]["job_id"] for c in account.clusters() if c["spec"]["name"] == "lost"] == [job]
    assert account.run("down", "lost").status == 0
    assert set(site.jobs()) == before


def test_a_submission_that_was_never_heard(site, account):
    """Once Slurm answers that there is no such job, the submission has failed, and says so; nothing was submitted."""
    before = set(site.jobs())
    with site.instead_of("sbatch", "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1"):
        said = account.run("up", "box", "--name", "unheard")
    assert (said.status, "Traceback" in said.err) == (1, False)
    assert "SiteError: the batch system gave no answer to the submission, and has no job of it" in said.err
    assert "unheard" not in [cluster["spec"]["name"] for cluster in account.clusters()]
    assert set(site.jobs()) == before


# -- when it ends ------------------------------------------------------------------------------------------------


def test_nothing_is_left(site, account, fit):
    """After `down` and `agent stop` there is no job, no process, no socket, no port, no temporary file, no secret."""
    temporary = [path for path in directories(account) if path != site.sandbox.directory]
    assert len(temporary) == 2  # the node's, for its workers, and the kernel's
    said = account.run("down", "fit")
    assert (said.status, said.err.splitlines()[-1].startswith("fit on box: ended")) == (0, True)
    assert site.jobs() == []
    account.stop_agent()
    until(lambda: [process.pid for process in account.processes()] == [site.sshd.pid])
    assert [path for path in temporary if path.exists()] == []
    assert list(account.tmp.iterdir()) == []
    assert [path.name for path in places.runtime().iterdir()] == ["agent.lock"]
    assert [path for path in account.folder.rglob("*") if path.is_socket()] == []
    assert list(account.home.glob("runs/*/tls")) == []


def directories(account):
    """What the account has in /tmp, by what its processes name and have open."""
    names = set()
    for process in account.processes():
        with contextlib.suppress(psutil.Error, OSError):
            names |= {*process.cmdline(), *(file.path for file in process.open_files())}
    found = {Path(*Path(name).parts[:3]) for name in names if name.startswith("/tmp/hpcnb-")}
    return sorted(found - {account.folder})
