"""The way from the user's machine to a service of the cluster, against OpenSSH's forwarding on the same sshd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcnb.model import ClusterSpec, Resources
from hpcnb.pilot.run import Run
from hpcnb.site import bootstrap
from hpcnb.site.authority import Authority, Role
from hpcnb.site.environment import HERE
from hpcnb.site.ssh import SSHShell
from tests.benchmarks.ratio import compare
from tests.benchmarks.tunnel import CLUSTER, DOWN, ECHO, PIECES, REQUEST, STREAM, UP, receive, send
from tests.site.sshd import Sshd, User, echo
from tests.site.test_ssh import exchange

SECRET = "5ec7e7" * 10
BULK = 100 << 20


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """Two ways to one service."""

    ours: Callable[[], socket.socket]
    theirs: Callable[[], socket.socket]
    pids: tuple[int, ...]  # of our processes


@contextlib.contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that says when it is ready and ends with its stdin."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **environment}) as running:
        yield running
        running.stdin.close()


def role(name: str, *args: str, **environment: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """Run one of our processes."""
    return process(sys.executable, "-m", "tests.benchmarks.tunnel", name, *args, **environment)


def word(running: subprocess.Popen[str]) -> str:
    """What a process says that is ready."""
    return running.stdout.readline().removeprefix("ready").strip()


def prepare(folder: Path) -> None:
    """Write the run directory, and what the agent knows."""
    authority = Authority.create(CLUSTER)
    spec = ClusterSpec(site="local", name="bench", resources=Resources())
    run = Run(id=CLUSTER, token="0" * 32, path=str(folder), spec=spec, directory=str(folder))
    for name, content in bootstrap.run_files(run, HERE, zip_path="/x.zip", authority=authority, secret=SECRET).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    identity = authority.issue(Role.AGENT, lifetime=3600)
    told = {"authority": authority.certificate, "certificate": identity.certificate, "key": identity.key}
    (folder / "agent.json").write_text(json.dumps({**told, "secret": SECRET}))


@pytest.fixture(scope="module")
def tunnel() -> Iterator[Tunnel]:
    """A service, and both ways to it."""
    folder = Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp"))
    sshd = Sshd(folder / "sshd")
    prepare(folder)
    with contextlib.ExitStack() as running:
        running.callback(shutil.rmtree, folder)
        running.callback(sshd.stop)
        port = word(running.enter_context(role("service")))
        ends = [
            running.enter_context(role("gateway", str(folder), port)),
            running.enter_context(role("agent", str(folder), str(sshd.config), XDG_RUNTIME_DIR=str(folder))),
        ]
        for end in ends:
            word(end)
        forward = running.enter_context(_ssh_forward(sshd, port))
        path = str(folder / "hpcnb" / CLUSTER / f"{STREAM}.sock")
        yield Tunnel(
            ours=lambda: _unix(path),
            theirs=lambda: socket.create_connection(("127.0.0.1", forward)),
            pids=tuple(end.pid for end in ends),
        )


@contextlib.contextmanager
def _ssh_forward(sshd: Sshd, port: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = probe.getsockname()[1]
    options = ["-N", "-F", str(sshd.config), "-c", "aes128-gcm@openssh.com", "-o", "ExitOnForwardFailure=yes"]
    running = subprocess.Popen(["ssh", *options, "-L", f"127.0.0.1:{local}:127.0.0.1:{port}", "site"])
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", local)).close()
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield local
    finally:
        running.terminate()
        running.wait(10)


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def ask(sock: socket.socket, what: bytes, size: int, answer: int) -> None:
    """Ask the service for something and take the answer."""
    sock.sendall(REQUEST.pack(what, size))
    if what == UP:
        send(sock, size)
    receive(sock, answer)


def trips(dial: Callable[[], socket.socket], what: bytes, count: int) -> list[float]:
    """Seconds that small questions take there and back."""
    times = []
    with dial() as sock:
        for _ in range(count):
            start = time.perf_counter()
            ask(sock, what, 2, 2)
            times.append(time.perf_counter() - start)
    return times


def in_turns(tunnel: Tunnel, what: bytes, count: int, turns: int = 6) -> tuple[float, float]:
    """The medians of round trips, ours and theirs."""
    ours, theirs = [], []
    for _ in range(turns):
        ours += trips(tunnel.ours, what, count)
        theirs += trips(tunnel.theirs, what, count)
    return statistics.median(ours), statistics.median(theirs)


@pytest.mark.parametrize(("what", "goal"), [(DOWN, 0.6), (UP, 0.5)], ids=["down", "up"])
def bench_bulk(tunnel: Tunnel, what: bytes, goal: float) -> None:
    """A hundred megabytes each way keep up with OpenSSH."""

    def move(dial: Callable[[], socket.socket]) -> None:
        with dial() as sock:
            ask(sock, what, BULK, BULK if what == DOWN else 1)

    name = {DOWN: "down", UP: "up"}[what]
    ratio = compare(f"100 MiB {name}", lambda: move(tunnel.ours), lambda: move(tunnel.theirs), turns=9, peer="ssh -L")
    print(f"speed {1 / ratio:.2f} of ssh -L's")
    assert 1 / ratio >= goal


def bench_two_pieces(tunnel: Tunnel) -> None:
    """An answer written in two pieces is not held back, as it is by `ssh -N -L`."""
    ours, theirs = in_turns(tunnel, PIECES, 20)
    print(f"\nan answer in two pieces: {ours * 1e3:.2f} ms, ssh -N -L {theirs * 1e3:.2f} ms, ratio {ours / theirs:.3f}")
    assert ours / theirs <= 0.025


def bench_round_trip(tunnel: Tunnel) -> None:
    """A small question and its answer take at most 150 µs longer than through `ssh -L`."""
    ours, theirs = in_turns(tunnel, ECHO, 300)
    print(f"\nround trip: {ours * 1e6:.0f} µs, ssh -L {theirs * 1e6:.0f} µs")
    assert ours - theirs <= 150e-6


def bench_a_hundred_streams(tunnel: Tunnel) -> None:
    """A hundred connections at once, each with its own answer."""
    size = 256 << 10

    def all_at_once(dial: Callable[[], socket.socket]) -> None:
        with selectors.DefaultSelector() as waiting, contextlib.ExitStack() as stack:
            for _ in range(100):
                sock = stack.enter_context(dial())
                sock.sendall(REQUEST.pack(DOWN, size))
                waiting.register(sock, selectors.EVENT_READ, [size])
            while waiting.get_map():
                for key, _ in waiting.select():
                    key.data[0] -= len(key.fileobj.recv(1 << 18))
                    if not key.data[0]:
                        waiting.unregister(key.fileobj)

    ratio = compare(
        "100 streams of 256 KiB",
        lambda: all_at_once(tunnel.ours),
        lambda: all_at_once(tunnel.theirs),
        turns=9,
        peer="ssh -L",
    )
    assert ratio <= 1.6


def bench_beside_a_busy_kernel(tunnel: Tunnel) -> None:
    """A kernel that computes does not slow the round trip down."""
    idle, busy = [], []
    for _ in range(4):
        idle += trips(tunnel.ours, ECHO, 300)
        with role("kernel") as running:
            word(running)
            busy += trips(tunnel.ours, ECHO, 300)
    mine, beside = statistics.median(idle), statistics.median(busy)
    print(f"\nround trip: {mine * 1e6:.0f} µs, beside a busy kernel {beside * 1e6:.0f} µs, ratio {beside / mine:.2f}")
    assert beside / mine <= 2


def bench_an_idle_link(tunnel: Tunnel) -> None:
    """A link that carries nothing costs a cell at most 3 % of its speed, even on one core."""
    speeds: dict[int, list[int]] = {signal.SIGSTOP: [], signal.SIGCONT: []}
    core = {min(os.sched_getaffinity(0))}
    with role("kernel") as running:
        word(running)
        for pid in (*tunnel.pids, running.pid):
            os.sched_setaffinity(pid, core)
        for turn in range(16):
            number = (signal.SIGSTOP, signal.SIGCONT)[turn % 2]
            for pid in tunnel.pids:
                os.kill(pid, number)
            running.stdout.readline()  # was partly before
            speeds[number] += [int(running.stdout.readline()) for _ in range(3)]
    for pid in tunnel.pids:
        os.sched_setaffinity(pid, os.sched_getaffinity(0))
    ratio = statistics.median(speeds[signal.SIGCONT]) / statistics.median(speeds[signal.SIGSTOP])
    print(f"\na cell beside an idle link keeps {ratio:.3f} of its speed")
    assert ratio >= 0.97


async def bench_re_keying(tmp_path: Path) -> None:
    """Two hundred changes of the keys, or more, amid eight hundred short channels, or more, lose no connection."""
    sshd = Sshd(tmp_path / "sshd", "LogLevel DEBUG", "RekeyLimit 64K")
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    data = os.urandom(60_000)
    shell = await SSHShell.connect("site", ask=User(), config_file=sshd.config)
    try:
        channels = 0
        while channels < 800 or sshd.rekeys < 200:
            answers = await asyncio.gather(*(exchange(shell, server.sockets[0].getsockname(), data) for _ in range(20)))
            assert answers == [data] * 20
            channels += 20
    finally:
        await shell.close()
        server.close()
        sshd.stop()
    print(f"\n{channels} channels, {sshd.rekeys} times new keys, {sshd.connections} connection")
    assert sshd.connections == 1


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await echo(reader, writer)
    writer.close()
