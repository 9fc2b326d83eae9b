"""A small computing centre on one machine: a laptop, a login node behind a firewall, and two compute nodes.

Each is a set of namespaces, so it has its own network, processes, files and users, with real sshd, munge and Slurm.
Nothing of it has a name on this machine, so several labs can run beside each other; it ends with its owner, even
with one that is killed, and a directory that such a one leaves is removed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hpcnb
from tests.lab import files
from tests.lab.host import NAMESPACES, Host, User

ADA, MALLORY = User(name="ada", uid=2001), User(name="mallory", uid=2002)
NB = User(name="nb", uid=2010)
NODES = ("node1", "node2")
PASSWORD = "the users' password"
OTP_SSHD = "sshd-otp"
"""A name of sshd's, for PAM takes its service from it."""
PROGRAMS = {
    **dict.fromkeys(("slurmctld", "slurmd", "srun"), "slurm-wlm"),
    "munged": "munge",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "google-authenticator": "libpam-google-authenticator",
    "openssl": "openssl",
}
LONG = bool(os.environ.get("HPCNB_LAB_LONG"))
"""Whether the tests may take an hour: ``make lab-long``."""
PROJECT = Path(hpcnb.__file__).parents[1]
_PREFIX = "hpcnb-lab-"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/var")
_START = 60.0


@cache
def obstacle() -> str:
    """Why there can be no lab here; empty if nothing is known to be in the way."""
    if os.geteuid():
        return "the lab makes network namespaces, which only root may"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := sorted({PROGRAMS[program] for program in PROGRAMS if shutil.which(program, path=path) is None}):
        return f"apt-get install {' '.join(missing)}"
    # As root of a container, perhaps, to whom the kernel gives no namespaces, or no firewall in them.
    trial = ["unshare", *NAMESPACES, "--fork", "--", "nft", "add", "table", "inet", "trial"]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    return f"no namespaces, or no nftables, for this root: {done.stderr.strip()}" if done.returncode else ""


def until(holds: Callable[[], Any], *, within: float = _START, every: float = 0.05, why: str = "") -> Any:
    """Wait for something to be so, and return it.

    Raises
    ------
    TimeoutError
        It is not so in time.
    """
    deadline = time.monotonic() + within
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within} s: {why or holds}")
        time.sleep(every)
    return found


