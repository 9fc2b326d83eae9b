"""The routes of a link on a real Slurm site: each carries the same work; one is chosen by itself, and healed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time

import numpy
import psutil
import pytest

import hpcnb as hpc
from hpcnb.model import State
from hpcnb.sandbox import Sandbox
from tests.figures import patient
from tests.site.account import until, words
from tests.site.sshd import Sshd

pytestmark = [pytest.mark.site, pytest.mark.slow]

ROUTES = ("direct", "exec", "srun", "reverse", "mailbox")
SHOWN, HEALED = 4.0, 3.0
"""Seconds within which a cut is shown, and within which the first byte comes once the path is back."""


class Path:
    """The network between the user's machine and a login node, which can be cut: nothing comes through, nobody is told."""

    def __init__(self, port):
        self._port = port
        self._free = threading.Event()
        self._free.set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._socks, self._threads = [], []
        self._start(self._accept)

    @property
    def port(self):
        return self._server.getsockname()[1]

    @contextlib.contextmanager
    def cut(self):
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def _start(self, function, *args):
        self._threads.append(thread := threading.Thread(target=function, args=args))
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self._start(self._connect, self._server.accept()[0])

    def _connect(self, near):
        self._free.wait()
        far = socket.create_connection(("127.0.0.1", self._port))
        self._socks += [near, far]
        self._start(self._carry, near, far)
        self._start(self._carry, far, near)

    def _carry(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._free.wait()
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._free.set()
        self._server.shutdown(socket.SHUT_RDWR)
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._server, *self._socks):
            sock.close()


class Login:
    """A login node of a Slurm site, with options of its own."""

    def __init__(self, sandbox, folder, *options):
        folder.mkdir()
        slurm = sandbox.slurm_env["SLURM_CONF"]
        self.sshd = Sshd(folder, f"SetEnv HOME={folder} SLURM_CONF={slurm} PATH=/usr/bin:/bin", *options)
        self.entry = sandbox.site_entry() | {"host": self.sshd.name, "ssh-config": str(self.sshd.config)}

    def relays(self):
        """The relays that run on it."""
        return [process for process in below(self.sshd.pid) if "hpcnb.pilot.route.relay" in " ".join(words(process))]

    def children(self):
        """The processes that serve its connections."""
        return psutil.Process(self.sshd.pid).children()


def below(pid):
    return psutil.Process(pid).children(recursive=True)


@pytest.fixture(scope="module")
def slurm(debian, short_path):
    with Sandbox(short_path(), nodes=2, cores_per_node=8) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def logins(slurm, account):
    """Login nodes: one with nothing special, one that forwards nothing, one behind a path that can be cut."""
    made = {name: Login(slurm, account.folder / name) for name in ("open", "far")}
    made["closed"] = Login(slurm, account.folder / "closed", "AllowTcpForwarding no")
    (account.folder / "closed" / ".bashrc").write_text("echo Welcome; printf '%s' 'no end of line'; echo News >&2\n")
    yield made
    account.end()
    for login in made.values():
        login.sshd.stop()


@pytest.fixture(scope="module")
def path(logins):
    path = Path(logins["far"].sshd.port)
    logins["far"].sshd.known_hosts.write_text(
        logins["far"].sshd.known_hosts.read_text().replace(f"{logins['far'].sshd.port}", f"{path.port}")
    )
    logins["far"].sshd.configure(f"Port {path.port}")
    yield path
    path.close()


@pytest.fixture(scope="module", autouse=True)
def sites(logins, path, account):
    """One site for each route, and one for each other login node."""
    home = {"home": str(account.home)}
    forced = {route: logins["open"].entry | home | {"link": route} for route in ROUTES}
    account.sites(closed=logins["closed"].entry | home, far=logins["far"].entry | home, **forced)
    yield
    account.end()  # before the path is closed


@pytest.fixture(scope="module")
def clusters(sites):
    """A cluster over each route; they start together."""
    made = {route: hpc.Cluster(route, workers_per_node=1) for route in ROUTES}
    for cluster in made.values():
        cluster.wait_until_ready(90)
    yield made
    for cluster in made.values():
        cluster.close()


@pytest.fixture(scope="module")
def closed(sites):
    """A cluster behind a login node that forbids TCP forwarding, and whose shells talk."""
    cluster = hpc.Cluster("closed", workers_per_node=1)
    cluster.wait_until_ready(90)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def far(sites):
    """A cluster behind a path that can be cut."""
    cluster = hpc.Cluster("far", workers_per_node=1)
    cluster.wait_until_ready(90)
    yield cluster
    cluster.close()


def work(cluster):
    """What every route must carry: a task, a session's variables, and an array of 5 MB there and back."""
    assert cluster.client.submit(sum, [1, 2], pure=False).result(30) == 3
    cluster.session.push({"a": 20})
    assert cluster.session.pull(["a"]) == {"a": 20}
    array = numpy.random.default_rng(0).integers(256, size=5_000_000, dtype="u1")
    back = cluster.client.submit(numpy.flip, array, pure=False).result(60)
    assert (back == array[::-1]).all()


