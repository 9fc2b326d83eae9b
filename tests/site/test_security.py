"""A second user of the same machine: connects to nothing, reads nothing, and no secret is where others look."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pwd
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

import hpcnb as hpc
from hpcnb import handle
from hpcnb.agent import places
from hpcnb.site.authority import Authority, Role
from tests.isolation import below
from tests.site import attacker
from tests.site.account import slurm, until, words

pytestmark = [
    pytest.mark.site,
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user"),
]


@pytest.fixture(scope="module")
def clusters(account, sandbox):
    """A cluster in a Slurm allocation and one on this machine, each with tasks done and a session in use."""
    account.sites(
        box=sandbox.site_entry() | {"home": str(account.home)},
        local={"batch": "process", "home": str(account.home)},
    )
    started = [hpc.Cluster(name, cores_per_node=2) if name == "box" else hpc.Cluster(name) for name in ("box", "local")]
    for cluster in started:
        cluster.wait_until_ready(60)
        assert cluster.client.submit(sum, [1, 2]).result(30) == 3
        cluster.session.push({"a": 1})
        assert cluster.session.pull(["a"]) == {"a": 1}
    yield started
    for cluster in started:
        cluster.close()


@pytest.fixture(scope="module")
def secrets(account, clusters):
    """Everything that must be nowhere else: the link's secret, the lines of every private key, the keys of kernels."""
    found = set()
    records = (account.folder / "data").rglob("clusters/*.json")
    for path in [*records, *(path for path in below(account.home) if path.parent.name == "tls" and path.is_file())]:
        text = path.read_text().replace("\\n", "\n")
        for body in re.findall(r"BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)-----END", text, re.DOTALL):
            found.update(body.split())
        found.update(re.findall(r"\b[0-9a-f]{64}\b", text))
    for path in kernel_files(account):
        found.add(json.loads(path.read_text())["key"])
    assert len(found) > 20
    return sorted(found)


def kernel_files(account):
    named = {word for process in account.processes() for word in words(process)}
    return [Path(word) for word in named if word.endswith("/kernel.json")]


@functools.cache
def other_user():
    return pwd.getpwnam("nobody").pw_uid


