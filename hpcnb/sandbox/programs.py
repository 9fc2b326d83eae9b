"""The programs that a sandbox is made of, and Debian's names for what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from hpcnb.errors import SiteError

_PACKAGES = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "srun": "slurm-wlm",
    "scancel": "slurm-wlm",
    "sinfo": "slurm-wlm",
    "squeue": "slurm-wlm",
    "munged": "munge",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}

NAMES: Mapping[str, str] = {program: program for program in _PACKAGES}
"""Every program by its bare name, for those who only look."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(which: Callable[[str], str | None] | None = None) -> Mapping[str, str]:
    """Return the path of every program that a sandbox runs.

    Raises
    ------
    SiteError
        Naming the Debian packages that are missing, and the command that installs them.
    """
    found = _found(which)
    missing = _missing(found)
    if missing:
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise SiteError(
            f"a sandbox needs {', '.join(missing)}, which this machine does not have",
            remedy=f"{sudo}apt-get install --no-install-recommends {' '.join(missing)}",
        )
    return {program: path for program, path in found.items() if path}


def missing_packages(which: Callable[[str], str | None] | None = None) -> list[str]:
    """Name the Debian packages that a sandbox needs and this machine lacks."""
    return _missing(_found(which))


def _found(which: Callable[[str], str | None] | None) -> dict[str, str | None]:
    return {program: (which or _which)(program) for program in _PACKAGES}


def _missing(found: Mapping[str, str | None]) -> list[str]:
    return sorted({_PACKAGES[program] for program, path in found.items() if path is None})


def _which(program: str) -> str | None:
    # The system's first: an ssh-keygen or sshd of a conda environment may not know the system's users.
    return shutil.which(program, path=f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}".rstrip(":"))


def search_path(found: Mapping[str, str]) -> str:
    """``PATH`` for the daemons and sessions: the system's, after the places of those that are elsewhere."""
    system = SYSTEM_PATH.split(":")
    elsewhere = {str(Path(path).parent): None for path in found.values()}
    return ":".join([*(place for place in elsewhere if place not in system), *system])