def costs(client):
    """What a small task costs there and back, and an array."""
    took = []
    for _ in range(10):
        began = time.perf_counter()
        client.submit(sum, [1, 2], pure=False).result(30)
        took.append(time.perf_counter() - began)
    array = numpy.random.default_rng(0).integers(256, size=8_000_000, dtype="u1")
    began = time.perf_counter()
    client.submit(numpy.flip, array, pure=False).result(60)
    seconds = time.perf_counter() - began
    return f"a task {sorted(took)[5] * 1000:.0f} ms, 8 MB there and back {seconds:.2f} s"


@pytest.mark.parametrize("route", ROUTES)
def test_each_route_carries_the_same_work(clusters, account, figure, route):
    """Forced by the configuration, each route carries tasks, cells and arrays, and the status names it."""
    work(clusters[route])
    figure(f"{route}: {costs(clusters[route].client)}")
    assert clusters[route].snapshot.link == route
    (line,) = (line for line in account.run("status").out.splitlines() if f" {route}: " in line)
    assert f"link {route}" in line
    assert ("slow" in line) == (route == "mailbox")


def test_strangers_at_the_relay_hold_nobody_up(clusters, logins, account):
    """While the pilot is on its way to the relay, others come with a wrong token or none; it gets in all the same."""
    cluster = clusters["reverse"]
    run = account.home / "runs" / cluster.snapshot.id
    (pilot,) = (p for p in psutil.process_iter() if words(p)[1:] == ["-m", "hpcnb.pilot", "--run-dir", str(run)])
    (relay,) = (relay for relay in logins["open"].relays() if "listen" in words(relay))
    pilot.suspend()  # or it might be faster than any stranger
    with contextlib.ExitStack() as strangers:
        strangers.callback(pilot.resume)
        relay.kill()
        (word,) = until(lambda: list(run.glob("rendezvous/[0-9a-f]*.json")))
        port = json.loads(word.read_text())["port"]
        for token in (os.urandom(32), b"half", b""):
            stranger = strangers.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            stranger.sendall(token)
        pilot.resume()
        assert cluster.client.submit(sum, [1, 2], pure=False).result(30) == 3
        until(lambda: cluster.snapshot.link == "reverse")


def test_the_end_of_a_cluster_is_the_end_of_its_route(clusters, logins, account):
    """No relay, no word and no file of a mailbox outlives its cluster."""
    assert {name for relay in logins["open"].relays() for name in words(relay)[:1]} >= {"srun"}
    for cluster in clusters.values():
        cluster.close()
    until(lambda: logins["open"].relays() == [])
    assert list(account.home.glob("runs/*/rendezvous")) == []


def test_a_route_is_chosen_and_remembered(closed, account):
    """Where TCP forwarding is forbidden the next route is taken by itself, and remembered for the site."""
    until(lambda: closed.snapshot.link == "exec")
    work(closed)
    assert json.loads((account.data / "routes.json").read_text())["closed"] == "exec"


def test_a_killed_relay_heals(closed, logins):
    """When the relay is killed the link is made again by itself, by the same route, and nothing is lost."""
    closed.session.push({"b": 1})
    (relay,) = until(logins["closed"].relays)
    relay.kill()
    until(lambda: [other for other in logins["closed"].relays() if other != relay])
    assert closed.client.submit(sum, [1, 2], pure=False).result(30) == 3
    assert closed.session.pull(["b"]) == {"b": 1}
    until(lambda: closed.snapshot.link == "exec")


@pytest.mark.alone
def test_a_stopped_relay_is_replaced(closed, logins):
    """A relay that falls silent is suspect after seconds: another is started beside it, and that one carries on."""
    until(lambda: len(logins["closed"].relays()) == 1)
    (relay,) = logins["closed"].relays()
    relay.suspend()
    began = time.monotonic()
    assert closed.client.submit(sum, [1, 2], pure=False).result(30) == 3
    assert time.monotonic() - began < patient(SHOWN + HEALED)
    relay.resume()
    until(lambda: len(logins["closed"].relays()) == 1)


@pytest.mark.alone
def test_a_cut_is_shown_and_healed(far, path, figure):
    """A cut path is shown as unreachable within 4 s; once it is back, the first byte comes within 3 s."""
    client = far.client
    with path.cut():
        began = time.monotonic()
        until(lambda: far.state is State.UNREACHABLE, within=patient(SHOWN), every=0.01)
        shown = time.monotonic() - began
        assert far.snapshot.link == ""
        future = client.submit(sum, [1, 2], pure=False)
        with pytest.raises(TimeoutError):
            future.result(2)
    began = time.monotonic()
    assert future.result(30) == 3
    healed = time.monotonic() - began
    figure(f"cut shown after {shown:.1f} s (at most {SHOWN}), healed after {healed:.1f} s (at most {HEALED})")
    assert healed < HEALED
    until(lambda: far.state is State.READY)


def test_a_killed_connection_heals(far, logins, figure):
    """Each time that the server's end of the connection is killed, work goes on within 3 s, by the same route."""
    took = []
    for _ in range(5):
        for child in logins["far"].children():
            child.kill()
        began = time.monotonic()
        assert far.client.submit(sum, [1, 2], pure=False).result(30) == 3
        took.append(time.monotonic() - began)
    figure(f"connection killed, healed after {', '.join(f'{each:.1f}' for each in took)} s (mean at most {HEALED})")
    assert sum(took) / len(took) < HEALED
    until(lambda: far.snapshot.link == "direct")
