"""What a sandbox finds on its machine and makes there: a private directory, free ports, keys, its configuration."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import random
import secrets
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpcnb.errors import ConfigError, SiteError
from hpcnb.sandbox import configuration, programs
from hpcnb.sandbox.plan import Paths, Plan, Size, too_long_for_sockets

# Below the ports that the kernel gives to outgoing connections: one of those could be gone before the daemon has it.
_PORTS = range(20000, 32000)


def claim(paths: Paths) -> None:
    """Make the directory, 0700, or accept one that is ours alone; refuse one that holds other things.

    Raises
    ------
    ConfigError
    """
    directory = paths.directory
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _mkdir(directory)
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be made", evidence=str(error), remedy="Choose another directory (--directory)."
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"{directory} is not a directory of yours", remedy="Choose another one (--directory).")
    if not paths.lock.exists() and any(directory.iterdir()):
        raise ConfigError(
            f"{directory} holds other things than a sandbox", remedy="Choose a new directory (--directory)."
        )
    directory.chmod(0o700)
    paths.lock.touch(mode=0o600)
    for part in (paths.etc, paths.logs, paths.state):
        part.mkdir(mode=0o700, exist_ok=True)


def _mkdir(directory: Path) -> None:
    with contextlib.suppress(FileExistsError):  # a file or a link, too: what it is, is looked at next
        directory.mkdir(mode=0o700)


@contextlib.contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Keep other processes from starting or stopping the same sandbox meanwhile."""
    try:
        lock = paths.lock.open("wb")
    except FileNotFoundError:
        yield  # the directory has been removed: what runs may still be ended
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def recorded(paths: Paths) -> Plan | None:
    """Read the plan by which a sandbox was last started."""
    try:
        return Plan.from_json(paths.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def survey(paths: Paths, size: Size, found: Mapping[str, str]) -> Plan:
    """Decide, by what this machine is like, all that a sandbox's configuration says."""
    user = _user()
    ports = free_ports(size.nodes + 2)
    return Plan(
        directory=str(paths.directory),
        run=str(run_directory(paths)),
        user=user,
        root=os.geteuid() == 0,
        pam=_locked_password(user),
        machine=socket.gethostname().partition(".")[0],
        bound=_address_of(socket.gethostname()) == "127.0.0.1",
        path=programs.search_path(found),
        size=size,
        slurmctld_port=ports[0],
        sshd_port=ports[1],
        slurmd_ports=ports[2:],
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise SiteError(
            f"the user {os.geteuid()} has no name on this machine, and Slurm and sshd need one",
            remedy="Run as a user whom `getent passwd` knows.",
        ) from None


def _address_of(machine: str) -> str:
    try:
        return socket.gethostbyname(machine)
    except OSError:
        return ""


def _locked_password(user: str) -> bool:
    try:
        lines = Path("/etc/shadow").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False  # then sshd cannot read it either
    return any(line.startswith(f"{user}:!") for line in lines)


def run_directory(paths: Paths) -> Path:
    """Where the sockets go: into the sandbox's directory, or where that is too long, a short one of our own in /tmp."""
    run = paths.directory / "run"
    if too_long_for_sockets(run):
        return Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp"))
    run.mkdir(mode=0o700, exist_ok=True)
    return run


def free_ports(count: int) -> tuple[int, ...]:
    """Find ports on which nobody listens, at any address.

    Raises
    ------
    SiteError
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.sample(_PORTS, len(_PORTS)):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return tuple(found)
    raise SiteError(f"there are not {count} free ports from {_PORTS.start} to {_PORTS.stop - 1} on this machine")


def furnish(plan: Plan, found: Mapping[str, str]) -> None:
    """Write all the files that the daemons read; keys that are there already stay."""
    paths = plan.paths
    if not paths.munge_key.exists():
        write(paths.munge_key, secrets.token_bytes(128))
    for key in (paths.host_key, paths.user_key):
        if not key.exists():
            command = [found["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-C", "hpcnb-sandbox", "-f", str(key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, umask=0o077)
    host_key = Path(f"{paths.host_key}.pub").read_text(encoding="utf-8")
    for path, text in {
        paths.slurm_conf: configuration.slurm_conf(plan),
        paths.sshd_config: configuration.sshd_config(plan),
        paths.ssh_config: configuration.ssh_config(plan),
        paths.known_hosts: configuration.known_hosts(plan, host_key),
        paths.record: plan.to_json(),
    }.items():
        write(path, text.encode())
    if plan.root:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd, as root, locks itself up


def write(path: Path, data: bytes) -> None:
    """Write a whole file, 0600: aside, then renamed, so that a half-written one is never read."""
    aside = path.with_name(f"{path.name}.new")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    aside.rename(path)
