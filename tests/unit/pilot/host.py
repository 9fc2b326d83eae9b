"""A real session host for tests: its run directory, its process, and what connects to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from distributed import Security

from hpcnb.model import ClusterSpec, Resources
from hpcnb.pilot.run import Run
from hpcnb.session import Session
from hpcnb.site.authority import Authority, Role

DEADLINE = 60.0


def make_run_dir(path: Path) -> Path:
    """A run directory with certificates; sessions run in ``work`` in it."""
    authority = Authority.create("test")
    tls = path / "tls"
    tls.mkdir(parents=True, mode=0o700)
    (tls / "ca.pem").write_text(authority.certificate)
    for role in (Role.SESSION, Role.CLIENT, Role.SCHEDULER, Role.WORKER):
        identity = authority.issue(role, lifetime=3600)
        (tls / f"{role}.pem").write_text(identity.certificate)
        (tls / f"{role}.key").write_text(identity.key)
    (path / "work").mkdir()
    spec = ClusterSpec(site="local", name="test", resources=Resources())
    run = Run(id="test", token="", path=str(path), spec=spec, directory=str(path / "work"))
    (path / "run.json").write_text(json.dumps(run.to_json()))
    return path


def security(run_dir: Path, role: Role = Role.CLIENT) -> Security:
    """What one who holds a role's certificate shows."""
    tls = run_dir / "tls"
    return Security(
        require_encryption=True,
        tls_ca_file=str(tls / "ca.pem"),
        tls_client_cert=str(tls / f"{role}.pem"),
        tls_client_key=str(tls / f"{role}.key"),
        tls_scheduler_cert=str(tls / f"{role}.pem"),
        tls_scheduler_key=str(tls / f"{role}.key"),
        tls_worker_cert=str(tls / f"{role}.pem"),
        tls_worker_key=str(tls / f"{role}.key"),
    )


def environment() -> dict[str, str]:
    """The environment of a kernel's parent: ipykernel leaves stdout alone where it finds that it is under test."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


class HostProcess:
    """``python -m hpcnb.pilot.session.host``, listening."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        command = [sys.executable, "-m", "hpcnb.pilot.session.host", "--run-dir", str(run_dir)]
        with (run_dir / "host.log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, cwd=run_dir, env=environment())
        wait_for(lambda: (run_dir / "sessions.json").exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()
        self.address = json.loads((run_dir / "sessions.json").read_text())["address"]

    def said(self) -> str:
        """What it has logged."""
        return (self.run_dir / "host.log").read_text()

    def end(self) -> None:
        """End it as the pilot does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)


def wait_for(condition, timeout: float = DEADLINE) -> None:
    """Wait until a condition of another process holds."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        pause.wait(0.01)


@contextlib.contextmanager
def background_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in another thread, as a notebook has one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def connected(host: HostProcess, loop: asyncio.AbstractEventLoop, name: str = "main") -> Iterator[Session]:
    """A session that is closed afterwards."""
    session = Session(host.address, security=security(host.run_dir), loop=loop, name=name)
    try:
        yield session
    finally:
        if host.process.poll() is None:
            session.close()
        session.wait(session.disconnect())
