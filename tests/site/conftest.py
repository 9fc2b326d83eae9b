"""Fixtures of the tests that need the real thing: a Slurm site, an sshd of their own, and shells on it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from hpcnb.sandbox import Sandbox, missing_packages
from hpcnb.site.ssh import SSHShell
from tests.site.account import Account
from tests.site.sshd import Sshd, User


@pytest.fixture(scope="session")
def debian():
    """Skip where the programs of a Slurm site are missing."""
    if missing := missing_packages():
        pytest.skip(f"apt-get install {' '.join(missing)}")


@pytest.fixture(scope="session")
def sandbox(debian, short_path):
    """One Slurm site for all tests of a worker; each leaves it without jobs."""
    with Sandbox(short_path()) as running:
        yield running


@pytest.fixture(scope="module")
def account(short_path):
    """One user, without a cluster and an agent yet; nothing of him runs after the module."""
    with Account(short_path()).entered() as account:
        yield account


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


@pytest.fixture
async def service():
    """Start TCP services, each from what it does with a connection; gives the address. All are gone after the test."""
    handling, serving = [], []
    async with contextlib.AsyncExitStack() as running:

        async def start(handle):
            async def serve(reader, writer):
                serving.append(asyncio.current_task())
                handling.append(task := asyncio.create_task(handle(reader, writer)))
                await asyncio.wait([task])
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

            server = await running.enter_async_context(await asyncio.start_server(serve, "127.0.0.1", 0))
            return server.sockets[0].getsockname()

        yield start
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling, *serving, return_exceptions=True)
