"""What goes wrong between a laptop and its computing centre, done to a lab on purpose, and undone."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from tests.lab import files
from tests.lab.host import Host
from tests.lab.lab import NODES, Lab, until

GONE = 30.0
"""Seconds that a killed process has to be gone."""


@contextlib.contextmanager
def cut(lab: Lab) -> Iterator[None]:
    """The path becomes a black hole: packets get lost, both ways, and nobody is told."""
    lab.laptop.run("nft", files.BLACK_HOLE)
    try:
        yield
    finally:
        lab.laptop.run("nft", "delete table inet cut")


@contextlib.contextmanager
def unplugged(lab: Lab) -> Iterator[None]:
    """The laptop's interface is down, and its programs are told that there is no network."""
    lab.laptop.run("ip", "link", "set", "eth0", "down")
    try:
        yield
    finally:
        lab.laptop.run("ip", "link", "set", "eth0", "up")
        lab.route_laptop()


@contextlib.contextmanager
def narrow(lab: Lab, *, kbit: int) -> Iterator[None]:
    """The path carries no more than so many kilobits a second, each way."""
    ends = ((lab.laptop, "eth0"), (lab.login, "ext"))
    for host, interface in ends:
        limit = ("tbf", "rate", f"{kbit}kbit", "burst", "32kb", "latency", "400ms")
        host.run("tc", "qdisc", "replace", "dev", interface, "root", *limit)
    try:
        yield
    finally:
        for host, interface in ends:
            host.run("tc", "qdisc", "delete", "dev", interface, "root")


@contextlib.contextmanager
def slow(lab: Lab, *, delay: float = 0.0, jitter: float = 0.0, loss: float = 0.0) -> Iterator[None]:
    """Each packet comes `delay` to `delay` + `jitter` seconds late, or with probability `loss` never.

    Connections that exist suffer it, too.
    """
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    addresses = files.LAPTOP_ADDRESS, files.FACES["login"]
    faults = json.dumps({"delay": delay, "jitter": jitter, "loss": loss})
    with pair[0], pair[1], contextlib.ExitStack() as ends:
        for host, sock, address in zip((lab.laptop, lab.login), pair, addresses, strict=True):
            ends.enter_context(_wire(host, sock, address, faults))
        yield


@contextlib.contextmanager
def _wire(host: Host, sock: socket.socket, address: str, faults: str) -> Iterator[None]:
    # Of the host it needs the network alone: the project is not on every one.
    program = [sys.executable, "-I", str(Path(__file__).with_name("wire.py"))]
    command = ["nsenter", f"--target={host.pid}", "--net", "--", *program, str(sock.fileno()), address, faults]
    with subprocess.Popen(command, pass_fds=[sock.fileno()], stdout=subprocess.PIPE) as end:
        try:
            assert end.stdout.readline() == b"ready\n", "the wire cannot be laid"
            yield
        finally:
            end.kill()


@contextlib.contextmanager
def refused(lab: Lab, node: str) -> Iterator[None]:
    """The connections between login node and a node are broken off, and new ones refused; those to the login node stay."""
    lab.login.run("nft", files.REFUSAL.format(node=files.node_address(NODES.index(node) + 1)))
    try:
        until(lambda: not pipes(lab, node), why="the connections to the node are gone")
        yield
    finally:
        lab.login.run("nft", "delete table inet refusal")


def pipes(lab: Lab, node: str) -> set[str]:
    """The connections from the login node to a node, by the port here; Slurm's own are none of ours."""
    address = files.node_address(NODES.index(node) + 1)
    seen = lab.login.run("ss", "--no-header", "--numeric", "--tcp", "state", "established", "dst", address)
    ends = [line.split()[-2:] for line in seen.splitlines()]
    return {here for here, there in ends if not there.endswith((":6817", ":6818"))}


def kill(processes: Iterable[psutil.Process], number: signal.Signals = signal.SIGKILL) -> int:
    """Kill processes and wait until they have gone; returns how many there were."""
    found = list(processes)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    _, left = psutil.wait_procs(found, timeout=GONE)
    assert not left, left
    return len(found)


def parent(process: psutil.Process) -> int:
    """Whose child a process is; nobody's when it has gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.ppid()
    return 0


def connections(lab: Lab) -> list[psutil.Process]:
    """The login node's sshd processes that serve a connection, the privileged half of each."""
    return lab.login.named("sshd", "[priv]")


def kill_connections(lab: Lab) -> int:
    """End the processes that serve the SSH connections; returns how many there were."""
    found = connections(lab)
    for process in [*found]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
            found += [child for child in process.children() if child.name().startswith("sshd")]
    return kill(found)


@contextlib.contextmanager
def without_sshd(lab: Lab, face: str = "login") -> Iterator[None]:
    """The server is not there, and its connections are gone."""
    # What it has just forked for a new connection has its words, too, for a moment.
    kill(server for server in lab.login.named("sshd", f"/sshd_{face} -E") if parent(server) == lab.login.pid)
    kill_connections(lab)
    try:
        yield
    finally:
        lab.start_sshd(face)


@contextlib.contextmanager
def suspended(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Processes that stand still: of a laptop that sleeps, or of a server that hangs."""
    found = list(processes)
    assert found, "there is nothing to suspend"
    for process in found:
        process.suspend()
    try:
        yield
    finally:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def agents(lab: Lab) -> list[psutil.Process]:
    """The agents that run on the laptop."""
    return lab.laptop.named("-m", "hpcnb.agent")


def controllers(lab: Lab) -> list[psutil.Process]:
    """Slurm's controller."""
    return lab.login.named("slurmctld")


@contextlib.contextmanager
def without_slurmctld(lab: Lab) -> Iterator[None]:
    """Slurm's controller is not there; jobs run on."""
    kill(controllers(lab), signal.SIGTERM)  # killed, it would forget what it has not written down yet
    try:
        yield
    finally:
        lab.start_slurmctld()
        until(lambda: _answers(lab), why="slurmctld answers again")


def _answers(lab: Lab) -> bool:
    with contextlib.suppress(RuntimeError):
        return bool(lab.slurm("sinfo", "--noheader"))
    return False
