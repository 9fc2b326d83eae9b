"""One host of the lab: a process with namespaces of its own, and whatever is run in them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")


@dataclass(frozen=True, kw_only=True)
class User:
    """An account of a host."""

    name: str
    uid: int

    @property
    def home(self) -> str:
        return f"/home/{self.name}" if self.uid else "/root"


ROOT = User(name="root", uid=0)


class Host:
    """A host that runs.

    Parameters
    ----------
    name : str
    binds : mapping of str to Path
        What of this machine lies where on the host; each in its namespace alone.
    empty : mapping of str to str
        Directories that the host has for itself, empty at first, with the options of their tmpfs.
    """

    def __init__(self, name: str, *, binds: Mapping[str, Path], empty: Mapping[str, str]) -> None:
        self.name = name
        plan = {
            "host": {"name": name},
            "binds": {target: str(source) for target, source in binds.items()},
            "empty": dict(empty),
        }
        self._unshare = subprocess.Popen(
            [
                *("unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--", sys.executable, "-I"),
                *(str(Path(__file__).with_name("init.py")), json.dumps(plan)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._unshare.stdout.readline() != "ready\n":
            raise RuntimeError(f"the host {name} does not come up: {self._unshare.communicate()[1]}")
        self.pid = psutil.Process(self._unshare.pid).children()[0].pid
        self._namespace = os.readlink(f"/proc/{self.pid}/ns/pid")

    def path(self, path: str) -> Path:
        """A file of the host, as this machine reaches it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def command(self, argv: tuple[str, ...], user: User, environ: Mapping[str, str]) -> list[str]:
        """What to run on this machine for a command to run on the host, with the variables of a login."""
        own = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "SHELL": "/bin/bash", "PATH": PATH}
        own |= {"LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb"), **environ}
        become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.uid}", "--clear-groups", "--inh-caps=-all"]
        # Linux's own nsenter runs what follows inside, so the user's names are those of the host.
        return [
            *("nsenter", f"--target={self.pid}", *NAMESPACES, "--", "env", "-i"),
            *(f"{name}={value}" for name, value in own.items()),
            *(become if user.uid else ["setpriv"]),
            *("env", f"--chdir={user.home if user.uid else '/'}", "--", *argv),
        ]

    def start(self, *argv: str, user: User = ROOT, environ: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Start a command; returns the `subprocess.Popen`."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(self.command(argv, user, environ or {}), text=True, **options)

    def run(self, *argv: str, user: User = ROOT, timeout: float = 60, **options: Any) -> str:
        """Run a command that must succeed; returns what it printed.

        Raises
        ------
        RuntimeError
            With what it said.
        """
        with self.start(*argv, user=user, **options) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        if process.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(argv)}: exit status {process.returncode}: {out}{err}")
        return out

    def processes(self) -> list[psutil.Process]:
        """All that runs on the host, by this machine's numbers, but its first process."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if process.pid != self.pid and os.readlink(f"/proc/{process.pid}/ns/pid") == self._namespace:
                    found.append(process)
        return found

    def named(self, *words: str) -> list[psutil.Process]:
        """The processes whose command line holds all of these words."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if all(word in line for word in words):
                    found.append(process)
        return found

    def power_off(self) -> None:
        """End everything at once, as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        self._unshare.communicate()
