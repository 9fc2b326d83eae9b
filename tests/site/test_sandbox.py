"""The sandbox is a real Slurm site: it comes up, works, is repaired, and goes without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import socket
import subprocess
from pathlib import Path

import dask.config
import pytest
from click.testing import CliRunner

import hpcnb
from hpcnb.cli import commands
from hpcnb.errors import ConfigError
from hpcnb.sandbox import Sandbox

pytestmark = pytest.mark.site


def run(sandbox, *argv, timeout=60):
    """Run a command as a user of the site; its output, if it succeeds."""
    done = subprocess.run(
        argv,
        env=os.environ | sandbox.slurm_env,
        cwd="/tmp",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ssh(sandbox, *options):
    return ["ssh", "-F", str(sandbox.ssh_config), *options, sandbox.host]


def submit(sandbox, *options, script="sleep 300"):
    """Submit a job; its id."""
    return run(sandbox, "sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}")


async def until(check, wanted):
    """Ask again and again until the answer is the one wanted."""
    async with asyncio.timeout(60):
        while await asyncio.to_thread(check) != wanted:  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.05)


def traces(directory):
    """The command line of every process that names a directory anywhere, but for this one."""
    wanted, found = os.fsencode(directory), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, environ = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
            links = [os.fsencode(link.readlink()) for link in [entry / "cwd", *(entry / "fd").iterdir()]]
        except OSError:
            continue
        if int(entry.name) != os.getpid() and any(wanted in said for said in [command, environ, *links]):
            found.append(command.replace(b"\0", b" ").decode().strip())
    return found


@pytest.fixture
def box(debian, short_path):
    """A site of a test's own, down."""
    sandbox = Sandbox(short_path())
    yield sandbox
    sandbox.down()


