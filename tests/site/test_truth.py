"""The truth while waiting and when it fails: each cause has its own message, with the remedy, within seconds."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
import venv

import pytest

import hpcnb as hpc
from hpcnb.model import State
from tests.figures import patient
from tests.site.account import jobs, slurm, until
from tests.site.sshd import keygen, public

pytestmark = pytest.mark.site

PROMPT = 5.0
"""Seconds within which the truth is told, once somebody knows it."""


# -- the site ----------------------------------------------------------------------------------------------------


@pytest.fixture
def site(account, sandbox):
    """Configure the site `box` as the sandbox with changes; the sandbox has no job before and after."""

    def configure(**changes):
        entry = sandbox.site_entry() | {"home": str(account.home)} | changes
        account.sites(box={key.replace("_", "-"): value for key, value in entry.items() if value is not None})
        return "box"

    yield configure
    account.run("down", "--all")
    assert jobs(sandbox) == []


@pytest.fixture
def shims(tmp_path):
    """A directory for programs that stand in the place of the site's."""
    folder = tmp_path / "shims"
    folder.mkdir()

    def write(name, *lines):
        path = folder / name
        path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        path.chmod(0o755)
        return path

    write.folder = folder
    return write


@pytest.fixture
def login_node(start_sshd, sandbox, shims, site):
    """Another login node of the sandbox's Slurm, whose PATH begins with the shims."""

    def start(path="/usr/bin:/bin", **changes):
        slurm = sandbox.slurm_env["SLURM_CONF"]
        server = start_sshd(f"SetEnv HOME={shims.folder.parent} SLURM_CONF={slurm} PATH={shims.folder}:{path}")
        return site(host=server.name, ssh_config=str(server.config), **changes)

    return start


@pytest.fixture
def wrapper(shims):
    """A Python that finds other things than ours, made by a file in the first place where it looks."""

    def write(**files):
        there = shims.folder.parent / "there"
        for name, text in files.items():
            path = there / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(shims("python", f'PYTHONPATH={there} exec {sys.executable} "$@"'))

    return write


# -- asking both ways --------------------------------------------------------------------------------------------


@pytest.fixture
def refused(account, sandbox):
    """Ask for a cluster in Python and on the command line; see that both are refused at once, and nothing is left."""

    def ask(site, kind, *words, wishes=()):
        options = [word for key, value in dict(wishes).items() for word in (f"--{key}", value)]
        began = time.monotonic()
        with pytest.raises(kind) as caught:
            hpc.Cluster(site, **dict(wishes))
        took = time.monotonic() - began
        said = account.run("up", site, *options)
        assert type(caught.value) is kind
        for text in (str(caught.value), said.err):
            assert [word for word in words if word not in text] == [], text
        assert said.err.splitlines()[0].startswith(f"{site}: requested")
        assert f"{kind.__name__}: " in said.err
        assert "Traceback" not in said.err
        assert said.status == 1
        assert took < patient(PROMPT)
        assert caught.value.remedy
        assert account.clusters() == []
        assert jobs(sandbox) == []
        assert left(account) == []
        return caught.value

    return ask


def left(account):
    """Run directories, and secrets in the agent's own records: neither outlives a cluster that never was."""
    secrets = [path for path in (account.folder / "data").rglob("clusters/*.json") if "PRIVATE KEY" in path.read_text()]
    return [*account.home.glob("runs/*"), *secrets]


# -- the site cannot be reached ----------------------------------------------------------------------------------


def test_a_closed_port(site, refused, start_sshd):
    """A login node on whose port nobody listens is named with host, port and what to check."""
    server = start_sshd()
    server.stop()
    name = site(host=server.name, ssh_config=str(server.config))
    refused(name, hpc.ConnectionFailed, f"127.0.0.1 port {server.port}", "Connection refused", "VPN")


def test_an_address_that_swallows_everything(site, refused, start_sshd):
    """A firewall that drops packets shows after the site's own connect-timeout."""
    server = start_sshd()
    with black_hole() as port:
        server.port = port
        name = site(host=server.name, ssh_config=str(server.configure()), connect_timeout="1s")
        refused(name, hpc.ConnectionFailed, f"port {port}", "no answer within 1 s", "firewall")


def test_a_port_that_says_nothing(site, refused, start_sshd):
    """A server that accepts and then is silent is no hang either."""
    server = start_sshd()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        server.port = mute.getsockname()[1]
        name = site(host=server.name, ssh_config=str(server.configure()), connect_timeout="1s")
        refused(name, hpc.ConnectionFailed, f"port {server.port} accepts connections but says nothing")


def test_a_changed_host_key(site, refused, start_sshd, tmp_path):
    """A login node with another key than the one on record is refused; file, line and command are named."""
    server = start_sshd()
    other = public(keygen(tmp_path / "other"))
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {other}\n")
    name = site(host=server.name, ssh_config=str(server.config))
    refused(name, hpc.HostKeyMismatch, "has changed", f"{server.known_hosts} line 1", "ssh-keygen -R")


