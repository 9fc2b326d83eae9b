"""Fixtures of the tests that need the real thing: an sshd of their own, and shells on it."""

from __future__ import annotations

import contextlib

import pytest

from hpcnb.site.ssh import SSHShell
from tests.site.sshd import Sshd, User


@pytest.fixture(autouse=True)
def no_agent(monkeypatch):
    """The developer's own agent is no part of a test."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def start_sshd(tmp_path):
    """Start servers with options of their own; all are gone after the test."""
    with contextlib.ExitStack() as running:

        def start(*options, name="site", **kwargs):
            server = Sshd(tmp_path / name, *options, name=name, **kwargs)
            running.callback(server.stop)
            return server

        yield start


@pytest.fixture
def sshd(start_sshd):
    """One plain server."""
    return start_sshd()


@pytest.fixture(scope="module")
def shared_sshd(tmp_path_factory):
    """One plain server for all the tests of a module: what they change of it, they set."""
    server = Sshd(tmp_path_factory.mktemp("sshd") / "site")
    yield server
    server.stop()


@pytest.fixture
async def connect():
    """Connect to a server; all shells are closed after the test."""
    async with contextlib.AsyncExitStack() as shells:

        async def connect(server, *answers, user=None):
            shell = await SSHShell.connect(server.name, ask=user or User(*answers), config_file=server.config)
            shells.push_async_callback(shell.close)
            return shell

        yield connect
