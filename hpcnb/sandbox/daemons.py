"""The daemons of a sandbox: their command lines, whether they run, how they are started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcnb.errors import SiteError
from hpcnb.sandbox.plan import Plan
from hpcnb.sandbox.processes import Process

_START = 10.0


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """One program that detaches itself from whoever starts it.

    Parameters
    ----------
    name : str
        Of its log.
    argv : tuple of str
    umask : int
        What sshd has here, the sessions have.
    """

    name: str
    argv: tuple[str, ...]
    umask: int = 0o077

    def find(self, processes: Iterable[Process]) -> Process | None:
        """Return the process that runs it, by the command line that it shows."""
        program, *arguments = self.argv
        said = " ".join(arguments)
        return next((p for p in processes if p.name == os.path.basename(program) and said in p.command), None)  # noqa: PTH119


def daemons(plan: Plan, programs: Mapping[str, str], *, fresh: bool = False) -> list[Daemon]:
    """Every daemon of a sandbox; with `fresh` the controller forgets all jobs, but not how many there were."""
    forget = ("-c",) if fresh else ()
    conf = str(plan.paths.slurm_conf)
    return [
        Daemon(name="munged", argv=(programs["munged"], *_munge_options(plan))),
        Daemon(name="slurmctld", argv=(programs["slurmctld"], *forget, "-f", conf)),
        *(Daemon(name=node, argv=(programs["slurmd"], "-N", node, "-f", conf)) for node in plan.nodes),
        Daemon(
            name="sshd",
            argv=(programs["sshd"], "-E", str(plan.paths.log("sshd")), "-f", str(plan.paths.sshd_config)),
            umask=0o022,
        ),
    ]


def _munge_options(plan: Plan) -> list[str]:
    # Forced, for it dislikes a socket that not everybody can reach; here nobody else shall.
    return [
        "--force",
        f"--key-file={plan.paths.munge_key}",
        f"--socket={plan.munge_socket}",
        f"--pid-file={plan.run}/munged.pid",
        f"--log-file={plan.paths.log('munged')}",
        f"--seed-file={plan.run}/munge.seed",
        "--num-threads=2",
    ]


def start(wanted: Iterable[Daemon], plan: Plan) -> None:
    """Start daemons side by side, and wait until each has detached itself.

    Raises
    ------
    SiteError
        One ended with an error instead; the evidence is what it said.
    """
    running = [(daemon, _spawn(daemon, plan)) for daemon in wanted]
    for daemon, process in running:
        try:
            status = process.wait(_START)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status != 0:
            raise failure(daemon, plan)


def _spawn(daemon: Daemon, plan: Plan) -> subprocess.Popen[bytes]:
    environ = {"PATH": plan.path, "SLURM_CONF": str(plan.paths.slurm_conf), "LANG": "C.UTF-8"}
    said = _said(daemon, plan)
    said.touch(mode=0o600)
    with said.open("wb") as out:
        return subprocess.Popen(
            daemon.argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=plan.directory,
            env=environ,
            umask=daemon.umask,
            start_new_session=True,
        )


def _said(daemon: Daemon, plan: Plan) -> Path:
    return plan.paths.logs / f"{daemon.name}.out"


def failure(daemon: Daemon, plan: Plan) -> SiteError:
    """The error for a daemon that does not run, with the last lines that it wrote."""
    lines = []
    for path in (_said(daemon, plan), plan.paths.log(daemon.name)):
        if path.exists():
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return SiteError(
        f"{daemon.name} of the sandbox does not get ready",
        where=plan.directory,
        evidence="\n".join(lines),
        remedy=f"Its log is {plan.paths.log(daemon.name)}.",
    )