def test_a_login_that_is_refused(site, refused, start_sshd):
    """A login node that does not take our key says which were tried, and where to name another."""
    server = start_sshd()
    server.authorize()
    name = site(host=server.name, ssh_config=str(server.config))
    refused(name, hpc.AuthenticationFailed, f"did not let {server.me} in", str(server.user), "IdentityFile")


@contextlib.contextmanager
def black_hole():
    """A port whose connections are never made: its queue of one is full."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            caller = held.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield server.getsockname()[1]


# -- the Python there cannot be used -----------------------------------------------------------------------------


def test_no_python(site, refused):
    """A path without an interpreter is named, and the key that sets it."""
    refused(
        site(python="/nowhere/python"), hpc.EnvironmentMismatch, "no Python at '/nowhere/python'", "python: of site"
    )


def test_no_dask(site, refused, tmp_path):
    """A Python without dask, distributed and ipykernel comes with the command that installs ours."""
    venv.create(tmp_path / "bare", symlinks=True)
    name = site(python=str(tmp_path / "bare/bin/python"))
    refused(name, hpc.EnvironmentMismatch, "dask and distributed and ipykernel not installed", "-m pip install dask==")


def test_another_dask(site, refused, wrapper):
    """Another release of dask is refused with both versions and the command that mends it."""
    name = site(python=wrapper(**{"dask-2024.1.0.dist-info__METADATA": "Name: dask\nVersion: 2024.1.0\n"}))
    refused(name, hpc.EnvironmentMismatch, "dask is 2024.1.0 there", "-m pip install dask==")


def test_another_python(site, refused, wrapper):
    """Another minor version of Python is refused with both versions."""
    fake = "import platform\nplatform.python_version = lambda: '3.9.18'\n"
    name = site(python=wrapper(**{"sitecustomize.py": fake}))
    refused(name, hpc.EnvironmentMismatch, "Python is 3.9.18 there and 3.", "Use Python 3.")


def test_a_python_that_fails(site, refused, shims):
    """What an interpreter says when it cannot start is shown."""
    name = site(python=str(shims("python", "echo 'libpython3.11.so: cannot open shared object' >&2; exit 127")))
    refused(name, hpc.EnvironmentMismatch, "libpython3.11.so: cannot open", "python: of site")


# -- there is no room --------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    """A file system of so many bytes."""
    mounted = []

    def mount(size):
        where = tmp_path / "tiny"
        where.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tiny", where], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"needs root to mount a file system: {done.stderr.decode().strip()}")
        mounted.append(where)
        return where

    yield mount
    for where in mounted:
        subprocess.run(["umount", where], check=True)


def test_a_full_disk(site, refused, tiny):
    """A home without room for our code is named, and where to set another; nothing half-written stays."""
    where = tiny("64k")
    refused(site(home=str(where)), hpc.SiteError, f"cannot write {where}", "the disk is full", "home: of site")
    assert [path for path in where.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_up(site, refused, tiny):
    """A disk that is full by the time of the run directory says the same; what fitted is removed."""
    where = tiny("4m")
    name = site(home=str(where))
    with pytest.raises(hpc.SubmissionRejected):
        hpc.Cluster(name, partition="gpuu")
    fill(where)
    refused(name, hpc.SiteError, f"cannot write {where}/runs/", "the disk is full")
    assert list(where.glob("runs/*")) == []


def test_an_exceeded_quota(login_node, refused, shims):
    """A quota that is exceeded is called by its name."""
    shims("tar", "cat >/dev/null; echo 'tar: run.json: Cannot write: Disk quota exceeded' >&2; exit 2")
    refused(login_node(), hpc.SiteError, "the disk quota is exceeded", "Free some space there")


def fill(where):
    """Leave no byte of a file system free."""
    with contextlib.suppress(OSError), (where / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_home_that_others_can_write(site, refused, account):
    """Where others could put code that runs as the user, nothing is put; the command that mends it is named."""
    where = account.folder / "shared"
    where.mkdir()
    where.chmod(0o777)
    refused(site(home=str(where)), hpc.SiteError, f"others can write to {where}", f"chmod go-w {where}")
    assert list(where.iterdir()) == []


# -- Slurm says no -----------------------------------------------------------------------------------------------


def test_no_sbatch(login_node, refused, shims):
    """A machine without sbatch is told from one that refuses, with both ways out."""
    for name in ("bash", "cat", "env", "mkdir", "rm", "tar", "timeout"):
        (shims.folder / name).symlink_to(shutil.which(name))
    shims("sh", '[ "$1" != -l ] || shift', 'exec /bin/sh "$@"')  # a login shell that knows no other PATH
    name = login_node(path="/nowhere")
    refused(name, hpc.SubmissionRejected, "there is no sbatch on", "batch: process", "~/.profile")


def test_an_unknown_partition(site, refused):
    """An unknown partition comes back with those that exist and what they allow."""
    wishes = {"partition": "gpuu"}
    refused(
        site(), hpc.SubmissionRejected, "invalid partition", "Partitions there: main (2 nodes", "debug", wishes=wishes
    )


def test_too_long_a_walltime(site, refused):
    """A walltime above the limit, with which Slurm would let the job wait for ever, is refused with the limit."""
    wishes = {"partition": "debug", "walltime": "2h"}
    refused(site(), hpc.SubmissionRejected, "a walltime of 2h", "limit of partition debug, 30m", "main", wishes=wishes)


def test_an_invalid_account(login_node, refused, shims):
    """An account that Slurm refuses comes back with the accounts there are."""
    no = "Batch job submission failed: Invalid account or account/partition combination specified"
    shims("sbatch", f"echo 'sbatch: error: {no}' >&2; exit 1")
    shims("sacctmgr", "echo physics; echo chemistry")
    refused(
        login_node(),
        hpc.SubmissionRejected,
        "Invalid account or account/partition combination",
        "Your accounts there: chemistry, physics.",
        wishes={"account": "astronomy"},
    )


# -- the job waits -----------------------------------------------------------------------------------------------


@pytest.fixture
def full(sandbox):
    """A sandbox whose nodes are taken."""
    taken = slurm(sandbox, "sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 600")
    until(lambda: slurm(sandbox, "squeue", "--noheader", "--states=R", "--format=%i") == taken)
    yield
    slurm(sandbox, "scancel", taken)
    until(lambda: taken not in jobs(sandbox))


@pytest.fixture
def waiting(account):
    """Ask for a cluster, and remember every state that it shows from then on."""

    def ask(site, name):
        cluster = hpc.Cluster(site, name=name)
        seen[name] = {cluster.state}
        cluster.handle.on_change(lambda status: seen[name].add(status.state))
        asked.append(cluster)
        return cluster

    seen, asked = {}, []
    ask.seen = seen
    yield ask
    for cluster in asked:
        cluster.close()


@pytest.mark.alone
@pytest.mark.slow
def test_a_full_machine(site, full, waiting, account):
    """While others have the nodes: queued, with place, reason, what to do and what Slurm calls it; never more."""
    name = site()
    first, second = waiting(name, "first"), waiting(name, "second")
    until(lambda: (first.reason, second.reason) == ("Resources", "Priority"), within=patient(PROMPT))
    assert "waits for nodes to become free" in first.why()
    assert "jobs with a higher priority go first" in second.why()
    with pytest.raises(hpc.NotReady, match=r"still queued after 0.5 s: .*become free.*\(Resources\)"):
        first.wait_until_ready(0.5)
    said = account.run("up", name, "--name", "second", "--timeout", "1s")
    assert (said.status, "Traceback" in said.err) == (1, False)
    assert re.search(r"NotReady: second is still queued .*\(Priority\)", said.err)
    assert {cluster["state"] for cluster in account.clusters()} == {"queued"}
    assert waiting.seen == {"first": {State.QUEUED}, "second": {State.QUEUED}}


@pytest.mark.alone
def test_a_limit_of_the_site(login_node, full, waiting, shims, sandbox):
    """A reason that this Slurm cannot be brought to give is explained as well, Slurm's own word behind it."""
    shims("squeue", '/usr/bin/squeue "$@" | sed s/Resources/QOSMaxNodePerUserLimit/')
    cluster = waiting(login_node(), "limited")
    until(lambda: cluster.reason == "QOSMaxNodePerUserLimit", within=patient(PROMPT))
    assert "your jobs with its quality of service together are at a limit" in cluster.why()
    assert "(QOSMaxNodePerUserLimit)" in cluster.why()