@pytest.fixture
async def spawn():
    """Start programs that are gone after the test."""
    running = []

    async def start(*argv, env=None):
        running.append(await asyncio.create_subprocess_exec(*argv, env=env, stdin=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def jobless(sandbox):
    """The site of all tests, without jobs before and after."""

    async def clear():
        await asyncio.to_thread(run, sandbox, "scancel", "--user", str(os.geteuid()))
        await until(lambda: run(sandbox, "squeue", "--noheader"), "")

    await clear()
    yield sandbox
    await clear()


async def test_two_nodes_are_idle(jobless):
    """Two partitions of two idle nodes, the second with limits."""
    wanted = ["main* 2 idle 1-00:00:00 1-infinite", "debug 2 idle 30:00 1"]
    await until(lambda: run(jobless, "sinfo", "--noheader", "--format=%P %D %T %l %s").splitlines(), wanted)


def test_step_runs_on_both_nodes(sandbox):
    """Srun starts one process on each node, and each knows where it is."""
    assert {*run(sandbox, "srun", "-N2", "printenv", "SLURMD_NODENAME").split()} == {"n1", "n2"}


def test_batch_job_runs_steps(sandbox, tmp_path):
    """A batch job leads a step on both nodes, and its log is written."""
    log = tmp_path / "log"
    run(sandbox, "sbatch", "--wait", "-N2", f"--output={log}", "--wrap=srun --overlap printenv SLURMD_NODENAME")
    assert sorted(log.read_text().split()) == ["n1", "n2"]


def test_ssh_session_sees_slurm(sandbox):
    """A command over ssh has Slurm's commands and configuration, and an ordinary umask."""
    job = run(sandbox, *ssh(sandbox), "squeue --noheader --format=%i; echo $SLURM_CONF; umask").split()
    assert job[-2:] == [sandbox.slurm_env["SLURM_CONF"], "0022"]


def test_ssh_carries_a_connection(sandbox):
    """A direct-tcpip channel reaches a port of the site."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        port = server.getsockname()[1]
        with subprocess.Popen(
            ssh(sandbox, "-W", f"127.0.0.1:{port}"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            far, _ = server.accept()
            with far:
                far.sendall(b"hello\n")
                assert client.stdout.readline() == b"hello\n"
    assert client.returncode == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--partition=debug", "--nodes=2"], "PartitionNodeLimit"),
        (["--partition=debug", "--time=60"], "PartitionTimeLimit"),
        (["--hold"], "JobHeldUser"),
    ],
)
async def test_too_much_is_accepted_and_waits(jobless, options, reason):
    """What is beyond a partition's limits is not refused, but pends with the reason."""
    job = submit(jobless, *options)
    await until(lambda: run(jobless, "squeue", "--noheader", "--format=%T %r", "--job", job), f"PENDING {reason}")


async def test_full_site_makes_jobs_wait(jobless):
    """The first job that does not fit waits for resources, those behind it for their turn."""
    for _ in range(3):
        submit(jobless, "--nodes=2", "--exclusive")
    wanted = ["PENDING Priority", "PENDING Resources", "RUNNING None"]
    await until(lambda: sorted(run(jobless, "squeue", "--noheader", "--format=%T %r").splitlines()), wanted)


def test_up_again_changes_nothing(box):
    """A running sandbox is left alone by a second `up`, and not resized by the way."""
    box.up()
    before = box.status()
    assert before.up
    said = []
    Sandbox(box.directory).up(said.append)
    assert said == ["logging in"]
    with pytest.raises(ConfigError, match="not one of 3 nodes"):
        Sandbox(box.directory, nodes=3).up()
    assert box.status() == before


async def test_what_was_killed_is_repaired(box):
    """After kill -9 of some daemons, `up` starts these anew and leaves the others alone."""
    box.up()
    before = box.status().daemons
    killed = ("munged", "slurmctld", "n2", "sshd")
    for name in killed:
        os.kill(before[name], signal.SIGKILL)
    await until(lambda: {box.status().daemons[name] for name in killed}, {None})
    half = box.status()
    assert (half.up, half.daemons["n1"]) == (False, before["n1"])
    box.up()
    after = box.status()
    assert after.up
    assert after.daemons["n1"] == before["n1"]
    assert not {*before.values()} - {before["n1"]} & {*after.daemons.values()}
    assert run(box, *ssh(box), "srun -N2 true; echo $?") == "0"


async def test_down_leaves_nothing(box, spawn):
    """Jobs, what escaped from them, ssh sessions and daemons are gone; a shell that only looks is not."""
    box.up()
    busy = await spawn(*ssh(box), "setsid sleep 301 & sleep 302")
    idle = await spawn(*ssh(box, "-N"))
    mine = await spawn("sleep", "303", env=os.environ | box.slurm_env)
    submit(box, "--nodes=2", script="setsid sleep 304 & srun env sleep 305")
    sleepers = {f"sleep {seconds}" for seconds in range(301, 306)}
    await until(lambda: sleepers <= {*traces(box.directory)}, True)
    box.down()
    async with asyncio.timeout(30):
        assert (await busy.wait(), await idle.wait()) == (255, 255)
    assert (traces(box.directory), mine.returncode) == (["sleep 303"], None)
    assert {*box.status().daemons.values()} == {None}


async def test_down_ends_the_orphans_too(box, spawn):
    """With controller and sshd killed, jobs and sessions are still found; the next site has an empty queue."""
    box.up()
    idle = await spawn(*ssh(box, "-N"))
    job = submit(box, script="sleep 306")
    await until(lambda: "sleep 306" in traces(box.directory), True)
    for name in ("slurmctld", "sshd"):
        os.kill(box.status().daemons[name], signal.SIGKILL)
    box.down()
    async with asyncio.timeout(30):
        assert await idle.wait() == 255
    assert traces(box.directory) == []
    box.up()
    assert run(box, "squeue", "--noheader") == ""
    assert int(submit(box)) >= int(job)


def test_two_at_once(sandbox, box):
    """Two sites of one user do not see each other's jobs, and one may go while the other stays."""
    box.up()
    submit(box, "--hold", "--job-name=there")
    assert run(box, "squeue", "--noheader", "--format=%j") == "there"
    assert "there" not in run(sandbox, "squeue", "--noheader", "--format=%j")
    box.down()
    assert sandbox.status().up


def test_long_directory_works(debian, short_path):
    """Where a socket's name would be too long, the sockets are elsewhere, and gone afterwards."""
    with Sandbox(short_path() / ("x" * 90)) as box:
        conf = Path(box.slurm_env["SLURM_CONF"]).read_text()
        run_directory = Path(
            next(line for line in conf.splitlines() if line.startswith("SlurmdSpoolDir")).split("=")[1]
        ).parent
        assert run_directory.stat().st_mode & 0o777 == 0o700
        assert len(run(box, "srun", "-N2", "hostname").split()) == 2
    assert not run_directory.exists()


def _ordinary_user():
    """Somebody with a shell, who may read this checkout; only root can become him."""
    if os.geteuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    for user in pwd.getpwall():
        if user.pw_uid >= 1000 and user.pw_shell in {"/bin/bash", "/bin/sh"} and Path(user.pw_dir).is_dir():
            return user
    pytest.skip("no ordinary user on this machine")


def test_without_privileges(debian, short_path):
    """An ordinary user has the whole site: jobs on two nodes, ssh, and no trace afterwards."""
    user, directory = _ordinary_user(), short_path()
    os.chown(directory, user.pw_uid, user.pw_gid)
    code = """if 1:
        import os, subprocess, sys
        from pathlib import Path
        from hpcnb.sandbox.site import Sandbox
        with Sandbox(Path(sys.argv[1])) as box:
            login = ["ssh", "-F", box.ssh_config, "-o", "BatchMode=yes", box.host]
            print(subprocess.check_output([*login, "id -u; srun -N2 printenv SLURMD_NODENAME"], text=True))
    """
    python, root = "/usr/bin/python3", Path(hpcnb.__file__).parents[1]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "HOME": user.pw_dir}
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    ready = [python, "-c", "import hpcnb.sandbox.site"]
    if subprocess.run(ready, env=env, cwd="/", **as_user, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{user.pw_name} cannot run this checkout with {python}")
    argv = [python, "-c", code, str(directory)]
    done = subprocess.run(argv, env=env, cwd="/", **as_user, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {*done.stdout.split()} == {str(user.pw_uid), "n1", "n2"}
    assert traces(directory) == []


def test_command_line(debian, short_path, tmp_path, monkeypatch):
    """`hpcnb sandbox up` makes the site known, `status` shows it, `down` takes both away."""
    monkeypatch.setattr(dask.config, "PATH", str(tmp_path))
    directory, entry = str(short_path()), tmp_path / "hpcnb-sandbox.yaml"

    def type_in(*words):
        # As users do: by itself the group would remember for this process that it knows no `-h`.
        return CliRunner().invoke(commands, ["sandbox", *words, "--directory", directory], catch_exceptions=False)

    try:
        up = type_in("up", "--nodes", "1")
        assert (up.exit_code, entry.exists()) == (0, True)
        assert "%hpc up sandbox" in up.stdout
        assert f"hpcnb sandbox down --directory {directory}" in up.stdout
        assert "starting munge" in up.stderr
        shown = json.loads(type_in("status", "--json").stdout)
        assert (shown["up"], shown["nodes"], shown["jobs"]) == (True, {"n1": "idle"}, 0)
        assert " is up, with 0 jobs" in type_in("status").stdout
    finally:
        assert type_in("down").exit_code == 0
    assert not entry.exists()
    assert "No sandbox runs" in type_in("status").stdout
    assert type_in("down").exit_code == 0
