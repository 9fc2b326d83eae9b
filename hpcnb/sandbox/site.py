"""The sandbox: one user's whole Slurm site on this machine, brought up, looked at, and taken down."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hpcnb.errors import ConfigError, SiteError
from hpcnb.sandbox import ground, processes, programs
from hpcnb.sandbox.daemons import Daemon, daemons, failure, start
from hpcnb.sandbox.plan import HOST, Paths, Plan, Size

_READY = 20.0  # seconds for all daemons to answer
_DRAIN = 8.0  # seconds for cancelled jobs to end: Slurm's KillWait is 5


@dataclass(frozen=True, kw_only=True)
class SandboxStatus:
    """A sandbox at one moment.

    Parameters
    ----------
    directory : str
    daemons : dict of str to int or None
        The process id of each; None for one that does not run. Empty for a sandbox that was never up.
    nodes : dict of str to str
        Slurm's word for each node (``idle``); empty when Slurm does not answer.
    jobs : int
        Pending and running.
    """

    directory: str
    daemons: dict[str, int | None]
    nodes: dict[str, str]
    jobs: int

    @property
    def up(self) -> bool:
        """Whether every daemon runs and Slurm answers."""
        return bool(self.nodes) and None not in self.daemons.values()


def _quietly(step: str) -> None:
    """Tell nobody."""


class Sandbox:
    """A real Slurm site on this machine: munge, Slurm and sshd, run by the calling user on loopback ports.

    Parameters
    ----------
    directory : Path
        Holds all it has: configuration, keys, logs, state. Made 0700.
    nodes, cores_per_node, memory_per_node_mib : int
        The size the site claims to have, whatever the machine has.
    default_scheduling : bool
        Keep Slurm's own, slow intervals between looks at the queue.

    Examples
    --------
    >>> with Sandbox(Path("/tmp/site")) as sandbox:  # doctest: +SKIP
    ...     subprocess.run(["sinfo"], env=os.environ | sandbox.slurm_env)
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 2,
        cores_per_node: int = 4,
        memory_per_node_mib: int = 8192,
        default_scheduling: bool = False,
    ) -> None:
        self._paths = Paths(Path(os.path.abspath(directory)))  # noqa: PTH100 - resolve() would follow a foreign link
        self._size = Size(
            nodes=nodes,
            cores_per_node=cores_per_node,
            memory_per_node_mib=memory_per_node_mib,
            default_scheduling=default_scheduling,
        )

    @property
    def directory(self) -> Path:
        return self._paths.directory

    @property
    def host(self) -> str:
        """The login node's name in `ssh_config`."""
        return HOST

    @property
    def ssh_config(self) -> Path:
        """An OpenSSH configuration by which ``ssh -F`` logs in without a question."""
        return self._paths.ssh_config

    @property
    def slurm_env(self) -> dict[str, str]:
        """What to add to an environment in which Slurm's commands shall mean this site."""
        here = os.environ.get("PATH", "")
        return {"SLURM_CONF": str(self._paths.slurm_conf), "PATH": f"{here}:{programs.SYSTEM_PATH}".lstrip(":")}

    def site_entry(self) -> dict[str, str]:
        """The site's entry in the configuration, below ``hpcnb: sites:``."""
        return {
            "host": self.host,
            "ssh-config": str(self.ssh_config),
            "batch": "slurm",
            "python": sys.executable,
            "partition": "main",
            "walltime": "1h",
        }

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self, step: Callable[[str], None] = _quietly) -> None:
        """Bring the site up, or what is missing of it; returns when all nodes are ready and ssh logs in.

        Parameters
        ----------
        step : callable
            Told what is being done, a few words at a time.

        Raises
        ------
        SiteError
            Debian packages are missing, or a daemon does not start.
        ConfigError
            The directory cannot be used, or a sandbox of another size runs there.
        """
        found = programs.find()
        ground.claim(self._paths)
        with ground.locked(self._paths):
            plan = self._running_plan()
            if plan is not None:
                try:
                    self._start(plan, found, step)
                    return
                except SiteError as error:
                    # What runs is beyond repair: a daemon that hangs, a port that somebody took meanwhile.
                    step(f"starting afresh, for {error.what}")
            self._stop()
            plan = ground.survey(self._paths, self._size, found)
            ground.furnish(plan, found)
            try:
                self._start(plan, found, step, fresh=True)
            except BaseException:
                self._stop()
                raise

    def _running_plan(self) -> Plan | None:
        """The plan by which something of the sandbox runs."""
        plan = ground.recorded(self._paths)
        if plan is None or not self._owned():
            return None
        if plan.size != self._size:
            raise ConfigError(
                f"a sandbox of {plan.size} runs in {self.directory}, not one of {self._size}",
                remedy="Take it down first: hpcnb sandbox down.",
            )
        return plan

    def _start(self, plan: Plan, found: Mapping[str, str], step: Callable[[str], None], *, fresh: bool = False) -> None:
        every = {daemon.name: daemon for daemon in daemons(plan, found, fresh=fresh)}
        # munge first, for all else asks it. A node that does not find the controller tries again a second later.
        stages: list[tuple[str, list[str], Callable[[], bool]]] = [
            ("munge", ["munged"], lambda: _answers(plan.munge_socket)),
            ("the controller", ["slurmctld"], lambda: processes.listening(plan.slurmctld_port)),
            ("sshd", ["sshd"], lambda: processes.listening(plan.sshd_port)),
            ("the nodes", [*plan.nodes], lambda: self._nodes_ready(plan)),
        ]
        for title, names, ready in stages:
            wanted, here = [every[name] for name in names], self._owned()
            if any(daemon.find(here) is None for daemon in wanted):
                step(f"starting {title}")
            self._bring_up(wanted, ready, plan)
        step("logging in")
        self._log_in(plan, found)

    def _bring_up(self, wanted: list[Daemon], ready: Callable[[], bool], plan: Plan) -> None:
        """Start those that do not run, once, and wait until they are ready."""
        started: list[Daemon] = []
        missed: list[Daemon] = []
        deadline = time.monotonic() + _READY
        while True:
            here = self._owned()
            missing = [daemon for daemon in wanted if daemon.find(here) is None]
            if not missing and ready():
                return
            # Missing twice: one look at /proc does not find a process that is being replaced by its child.
            dead = next((daemon for daemon in missing if daemon in missed), None)
            if dead is not None or time.monotonic() > deadline:
                raise failure(dead or wanted[0], plan)
            missed = [daemon for daemon in missing if daemon in started]
            fresh = [daemon for daemon in missing if daemon not in started]
            start(fresh, plan)
            started += fresh
            time.sleep(0.02)

    def _nodes_ready(self, plan: Plan) -> bool:
        states = self._nodes()
        # A star: the node does not answer. A node that the user has drained is as ready as he wants it.
        return states.keys() == plan.nodes.keys() and not any(
            state.startswith(("down", "unknown")) or state.endswith("*") for state in states.values()
        )

    def _log_in(self, plan: Plan, found: Mapping[str, str]) -> None:
        command = [found["ssh"], "-F", str(self.ssh_config), "-o", "BatchMode=yes", self.host, "true"]
        done = self._run(command, timeout=10)
        if done is None or done.returncode != 0:
            log = plan.paths.log("sshd").read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
            said = "no answer in 10 s" if done is None else done.stderr.strip()
            raise SiteError(
                f"ssh cannot log in to the sandbox as {plan.user}",
                where=plan.directory,
                evidence="\n".join([said, *log]),
            )

    def down(self) -> None:
        """Cancel the jobs and end every process of the site; configuration, keys and logs stay."""
        with ground.locked(self._paths):
            self._stop()

    def _stop(self) -> None:
        if any(process.name == "slurmctld" for process in self._owned()):
            self._cancel_jobs()
        # munge last: the others say good-bye to each other by it.
        processes.end(lambda: [process for process in self._owned() if process.name != "munged"])
        processes.end(self._owned)
        plan = ground.recorded(self._paths)
        if plan is not None and Path(plan.run).parent != self.directory:
            shutil.rmtree(plan.run, ignore_errors=True)

    def _cancel_jobs(self) -> None:
        """Cancel all jobs and wait for their end: a step that outlives its controller looks for it for ever."""
        deadline = time.monotonic() + _DRAIN
        if self._slurm("scancel", "--user", str(os.geteuid())) is None:
            return
        while self._slurm("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.05)

    def status(self) -> SandboxStatus:
        """Look at the site; changes nothing."""
        plan = ground.recorded(self._paths)
        if plan is None:
            return SandboxStatus(directory=str(self.directory), daemons={}, nodes={}, jobs=0)
        here = self._owned()
        found = {daemon.name: daemon.find(here) for daemon in daemons(plan, programs.NAMES)}
        asked = found["slurmctld"] is not None  # else each question would take Slurm's 9 s to give up
        queue = (asked and self._slurm("squeue", "--noheader", "--array")) or ""
        return SandboxStatus(
            directory=str(self.directory),
            daemons={name: process.pid if process else None for name, process in found.items()},
            nodes=self._nodes() if asked else {},
            jobs=len(queue.splitlines()),
        )

    def _owned(self) -> list[processes.Process]:
        plan = ground.recorded(self._paths)
        every = processes.table()
        port = plan.sshd_port if plan else None
        servers = processes.serving(port, every) if port else ()
        return processes.owned(every, self._paths, port=port, servers=servers)

    def _nodes(self) -> dict[str, str]:
        said = self._slurm("sinfo", "--noheader", "--Node", "--format=%N %T") or ""
        return dict(line.split() for line in said.splitlines())

    def _slurm(self, *command: str) -> str | None:
        """What a command of Slurm says; None when Slurm does not answer."""
        done = self._run(command, timeout=5)
        return done.stdout if done is not None and done.returncode == 0 else None

    def _run(self, command: tuple[str, ...] | list[str], *, timeout: float) -> subprocess.CompletedProcess[str] | None:
        try:
            return subprocess.run(
                command,
                # Nothing of the caller's: a SQUEUE_FORMAT or SLURM_CLUSTERS would change the answers.
                env={
                    "PATH": f"{programs.SYSTEM_PATH}:{os.environ.get('PATH', '')}".rstrip(":"),
                    "SLURM_CONF": str(self._paths.slurm_conf),
                    "LANG": "C.UTF-8",
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None


def _answers(path: str) -> bool:
    """Whether somebody accepts connections at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0
