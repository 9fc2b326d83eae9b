"""hpcnb as one user has it: its places, its configuration and its agent, in a directory of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

import hpcnb
from hpcnb import cli
from hpcnb.sandbox import Sandbox
from tests.isolation import Isolation, disconnect

ROOT = Path(hpcnb.__file__).parents[1]
DEADLINE = 60.0
LISTENS, ESTABLISHED = "0A", "01"


def until(holds: Callable[[], Any], *, within: float = DEADLINE, every: float = 0.05) -> Any:
    """Wait for something to be so, and return it; fail when it is not in time."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within} s: {holds}")
        time.sleep(every)
    return found


def slurm(site: Sandbox, *command: str) -> str:
    """Run one of Slurm's commands at a site; what it says."""
    done = subprocess.run(command, env=os.environ | site.slurm_env, cwd="/", capture_output=True, text=True, check=True)
    return done.stdout.strip()


def jobs(site: Sandbox) -> list[str]:
    """The ids of all jobs that wait or run there."""
    return slurm(site, "squeue", "--noheader", "--format=%i").split()


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Listener:
    """One TCP port on which a process waits."""

    host: str
    port: int
    process: str


class Account(Isolation):
    """One user's hpcnb, for the tests of a module.

    Parameters
    ----------
    folder : Path
        Short, since it holds sockets; made and removed by the caller.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tmp = folder / "tmp"
        self.tmp.mkdir(mode=0o700)
        self.environ |= {"TMPDIR": str(self.tmp), "PYTHONPATH": str(ROOT)}

    @contextlib.contextmanager
    def entered(self) -> Iterator[Account]:
        """Make this process, and what it starts, act for this account; in the end nothing of the account runs."""
        with pytest.MonkeyPatch.context() as patch:
            self.enter(patch)
            try:
                yield self
            finally:
                self.end()

    def sites(self, **entries: dict[str, Any]) -> None:
        """Write the configuration anew, with these sites."""
        self.configure(json.dumps({"hpcnb": {"sites": entries}}))

    # -- commands ------------------------------------------------------------------------------------------------

    def run(self, *words: str) -> Said:
        """Run the command `hpcnb`, within this process."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", ["hpcnb", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return Said(status=int(ended.value.code or 0), out=out.getvalue(), err=err.getvalue())

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command `hpcnb` as a process of its own."""
        code = "from hpcnb.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env=os.environ | self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a Python of its own: another notebook's kernel."""
        command = [sys.executable, "-c", code]
        environ = os.environ | self.environ
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False)

    def clusters(self) -> list[dict[str, Any]]:
        """The live clusters, as ``hpcnb status --json`` tells."""
        said = self.run("status", "--json")
        assert said.status == 0, said.err
        return json.loads(said.out)

    # -- what there is of it -------------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """Every process of this account on this machine, but this one: by its arguments, variables or directory."""
        here = str(self.folder)
        return [p for p in psutil.process_iter() if p.pid != os.getpid() and _mentions(p, here)]

    def listeners(self) -> list[Listener]:
        """Every TCP port on which one of its processes waits."""
        waiting = {inode: address for address, _, state, inode in connections() if state == LISTENS}
        return [
            Listener(host=waiting[inode][0], port=waiting[inode][1], process=" ".join(words(process)))
            for process in self.processes()
            for inode in socket_inodes(process.pid)
            if inode in waiting
        ]

    def sockets(self) -> list[str]:
        """The name of every Unix socket that one of its processes has bound; an abstract one begins with @."""
        inodes = {inode for process in self.processes() for inode in socket_inodes(process.pid)}
        rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
        return sorted({row[7] for row in rows if len(row) > 7 and row[6] in inodes})

    # -- the end -------------------------------------------------------------------------------------------------

    def stop_agent(self) -> None:
        """End the agent, and wait until it has gone."""
        agents = self.agents()
        self.run("agent", "stop")
        _, left = psutil.wait_procs(agents, timeout=DEADLINE)
        assert not left, f"the agent did not end: {left}"

    def end(self) -> None:
        """End what a test left: its clusters, the agent, at last by force whatever runs still."""
        if self.agents():
            self.run("down", "--all")
            self.stop_agent()
        disconnect()
        super().end()


def words(process: psutil.Process) -> list[str]:
    """Its command line; none when it has gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _mentions(process: psutil.Process, folder: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return (
            any(folder in word for word in process.cmdline())
            or any(folder in value for value in process.environ().values())
            or process.cwd().startswith(folder)
        )
    except (psutil.Error, OSError):
        return False


def socket_inodes(pid: int) -> set[str]:
    """The sockets that a process holds."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)):
                    found.add(match[1])
    return found


Address = tuple[str, int]


def connections() -> Iterator[tuple[Address, Address, str, str]]:
    """Every TCP socket of this machine: its address, its peer's, its state, its inode."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            row = line.split()
            yield _address(row[1]), _address(row[2]), row[3], row[9]


def _address(text: str) -> Address:
    host, _, port = text.partition(":")
    words = [host[i : i + 8] for i in range(0, len(host), 8)]
    raw = b"".join(bytes.fromhex(word)[::-1] for word in words)
    if len(raw) == 4:
        return ".".join(map(str, raw)), int(port, 16)
    return ("::1" if raw == bytes(15) + b"\1" else "::"), int(port, 16)
