"""What one sandbox is made of: its size, its ports, and where each of its files lies."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcnb.errors import ConfigError

HOST = "hpcnb-sandbox"
"""What ssh_config calls the login node."""

# The directory's name is written into four files, each with its own quoting (and `%`, `#`, `,` mean something in
# Slurm's): a name that means itself everywhere needs none.
_PLAIN = re.compile(r"/[\w./+@-]*")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the site claims to be; Slurm believes it, whatever the machine has."""

    nodes: int = 2
    cores_per_node: int = 4
    memory_per_node_mib: int = 8192
    default_scheduling: bool = False

    def __post_init__(self) -> None:
        for name, most in {"nodes": 64, "cores_per_node": 1024, "memory_per_node_mib": 2**30}.items():
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(
                    f"a sandbox cannot have {name}={getattr(self, name)!r}", remedy=f"Choose a number from 1 to {most}."
                )

    def __str__(self) -> str:
        return f"{self.nodes} nodes of {self.cores_per_node} cores and {self.memory_per_node_mib} MiB"


@dataclass(frozen=True)
class Paths:
    """Where the files of a sandbox lie, but for its sockets (`Plan.run`)."""

    directory: Path

    def __post_init__(self) -> None:
        if not _PLAIN.fullmatch(str(self.directory)):
            raise ConfigError(
                f"a sandbox cannot live in {str(self.directory)!r}",
                remedy="Choose an absolute directory of letters, digits and _ . / + @ - only (--directory).",
            )

    @property
    def etc(self) -> Path:
        return self.directory / "etc"

    @property
    def logs(self) -> Path:
        return self.directory / "log"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def record(self) -> Path:
        return self.directory / "sandbox.json"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def slurm_conf(self) -> Path:
        return self.etc / "slurm.conf"

    @property
    def sshd_config(self) -> Path:
        return self.etc / "sshd_config"

    @property
    def ssh_config(self) -> Path:
        return self.etc / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.etc / "known_hosts"

    @property
    def munge_key(self) -> Path:
        return self.etc / "munge.key"

    @property
    def host_key(self) -> Path:
        return self.etc / "host_key"

    @property
    def user_key(self) -> Path:
        return self.etc / "user_key"

    def log(self, daemon: str) -> Path:
        return self.logs / f"{daemon}.log"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the configuration files and the daemons' command lines are rendered from.

    Parameters
    ----------
    directory : str
    run : str
        Where the Unix sockets are: `directory`/run, or a short directory where that name is too long for one.
    user : str
        Who runs the daemons, the jobs and the ssh sessions.
    root : bool
        Whether that is root.
    pam : bool
        Whether sshd must ask PAM, because it refuses the locked password of that user by itself.
    machine : str
        The machine's short host name, as Slurm's daemons see it.
    bound : bool
        Whether Slurm's daemons can be made to listen at 127.0.0.1 alone; else they listen at every address,
        and munge's key keeps others out.
    path : str
        ``PATH`` of the daemons and the ssh sessions.
    size : Size
    slurmctld_port, sshd_port : int
    slurmd_ports : tuple of int
        One for each node.
    """

    directory: str
    run: str
    user: str
    root: bool
    pam: bool
    machine: str
    bound: bool
    path: str
    size: Size
    slurmctld_port: int
    slurmd_ports: tuple[int, ...]
    sshd_port: int

    @property
    def paths(self) -> Paths:
        return Paths(Path(self.directory))

    @property
    def munge_socket(self) -> str:
        return f"{self.run}/munge.sock"

    @property
    def nodes(self) -> dict[str, int]:
        """The port of each node, by the node's name."""
        return {f"n{number}": port for number, port in enumerate(self.slurmd_ports, 1)}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote; raises `ValueError` for anything else."""
        try:
            data: dict[str, Any] = json.loads(text)
            return cls(**{**data, "size": Size(**data["size"]), "slurmd_ports": tuple(data["slurmd_ports"])})
        except (TypeError, KeyError, ConfigError) as error:
            raise ValueError(f"not the record of a sandbox: {error}") from error


def too_long_for_sockets(directory: Path) -> bool:
    """Whether a Unix socket below a directory would be longer than the kernel's 108 bytes.

    The longest is that of a job step, in the spool directory of its node: ``n64/n64_2147483647.4294967295``.
    """
    return len(os.fsencode(directory)) + len("/n64/n64_2147483647.4294967295+4294967295") >= 108
