"""What is missing is said in Debian's words."""

from __future__ import annotations

import os

import pytest

from hpcnb.errors import SiteError
from hpcnb.sandbox import programs


def test_missing_packages_are_named():
    """Exactly the packages of the missing programs, once each, and the command to type."""
    has = {"srun", "scancel", "sinfo", "squeue", "ssh", "ssh-keygen", "sshd"}
    with pytest.raises(SiteError, match="needs munge, slurm-wlm,") as error:
        programs.find(lambda program: f"/bin/{program}" if program in has else None)
    sudo = "" if os.geteuid() == 0 else "sudo "
    assert error.value.remedy == f"{sudo}apt-get install --no-install-recommends munge slurm-wlm"


def test_nothing_missing():
    """With all programs there, nothing is."""
    assert programs.missing_packages("/bin/{}".format) == []
    assert programs.find("/bin/{}".format)["sshd"] == "/bin/sshd"


def test_programs_elsewhere_are_searched_first():
    """A Slurm in /opt is found by the sessions, before the system's directories."""
    path = programs.search_path(
        {"srun": "/opt/slurm/bin/srun", "slurmd": "/opt/slurm/sbin/slurmd", "ssh": "/usr/bin/ssh"}
    )
    assert path == f"/opt/slurm/bin:/opt/slurm/sbin:{programs.SYSTEM_PATH}"
