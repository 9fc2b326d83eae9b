"""The sandbox's entry in the user's configuration."""

from __future__ import annotations

from pathlib import Path

import dask.config
import pytest

import hpcnb.config
from hpcnb.errors import ConfigError
from hpcnb.sandbox import Sandbox, entry


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A configuration directory that does not exist yet."""
    monkeypatch.setattr(dask.config, "PATH", str(tmp_path / "dask"))
    monkeypatch.setattr(dask.config, "paths", [str(tmp_path / "dask")])
    return tmp_path / "dask"


def test_the_site_is_there_as_soon_as_it_is_published(place):
    """What is written passes the check of the configuration, and says what the sandbox said."""
    sandbox = Sandbox(Path("/srv/bôx"))
    assert entry.publish(sandbox.site_entry()) == place / "hpcnb-sandbox.yaml"
    site = hpcnb.config.load().site("sandbox")
    assert (site.host, site.ssh_config, site.batch) == (sandbox.host, "/srv/bôx/etc/ssh_config", "slurm")
    assert (site.partition, site.walltime) == ("main", 3600)


def test_it_goes_as_it_came(place):
    """Withdrawing removes the file, and twice is no error."""
    site = Sandbox(Path("/srv/box")).site_entry()
    entry.publish(site)
    entry.withdraw(site)
    entry.withdraw(site)
    assert [*place.iterdir()] == []


def test_the_entry_of_another_sandbox_stays(place):
    """Taking one sandbox down does not remove another's site."""
    entry.publish(Sandbox(Path("/srv/box")).site_entry())
    entry.withdraw(Sandbox(Path("/srv/bo")).site_entry())
    entry.withdraw(Sandbox(Path("/srv/box/etc")).site_entry())
    assert entry.path().exists()


def test_a_single_file_of_configuration_is_left_alone(place):
    """When $DASK_CONFIG is a file, the error shows what to write into it."""
    place.write_text("x: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is the file") as error:
        entry.publish(Sandbox(Path("/srv/box")).site_entry())
    assert "host:" in error.value.evidence
    entry.withdraw(Sandbox(Path("/srv/box")).site_entry())
    assert place.read_text(encoding="utf-8") == "x: 1\n"
