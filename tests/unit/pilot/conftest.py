"""Fixtures of the tests of what runs inside an allocation."""

from __future__ import annotations

import pytest

from tests.unit.pilot.host import HostProcess, background_loop, connected, make_run_dir


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A session host."""
    host = HostProcess(make_run_dir(tmp_path_factory.mktemp("run")))
    yield host
    host.end()


@pytest.fixture(scope="module")
def loop():
    """An event loop in another thread."""
    with background_loop() as loop:
        yield loop


@pytest.fixture(scope="module")
def session(host, loop):
    """A session that the tests of a module share."""
    with connected(host, loop) as session:
        yield session


@pytest.fixture
def own(host, loop, request):
    """A session of the test's own, with a kernel that has run nothing."""
    with connected(host, loop, request.node.name.replace("[", ".").strip("]")[:60]) as session:
        yield session
