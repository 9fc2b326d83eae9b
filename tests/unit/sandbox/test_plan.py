"""What a sandbox may be: its directory, its size, its record."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.errors import ConfigError
from hpcnb.sandbox import Sandbox, configuration
from hpcnb.sandbox.plan import Paths, Plan, Size, too_long_for_sockets

HOSTILE = [
    "/a b",
    "/a'b",
    '/a"b',
    "/a\nb",
    "/a%nb",
    "/a#b",
    "/a,b",
    "/a=b",
    "/a$b",
    "/a\\b",
    "/a;b",
    "/a*",
    "/a\x1b",
    "/a\0b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_directory_is_refused(name):
    """A name that some file would have to quote is refused, with what to do."""
    with pytest.raises(ConfigError, match="cannot live in") as refusal:
        Sandbox(Path(name))
    assert "--directory" in refusal.value.remedy
    assert not any(character in refusal.value.what for character in "\n\x1b\0")


@pytest.mark.parametrize("name", ["/srv/box", "/home/ada/.local/share/hpcnb/sandbox", "/x/élan_2", "/a-b@c+d"])
def test_usual_directory_is_accepted(name):
    """Usual names, also of other languages, are fine."""
    assert Sandbox(Path(name)).directory == Path(name)


@given(name=st.text(min_size=1, max_size=40))
def test_no_accepted_directory_changes_a_file(name):
    """Whatever is accepted leaves each file with as many lines and words as the golden ones."""
    try:
        directory = str(Paths(Path("/" + name)).directory)
    except ConfigError:
        return
    plans = [
        Plan(
            directory=place,
            run=place,
            user="ada",
            root=False,
            pam=False,
            machine="host",
            bound=True,
            path="/bin",
            size=Size(),
            slurmctld_port=1,
            slurmd_ports=(2, 3),
            sshd_port=4,
        )
        for place in (directory, "/srv/box")
    ]
    for render in (configuration.slurm_conf, configuration.sshd_config, configuration.ssh_config):
        odd, plain = map(render, plans)
        assert [len(line.split()) for line in odd.splitlines()] == [len(line.split()) for line in plain.splitlines()]


def test_relative_directory_becomes_absolute(tmp_path, monkeypatch):
    """The daemons change their directory, so a relative name is made absolute at once."""
    monkeypatch.chdir(tmp_path)
    assert Sandbox(Path("box")).directory == tmp_path / "box"


@pytest.mark.parametrize("size", [{"nodes": 0}, {"nodes": 65}, {"cores_per_node": 0}, {"memory_per_node_mib": -1}])
def test_impossible_size_is_refused(size, tmp_path):
    """The error names the number and what is allowed."""
    with pytest.raises(ConfigError, match=next(iter(size))) as refusal:
        Sandbox(tmp_path, **size)
    assert "from 1 to" in refusal.value.remedy


def test_record_is_read_back(plan):
    """What is written about a running sandbox is what is read by the next process."""
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"size": {"nodes": 0}}', '{"size": {}, "slurmd_ports": 1}'])
def test_broken_record_is_no_record(text):
    """Half a file, or another version's, is refused as a whole."""
    with pytest.raises(ValueError):
        Plan.from_json(text)


def test_sockets_need_room():
    """The longest socket of a job step must fit into 107 bytes, not characters."""
    assert not too_long_for_sockets(Path("/" + 60 * "x"))
    assert too_long_for_sockets(Path("/" + 75 * "x"))
    assert too_long_for_sockets(Path("/" + 40 * "é"))
