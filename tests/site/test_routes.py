"""The routes of a link on a real Slurm site: each carries the same work; one is chosen by itself, and healed."""

from __future__ import annotations

import json

import numpy
import psutil
import pytest

import hpcnb as hpc
from hpcnb.model import State
from hpcnb.sandbox import Sandbox
from tests.site.account import until
from tests.site.sshd import Sshd

pytestmark = [pytest.mark.site, pytest.mark.slow]

ROUTES = ("direct", "exec", "srun", "reverse", "mailbox")


class Login:
    """A login node of a Slurm site, with options of its own."""

    def __init__(self, sandbox, folder, *options):
        folder.mkdir()
        slurm = sandbox.slurm_env["SLURM_CONF"]
        self.sshd = Sshd(folder, f"SetEnv HOME={folder} SLURM_CONF={slurm} PATH=/usr/bin:/bin", *options)
        self.entry = sandbox.site_entry() | {"host": self.sshd.name, "ssh-config": str(self.sshd.config)}

    def relays(self):
        """The relays that run below this server, or below a job of the site."""
        return [process for process in psutil.process_iter() if is_relay(process)]


def is_relay(process):
    try:
        words = process.cmdline()
        return "python" in words[0] and any("hpcnb.pilot.relay" in word for word in words)
    except (psutil.Error, IndexError):
        return False


@pytest.fixture(scope="module")
def slurm(debian, short_path):
    with Sandbox(short_path(), nodes=2, cores_per_node=8) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def sites(slurm, account):
    """One site for each route, and one whose login node forwards nothing."""
    login = Login(slurm, account.folder / "login")
    closed = Login(slurm, account.folder / "closed", "AllowTcpForwarding no")
    home = {"home": str(account.home)}
    forced = {route: login.entry | home | {"link": route} for route in ROUTES}
    account.sites(closed=closed.entry | home, **forced)
    yield {"login": login, "closed": closed}
    account.end()
    login.sshd.stop()
    closed.sshd.stop()


@pytest.fixture(scope="module")
def clusters(sites, account):
    """A cluster over each route; they start together."""
    made = {route: hpc.Cluster(route, workers_per_node=1) for route in ROUTES}
    for cluster in made.values():
        cluster.wait_until_ready(90)
    yield made
    for cluster in made.values():
        cluster.close()


def work(cluster):
    """What every route must carry: a task, a cell's worth of code, and an array of 5 MB there and back."""
    assert cluster.client.submit(sum, [1, 2]).result(30) == 3
    cluster.session.push({"a": 20})
    assert cluster.session.pull(["a"]) == {"a": 20}
    array = numpy.random.default_rng(0).integers(256, size=5_000_000, dtype="u1")
    back = cluster.client.submit(numpy.flip, array, pure=False).result(60)
    assert (back == array[::-1]).all()


@pytest.mark.parametrize("route", ROUTES)
def test_each_route_carries_the_same_work(clusters, account, route):
    """Forced by the configuration, each route carries tasks, cells and arrays, and the status names it."""
    work(clusters[route])
    assert clusters[route].snapshot.link == route
    (line,) = (line for line in account.run("status").out.splitlines() if f" {route}: " in line)
    assert f"link {route}" in line


@pytest.fixture(scope="module")
def alone(sites):
    """A cluster behind a login node that forbids TCP forwarding."""
    cluster = hpc.Cluster("closed", workers_per_node=1)
    cluster.wait_until_ready(90)
    yield cluster
    cluster.close()


def test_a_route_is_chosen_and_remembered(alone, account):
    """Where TCP forwarding is forbidden the next route is taken by itself, and remembered for the site."""
    assert alone.snapshot.link == "exec"
    work(alone)
    assert json.loads((account.data / "routes.json").read_text())["closed"] == "exec"


def test_a_killed_relay_heals(alone, sites):
    """When the relay is killed the link is made again by itself, and what runs goes on."""
    alone.session.push({"b": 1})
    (relay,) = [relay for relay in sites["closed"].relays() if below(relay, sites["closed"].sshd.pid)]
    relay.kill()
    until(lambda: [r for r in sites["closed"].relays() if r != relay and below(r, sites["closed"].sshd.pid)])
    until(lambda: alone.snapshot.link == "exec" and alone.state is State.READY)
    assert alone.client.submit(sum, [1, 2]).result(30) == 3
    assert alone.session.pull(["b"]) == {"b": 1}


def below(process, pid):
    try:
        return pid in [parent.pid for parent in process.parents()]
    except psutil.Error:
        return False