class Lab:
    """The whole of it; use it with ``with``.

    Parameters
    ----------
    cores, memory : int
        What each node claims to have, in cores and MiB.
    """

    def __init__(self, *, cores: int = 4, memory: int = 8000) -> None:
        sweep()
        self.folder, self._lock = _owned()
        self._size = {"cores": cores, "memory": memory}
        self.hosts: dict[str, Host] = {}

    @property
    def laptop(self) -> Host:
        return self.hosts["laptop"]

    @property
    def login(self) -> Host:
        return self.hosts["login"]

    def __enter__(self) -> Self:
        try:
            self._write()
            for name in ("laptop", "login", *NODES):
                self._boot(name)
            self._connect()
            self._start_login()
            for node in NODES:
                self._start_node(node)
            until(self.idle, why="the nodes are ready")
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def down(self) -> None:
        """End every host, and all that runs there; remove the files."""
        for host in self.hosts.values():
            host.power_off()
        shutil.rmtree(self.folder)
        self._lock.close()

    def idle(self) -> bool:
        """Whether every node waits for work."""
        with contextlib.suppress(RuntimeError):
            return self.slurm("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * len(NODES)
        return False

    def slurm(self, *command: str, user: User = ADA) -> str:
        """Run a command of Slurm on the login node; returns what it printed."""
        return self.login.run(*command, user=user).strip()

    def jobs(self) -> list[str]:
        """The jobs that wait or run."""
        return self.slurm("squeue", "--noheader", "--format=%i").split()

    def logs(self) -> list[Path]:
        """What the agent and the pilots say."""
        agent = self.laptop.path(f"{NB.home}/.local/share/hpcnb/agent.log")
        pilots = self.login.path(f"{ADA.home}/.hpcnb/runs").glob("*/job.log")
        return [path for path in (agent, *pilots) if path.exists()]

    def forget(self) -> None:
        """Leave nothing of what a test has done with hpcnb: no job, no file, no record."""
        for user in (ADA, MALLORY):
            self.slurm("scancel", f"--user={user.name}")
        until(lambda: not self.jobs(), why="the jobs are gone")
        for host, home in ((self.laptop, f"{NB.home}/.local"), (self.login, f"{ADA.home}/.hpcnb")):
            shutil.rmtree(host.path(home), ignore_errors=True)

    def configure(self, **more: Any) -> None:
        """Write the laptop's configuration: the site *centre*, with what this test wants of it."""
        entry = {"host": "login", "batch": "slurm", "python": sys.executable, "walltime": "1h"} | more
        path = self.laptop.path(f"{NB.home}/.config/dask/hpcnb.yaml")
        self.laptop.run("mkdir", "-p", f"{NB.home}/.config/dask", user=NB)
        path.write_text(json.dumps({"hpcnb": {"default-site": "centre", "sites": {"centre": entry}}}))

    # -- files ---------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Lay out what the hosts see in place of this machine's own: /etc, /home."""
        inner = {"login": f"{files.INNER}.1"}
        self._etc("site", [ADA, MALLORY], files.hosts(inner, NODES))
        self._etc("laptop", [NB], files.hosts(files.FACES, NODES))
        site, laptop = self.folder / "site" / "etc", self.folder / "laptop" / "home" / "nb"
        _key(site / "ssh" / "lab_host_key")
        (site / "slurm" / "slurm.conf").write_text(files.slurm_conf(NODES, **self._size))
        (site / "munge" / "munge.key").write_bytes(secrets.token_bytes(128))
        for face in files.FACES:
            (site / "ssh" / f"sshd_{face}").write_text(files.sshd_config(face, [ADA, MALLORY]))
        (site / "ssh" / OTP_SSHD).symlink_to("/usr/sbin/sshd")
        (site / "pam.d" / OTP_SSHD).write_text(files.PAM_OTP)
        (laptop / ".ssh").mkdir()
        known = (site / "ssh" / "lab_host_key.pub").read_text().split()[:2]
        (laptop / ".ssh" / "known_hosts").write_text(f"{','.join(files.FACES)} {' '.join(known)}\n")
        (laptop / ".ssh" / "config").write_text(files.ssh_config({"login*": ADA}))
        for user in (ADA, MALLORY):
            _key(laptop / ".ssh" / f"id_{user.name}")
            ssh = self.folder / "site" / "home" / user.name / ".ssh"
            ssh.mkdir()
            shutil.copy(laptop / ".ssh" / f"id_{user.name}.pub", ssh / "authorized_keys")
            (ssh.parent / ".google_authenticator").write_text(files.OTP)
            _give(ssh.parent, user)
        _give(laptop, NB)

    def _etc(self, place: str, users: list[User], hosts: str) -> None:
        """A copy of /etc with users and names of its own, and a home for each user."""
        etc = self.folder / place / "etc"
        etc.parent.mkdir()
        subprocess.run(["cp", "-a", "/etc", etc], check=True)
        (etc / "slurm").mkdir(exist_ok=True)
        (etc / "slurm" / "slurm.conf").unlink(missing_ok=True)
        shadow = partial(files.shadow, password=_encrypted(PASSWORD))
        for name, text in {"passwd": files.passwd, "group": files.group, "shadow": shadow}.items():
            path = etc / name
            path.write_text(text(path.read_text(), users))
        for name, text in {"hosts": hosts, "resolv.conf": ""}.items():
            (etc / name).unlink(missing_ok=True)
            (etc / name).write_text(text)
        for user in users:
            (self.folder / place / "home" / user.name).mkdir(parents=True)

    # -- hosts ---------------------------------------------------------------------------------------------------

    def _boot(self, name: str) -> Host:
        """Start a host's namespaces, with nothing in them yet."""
        place = "laptop" if name == "laptop" else "site"
        # The Python that runs the tests serves everywhere, but the project itself is on the laptop only.
        python = {Path(sys.prefix), Path(sys.base_prefix), *([PROJECT] if place == "laptop" else [])}
        shared = {str(path): path for path in sorted(python) if not str(path).startswith(_SYSTEM)}
        binds = {"/etc": self.folder / place / "etc", "/home": self.folder / place / "home", **shared}
        own = dict.fromkeys(["/root", "/run", "/var/log", "/var/spool", "/var/lib/munge"], "mode=755")
        own |= dict.fromkeys(["/tmp", "/var/tmp", "/dev/shm"], "mode=1777")
        own |= {f"/{path.parts[1]}": "mode=755" for path in shared.values() if path.parts[1] not in ("tmp", "home")}
        host = self.hosts[name] = Host(name, binds=binds, empty=own)
        host.run("ip", "link", "set", "lo", "up")
        return host

    def _connect(self) -> None:
        """Plug the cables in, and close the firewall."""
        login, laptop = self.login, self.laptop
        login.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        _cable(login, "ext", laptop, "eth0")
        for address in files.FACES.values():
            login.run("ip", "address", "add", f"{address}/24", "dev", "ext")
        laptop.run("ip", "address", "add", f"{files.LAPTOP_ADDRESS}/24", "dev", "eth0")
        self.route_laptop()
        login.run("ip", "link", "add", "br0", "type", "bridge")
        login.run("ip", "address", "add", f"{files.INNER}.1/24", "dev", "br0")
        login.run("ip", "link", "set", "br0", "up")
        for node in NODES:
            self._connect_node(node)
        login.run("nft", files.FIREWALL)

    def route_laptop(self) -> None:
        """Give the laptop its way to everywhere: an interface that goes down loses it."""
        self.laptop.run("ip", "route", "replace", "default", "via", files.FACES["login"])

    def _connect_node(self, name: str) -> None:
        address = files.node_address(NODES.index(name) + 1)
        _cable(self.login, f"to-{name}", self.hosts[name], "eth0")
        self.login.run("ip", "link", "set", f"to-{name}", "master", "br0")
        self.hosts[name].run("ip", "address", "add", f"{address}/24", "dev", "eth0")

    # -- daemons -------------------------------------------------------------------------------------------------

    def _start_login(self) -> None:
        self._start_munge("login")
        self.login.run("install", "-d", "-o", "slurm", "/var/spool/slurmctld")
        self.start_slurmctld()
        for face in files.FACES:
            self.start_sshd(face)

    def start_slurmctld(self) -> None:
        """Start Slurm's controller, which remembers its jobs."""
        self.login.run("slurmctld")

    def start_sshd(self, face: str = "login") -> None:
        """Start one of the login node's servers."""
        self.login.run("mkdir", "-p", "/run/sshd")
        program = f"/etc/ssh/{OTP_SSHD}" if face == "login-otp" else "/usr/sbin/sshd"
        self.login.run(program, "-f", f"/etc/ssh/sshd_{face}", "-E", f"/var/log/sshd-{face}.log")

    def _start_munge(self, name: str) -> None:
        host = self.hosts[name]
        for folder in ("/run/munge", "/var/lib/munge", "/var/log/munge"):
            host.run("install", "-d", "-o", "munge", "-g", "munge", folder)
        host.run("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--num-threads=2")

    def _start_node(self, name: str) -> None:
        self._start_munge(name)
        self.hosts[name].run("slurmd")

    def boot_node(self, name: str) -> None:
        """Switch a node on again after a power cut, and wait until Slurm has it back."""
        self._boot(name)
        self._connect_node(name)
        self._start_node(name)
        until(lambda: "down" not in self.slurm("sinfo", "-hNo", "%T", "-n", name), why=f"{name} is back")


def _cable(one: Host, its: str, other: Host, others: str) -> None:
    """From outside, where both hosts have a number by which ip knows them."""
    ends = ["ip", "link", "add", its, "netns", str(one.pid), "type", "veth", "peer", others, "netns", str(other.pid)]
    subprocess.run(ends, check=True)
    one.run("ip", "link", "set", its, "up")
    other.run("ip", "link", "set", others, "up")


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path], check=True)


def _encrypted(password: str) -> str:
    command = ["openssl", "passwd", "-6", "-stdin"]
    return subprocess.run(command, input=password, capture_output=True, text=True, check=True).stdout.strip()


def _give(folder: Path, user: User) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.uid, user.uid)
        path.chmod(0o700 if path.is_dir() else 0o600)


def _owned() -> tuple[Path, Any]:
    """A directory, and the lock that says that its owner lives; who sweeps never sees the one without the other."""
    made = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
    lock = (made / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return made.rename(made.with_name(made.name.removeprefix("new-"))), lock


def sweep() -> None:
    """Remove the directories of labs whose owner was killed; their hosts ended with him."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
