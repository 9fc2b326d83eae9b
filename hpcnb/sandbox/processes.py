"""Which processes belong to a sandbox, read from /proc, and how they are ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcnb.errors import SiteError
from hpcnb.sandbox.plan import Paths

_PROC = Path("/proc")
_DAEMONS = frozenset({"munged", "slurmctld", "slurmscriptd", "slurmd", "slurmstepd", "sshd"})


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process at one moment; `pid` and `started` together name it for ever.

    Parameters
    ----------
    pid, ppid : int
    started : int
        In clock ticks since the machine's start.
    name : str
        Of the program, 15 characters at most.
    command : str
        The whole command line, as the process shows it.
    environ : mapping of str to str
        As it was at the process's start; empty for one that has overwritten it (sshd).
    """

    pid: int
    ppid: int
    started: int
    name: str
    command: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)


def table() -> list[Process]:
    """Every process of this user (of everybody, for root) that has not ended."""
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.geteuid() in {0, entry.stat().st_uid} and (process := _read(int(entry.name))):
                found.append(process)
        except (OSError, ValueError):
            continue  # it ended between two looks, or is not ours to read
    return found


def _read(pid: int) -> Process | None:
    entry = _PROC / str(pid)
    # The name stands in parentheses and may hold some itself.
    head, _, tail = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
    state, ppid, *rest = tail.split()
    if state in "ZX":
        return None
    words = (entry / "cmdline").read_bytes().split(b"\0")
    pairs = (pair.partition(b"=") for pair in (entry / "environ").read_bytes().split(b"\0"))
    return Process(
        pid=pid,
        ppid=int(ppid),
        started=int(rest[17]),
        name=head.partition("(")[2],
        command=os.fsdecode(b" ".join(words)).strip(),
        environ={os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs if key},
    )


def owned(processes: Iterable[Process], paths: Paths, *, port: int | None, servers: Collection[int]) -> list[Process]:
    """Pick what belongs to a sandbox: its daemons, its jobs, its ssh sessions, and what those started.

    A shell in which the user has merely set ``SLURM_CONF`` does not, nor does whoever asks.

    Parameters
    ----------
    processes : iterable of Process
    paths : Paths
    port : int or None
        Of the sandbox's sshd, where it is known.
    servers : collection of int
        The processes that hold the server's end of a connection to that port: what an sshd that was
        killed has left.
    """
    by_pid = {process.pid: process for process in processes}
    mine = {
        process.pid
        for process in by_pid.values()
        if process.pid in servers or _is_daemon(process, paths) or _is_work(process, paths, port)
    }
    spared = _lineage(os.getpid(), by_pid)
    return [
        process for pid, process in by_pid.items() if pid not in spared and not mine.isdisjoint(_lineage(pid, by_pid))
    ]


def _is_daemon(process: Process, paths: Paths) -> bool:
    return process.name in _DAEMONS and (
        process.environ.get("SLURM_CONF") == str(paths.slurm_conf) or f" {paths.sshd_config} " in f"{process.command} "
    )


def _is_work(process: Process, paths: Paths, port: int | None) -> bool:
    """Whether a process was started by a job (``SLURMD_NODENAME``) or through the sandbox's sshd."""
    environ = process.environ
    return environ.get("SLURM_CONF") == str(paths.slurm_conf) and (
        "SLURMD_NODENAME" in environ or (port is not None and environ.get("SSH_CONNECTION", "").endswith(f" {port}"))
    )


def _lineage(pid: int, by_pid: Mapping[int, Process]) -> set[int]:
    """Return a process and its ancestors."""
    line: set[int] = set()
    while pid in by_pid and pid not in line:
        line.add(pid)
        pid = by_pid[pid].ppid
    return line


def serving(port: int, processes: Iterable[Process]) -> set[int]:
    """The sshd processes that hold the server's end of a TCP connection to a port."""
    sockets = {f"socket:[{inode}]" for _, inode in _sockets(port)}
    return {process.pid for process in processes if process.name == "sshd" and sockets & _open_files(process.pid)}


def listening(port: int) -> bool:
    """Whether somebody on this machine listens at a TCP port."""
    return any(state == "0A" for state, _ in _sockets(port))


def _sockets(port: int) -> list[tuple[str, str]]:
    """State and inode of each IPv4 socket with that local port."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return [(fields[3], fields[9]) for fields in map(str.split, lines) if fields[1].endswith(f":{port:04X}")]


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            found.add(str(descriptor.readlink()))
    except OSError:
        pass  # it has ended, or does not show its files: then it is known by its parent
    return found


def end(find: Callable[[], list[Process]], *, patience: float = 2.0) -> None:
    """Ask processes to end, and end by force those that have not after `patience` seconds.

    Parameters
    ----------
    find : callable
        Looks for them anew, for a process may start others while it is being ended.
    patience : float

    Raises
    ------
    SiteError
        Some are still there after another `patience` seconds.
    """
    _signal(find(), signal.SIGTERM, patience)
    deadline = time.monotonic() + patience
    while left := find():
        if time.monotonic() > deadline:
            named = ", ".join(f"{process.pid} ({process.name})" for process in left)
            raise SiteError("some processes of the sandbox do not end", evidence=named)
        _signal(left, signal.SIGKILL, patience)


def _signal(processes: Collection[Process], number: signal.Signals, patience: float) -> None:
    for process in processes:
        if is_alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                pass  # it was quicker
    deadline = time.monotonic() + patience
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)


def is_alive(process: Process) -> bool:
    """Whether it runs still: another with the same number has started at another time."""
    try:
        found = _read(process.pid)
    except (OSError, ValueError):
        return False
    return found is not None and found.started == process.started
