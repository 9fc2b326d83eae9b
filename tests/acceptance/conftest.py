"""Fixtures of the tests that run whole notebooks."""

from __future__ import annotations

import pytest

from tests.unit.pilot.host import HostProcess, make_run_dir


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A session host."""
    host = HostProcess(make_run_dir(tmp_path_factory.mktemp("run")))
    yield host
    host.end()
