"""A place of its own for everything that hpcnb keeps on this machine, and nothing left running when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import dask.config
import psutil
import pytest

DEADLINE = 60.0
VARIABLES = {"XDG_RUNTIME_DIR": "run", "XDG_DATA_HOME": "data", "HPCNB_HOME": "home", "DASK_CONFIG": "config"}


class Isolation:
    """Directories of one test.

    Parameters
    ----------
    folder : Path
        Short, since a unix socket lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {variable: str(folder / name) for variable, name in VARIABLES.items()}
        for path in self.environ.values():
            Path(path).mkdir(mode=0o700)

    @property
    def runtime(self) -> Path:
        """Where the agent's socket is."""
        return self.folder / "run" / "hpcnb"

    @property
    def data(self) -> Path:
        """Where the agent's log and records are."""
        return self.folder / "data" / "hpcnb"

    @property
    def home(self) -> Path:
        """What hpcnb keeps at the site that is this machine."""
        return self.folder / "home"

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this process, and what it starts, act here."""
        for variable in [name for name in os.environ if name.startswith("DASK_")]:
            monkeypatch.delenv(variable)
        for variable, path in self.environ.items():
            monkeypatch.setenv(variable, path)
        monkeypatch.setattr(dask.config, "paths", [self.environ["DASK_CONFIG"]])
        disconnect()

    def configure(self, text: str) -> None:
        """Write the user's configuration."""
        (self.folder / "config" / "hpcnb.yaml").write_text(text)

    def processes(self) -> list[psutil.Process]:
        """All that was started from here and still runs."""
        mark = ("XDG_RUNTIME_DIR", self.environ["XDG_RUNTIME_DIR"])
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and mark in process.environ().items():
                    found.append(process)
        return found

    def agents(self) -> list[psutil.Process]:
        """The agents among them; what an agent is about to start looks like itself until it does."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if "hpcnb.agent" in process.cmdline():
                    found[process.pid] = process, process.ppid()
        return [process for process, parent in found.values() if parent not in found]

    def end(self) -> None:
        """End what still runs: the agent first, so that it starts nothing new."""
        for number in (signal.SIGTERM, *[signal.SIGKILL] * 5):  # again, for what was just being started
            running = self.processes()
            for process in running:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            psutil.wait_procs(running, timeout=5)


def disconnect() -> None:
    """Let this process forget its agent and its clusters, if it knows any."""
    if handle := sys.modules.get("hpcnb.handle"):
        if handle._agent is not None:
            handle.run(handle._agent.close())
        handle._agent = None
        handle.ask_with(handle.nobody_to_ask)
    if choice := sys.modules.get("hpcnb.choice"):
        choice._current = None
    if cluster := sys.modules.get("hpcnb.cluster"):
        cluster._known.clear()


async def until(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    """Wait until a condition holds that nothing tells of: what another process does."""
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


def below(folder: Path) -> list[Path]:
    """A directory and all that is in it, which may change meanwhile: `Path.rglob` fails when a directory has gone."""
    return [Path(where, name) for where, *names in os.walk(folder) for name in ("", *itertools.chain(*names))]


@contextlib.contextmanager
def isolation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Isolation]:
    """Directories of its own for agent, site and configuration; whatever was started there has ended afterwards."""
    place = Isolation(Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp")))
    place.enter(monkeypatch)
    yield place
    disconnect()
    place.end()
    shutil.rmtree(place.folder)


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Isolation]:
    """A place of a test's own, see `isolation`."""
    with isolation(monkeypatch) as place:
        yield place


@pytest.fixture(scope="session")
def short_path() -> Iterator[Callable[[], Path]]:
    """Make directories whose names leave room for the name of a socket; all are gone in the end."""
    made = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp")))
        return made[-1]

    yield make
    for path in made:
        shutil.rmtree(path)