# -- the job dies ------------------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.alone
@pytest.mark.slow
def test_a_job_that_dies_at_once(site, account, sandbox, waiting):
    """A job that fails in its first line ends the waiting with its exit status, its node and its own last words."""
    dies = 'if [ -n "$SLURM_JOB_ID" ]; then echo "module: cannot load python/3.11" >&2; exit 3; fi'
    name = site(setup=[dies])
    cluster = waiting(name, "doomed")
    with pytest.raises(hpc.JobFailed, match="exit status 3") as caught:
        cluster.wait_until_ready(20)
    told = time.time()
    (job,) = cluster.jobs
    known = re.search(r"EndTime=(\S+)", slurm(sandbox, "scontrol", "show", "job", job.job_id))[1]
    # Slurm, which is asked every 5 s and not oftener, tells whole seconds; the question and the evidence take their time, too.
    assert told - time.mktime(time.strptime(known, "%Y-%m-%dT%H:%M:%S")) < patient(PROMPT + 1) + 1
    assert "module: cannot load python/3.11" in caught.value.evidence
    assert (f"job {job.job_id}" in str(caught.value), "node n" in str(caught.value)) == (True, True)
    assert State.READY not in waiting.seen["doomed"]
    said = account.run("up", name)
    assert (said.status, "Traceback" in said.err) == (1, False)
    assert "JobFailed: the batch job ended with exit status 3" in said.err
    assert "| module: cannot load python/3.11" in said.err
    assert "ready" not in said.err
    assert list(account.home.glob("runs/*/tls")) == []