def attack(**targets):
    """Let another user try; return what he got."""
    done = subprocess.run(
        [sys.executable, attacker.__file__, str(other_user())],
        input=json.dumps(targets),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def shown():
    """Write an identity where everybody can read it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)

        def write(name, identity):
            path = Path(folder, f"{name}.pem")
            path.write_text(identity.certificate + identity.key)
            return str(path)

        yield write


# -- ports and sockets -------------------------------------------------------------------------------------------


def test_no_port_serves_another_user(clusters, account, shown):
    """Every TCP port of every process of ours turns away noise, HTTP, TLS without or with a foreign certificate, Dask."""
    listeners = account.listeners()
    ports = {(one.host.replace("0.0.0.0", "127.0.0.1"), one.port) for one in listeners}
    ours = {address for cluster in clusters for address in addresses(cluster, account)}
    assert ours <= ports
    assert any(one.process.startswith("srun ") for one in listeners)
    assert [
        one for one in listeners if "hpcnb.agent" in one.process or "hpcnb.pilot.session.kernel" in one.process
    ] == []
    foreign = shown("foreign", Authority.create("foreign").issue(Role.CLIENT, lifetime=3600))
    assert attack(ports=sorted(ports), identities=[foreign], foreign=[foreign]) == []
    # The attack does find what it looks for: the same, with a certificate of the cluster's own.
    stolen = shown("stolen", handle.run(clusters[0].handle.credentials()))
    scheduler, *_ = addresses(clusters[0], account)
    found = f"TLS with {stolen}"
    until(lambda: [name for name, _, _ in attack(ports=[scheduler], identities=[stolen])] == [found])


def addresses(cluster, account):
    """Where the scheduler, the session host, the gateway and the workers of a cluster listen."""
    run = account.home / "runs" / cluster.handle.id
    found = [json.loads((run / f"{name}.json").read_text())["address"] for name in ("scheduler", "sessions")]
    split = [address.removeprefix("tls://").rsplit(":", 1) for address in [*found, *cluster.scheduler_info["workers"]]]
    gateway = json.loads((run / "pilot.json").read_text())["gateway"]
    return [(host, int(port)) for host, port in [*split, gateway]]


def test_no_unix_socket_serves_another_user(clusters, account):
    """Sockets lie in private directories; even in an open one the agent turns strangers away; none is abstract."""
    sockets = account.sockets()
    assert str(places.agent_socket()) in sockets
    assert attacker.unix_socket(str(places.agent_socket())) != ""  # it does answer who may ask
    assert [name for name in sockets if name.startswith("@") and "hpcnb" in name] == []
    assert attack(sockets=sockets) == []
    mine = [name for name in sockets if name.startswith(str(account.folder))]
    with opened_up(mine):
        assert attack(sockets=mine) == []


@contextlib.contextmanager
def opened_up(paths):
    """Let everybody reach these sockets, as in a badly made XDG_RUNTIME_DIR."""
    every = {Path(path) for path in paths} | {parent for path in paths for parent in Path(path).parents[:-2]}
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in every}
    for path in every:
        path.chmod(0o777)
    try:
        yield
    finally:
        for path, mode in before.items():
            path.chmod(mode)


# -- files and processes -----------------------------------------------------------------------------------------


def test_no_file_can_be_read(clusters, account):
    """Nothing of ours can be listed, read or written by another user; every mode says so by itself."""
    kernels = [path.parent for path in kernel_files(account)]
    mine = [path for folder in (account.folder, *kernels) for path in below(folder)]
    theirs = [path for path in Path("/tmp").glob("hpcnb-*") if path not in mine]  # what else we left
    assert attack(files=list(map(str, [*mine, *theirs]))) == []
    open_ones = [path for path in mine if not stat.S_ISLNK(mode := mode_of(path)) and mode & 0o077]
    assert [path for path in open_ones if not path.is_relative_to(account.folder / "config")] == []


def mode_of(path):
    """The mode of a file; of one that has gone, nothing is allowed."""
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_mode
    return 0


def test_no_process_can_be_looked_into(clusters, account):
    """Neither variables nor memory nor descriptors of our processes are another user's to see, nor can he signal them."""
    assert attack(processes=[process.pid for process in account.processes()]) == []


# -- secrets -----------------------------------------------------------------------------------------------------


def test_what_everybody_sees_holds_no_secret(clusters, account, sandbox, secrets):
    """Arguments, variables, Slurm's view of the job, its script, all logs: not one secret."""
    processes = account.processes()
    seen = {f"arguments of {p.pid}": " ".join(words(p)) for p in processes}
    for process in processes:
        with contextlib.suppress(psutil.Error):  # what asks Slurm comes and goes
            seen[f"variables of {process.pid}"] = str(process.environ())
    commands = "scontrol show job", "scontrol show step", "squeue --json", "squeue --format=%all"
    seen |= {command: slurm(sandbox, *command.split()) for command in commands}
    seen["script"] = slurm(sandbox, "scontrol", "write", "batch_script", clusters[0].jobs[0].job_id, "-")
    logs = [*(path for path in below(account.folder) if path.suffix == ".log"), *(sandbox.directory / "log").iterdir()]
    seen |= {str(path): path.read_text(errors="replace") for path in logs}
    seen["credentials"] = repr(handle.run(clusters[0].handle.credentials()))
    assert "exec " in seen["script"]
    assert len(logs) > 8
    assert [(place, secret) for place, text in seen.items() for secret in secrets if secret in text] == []


def test_nothing_secret_outlives_a_cluster(account, clusters, secrets):
    """When it has ended, no secret of a cluster is in any file, here or at the site."""
    clusters[0].close()
    clusters[1].close()
    assert account.clusters() == []
    files = {path: content(path) for path in below(account.folder) if path.is_file()}
    assert len(files) > 8
    assert [path for path, data in files.items() for secret in secrets if secret.encode() in data] == []


def content(path):
    """What a file holds; one that has gone holds nothing."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""
