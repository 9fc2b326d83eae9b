"""A plan that does not depend on the machine that runs the tests."""

from __future__ import annotations

import pytest

from hpcnb.sandbox.plan import Plan, Size


@pytest.fixture
def plan():
    """Two nodes of an ordinary user."""
    return Plan(
        directory="/srv/box",
        run="/srv/box/run",
        user="ada",
        root=False,
        pam=False,
        machine="host",
        bound=True,
        path="/usr/bin:/bin",
        size=Size(),
        slurmctld_port=20001,
        slurmd_ports=(20002, 20003),
        sshd_port=20004,
    )
