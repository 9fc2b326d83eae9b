"""The configuration files, as they are written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hpcnb.sandbox import configuration
from hpcnb.sandbox.plan import Size

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["slurm_conf", "sshd_config", "ssh_config"])
def test_file_is_as_recorded(plan, name):
    """Each file is rendered to the letter as the golden one."""
    assert getattr(configuration, name)(plan) == (GOLDEN / name).read_text(encoding="utf-8")


def test_known_hosts_names_the_port(plan):
    """The host key is known for this port only, without the comment of the file it came from."""
    assert configuration.known_hosts(plan, "ssh-ed25519 AAAA ada@host\n") == "[127.0.0.1]:20004 ssh-ed25519 AAAA\n"


def test_default_scheduling_says_nothing_of_it(plan):
    """Slurm's own intervals are had by leaving them out."""
    slow = dataclasses.replace(plan, size=Size(default_scheduling=True))
    assert "SchedulerParameters" in configuration.slurm_conf(plan)
    assert "SchedulerParameters" not in configuration.slurm_conf(slow)


def test_daemons_are_bound_only_where_steps_find_back(plan):
    """On a machine whose name is not 127.0.0.1, a bound srun would not hear its steps."""
    anywhere = dataclasses.replace(plan, bound=False)
    assert "NoInAddrAny" in configuration.slurm_conf(plan)
    assert "CommunicationParameters" not in configuration.slurm_conf(anywhere)


def test_root_logs_in_with_a_key_only(plan):
    """Root's sshd lets root in, an ordinary user's does not."""
    assert "PermitRootLogin no" in configuration.sshd_config(plan)
    root = dataclasses.replace(plan, user="root", root=True, pam=True)
    assert {"PermitRootLogin prohibit-password", "UsePAM yes"} < {*configuration.sshd_config(root).splitlines()}


@pytest.mark.parametrize("size", [Size(nodes=1), Size(nodes=3, cores_per_node=7, memory_per_node_mib=5)])
def test_every_node_has_its_line_and_memory(plan, size):
    """A node for each port, and never a default of no memory."""
    plan = dataclasses.replace(plan, size=size, slurmd_ports=tuple(range(30000, 30000 + size.nodes)))
    lines = configuration.slurm_conf(plan).splitlines()
    nodes = [line for line in lines if line.startswith("NodeName=")]
    assert [line.split()[0] for line in nodes] == [f"NodeName=n{number + 1}" for number in range(size.nodes)]
    assert all(f"CoresPerSocket={size.cores_per_node} RealMemory={size.memory_per_node_mib} " in line for line in nodes)
    assert "DefMemPerCPU=0" not in lines


def test_environment_is_set_by_one_line(plan):
    """Sshd heeds the first SetEnv only, so there is one."""
    lines = [line for line in configuration.sshd_config(plan).splitlines() if line.startswith("SetEnv")]
    assert lines == ['SetEnv SLURM_CONF=/srv/box/etc/slurm.conf "PATH=/usr/bin:/bin"']
