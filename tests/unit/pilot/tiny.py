"""A node whose processes are a few lines of Python each, in place of Dask's: run as a program by `TinyNode`."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[3]
DEADLINE = 60.0

STAY = "import signal; signal.pause()"
"""A process that stays until it is ended."""


class TinyNode:
    """A supervisor in a process of its own.

    Parameters
    ----------
    folder : Path
        Where logs and pids are.
    children : dict
        Name → code, or a dict with ``code`` and ``memory`` (bytes), ``asked`` (it is told to end, not killed), ``log``.
    user : int, optional
        It runs as this user, who may have three more processes.
    constants : dict
        Constants of `hpcnb.pilot.node` with other values.
    """

    def __init__(
        self,
        folder: Path,
        children: Mapping[str, object],
        stdin: int = subprocess.DEVNULL,
        memory: int = 1 << 40,
        user: int = 0,
        **constants: float,
    ) -> None:
        self.folder = folder
        plan = {"folder": str(folder), "children": children, "memory": memory, "user": user, "constants": constants}
        with (folder / "node.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.pilot.tiny", json.dumps(plan)],
                cwd=ROOT,
                env={**os.environ, "TINY": str(folder)},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._events: queue.Queue[dict[str, object] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def event(self) -> dict[str, object] | None:
        """The next event; None when no more can come."""
        return self._events.get(timeout=DEADLINE)

    def pid(self, name: str, *, other_than: int = 0) -> int:
        """The pid of a child, once it runs."""
        return wait_for(lambda: (pid := self._pid(name)) != other_than and pid)

    def _pid(self, name: str) -> int:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.folder / f"{name}.pid").read_text())
        return 0

    def log(self, name: str) -> str:
        """What a child has written."""
        return (self.folder / f"{name}.log").read_text()

    def wait(self) -> int:
        """The supervisor's exit status."""
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """End whatever is left, and what that may start while it is looked for."""
        while left := list(self._left()):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self.process.wait(DEADLINE)
        self.process.stdout.close()

    def _left(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TINY") == str(self.folder):
                    yield process
        if self.process.stdin:
            self.process.stdin.close()


def wait_for(condition, deadline=DEADLINE):
    """Wait until a condition holds, and return what it gave."""
    ends = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not happen in time"
        threading.Event().wait(0.01)
    return found


def gone(*pids):
    """Wait until none of these processes is left."""
    wait_for(lambda: not any(alive(pid) for pid in pids))


def alive(pid):
    """Whether a process runs; one that only waits for its parent to take notice does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _main(plan: dict) -> int:
    import signal

    from hpcnb.pilot import node
    from hpcnb.pilot.events import take_stdout
    from hpcnb.pilot.memory import Gauge

    folder = Path(plan["folder"])
    for name, value in plan["constants"].items():
        setattr(node, name, value)

    def child(name, wish):
        wish = {"code": wish} if isinstance(wish, str) else wish
        worked = mmap.mmap(-1, 1)

        def main():
            aside = folder / f"{name}.new"
            aside.write_text(str(os.getpid()))
            aside.rename(folder / f"{name}.pid")
            exec(wish["code"], {"folder": folder, "worked": worked})

        return node.Child(
            name=name,
            main=main,
            worked=worked,
            log=Path(wish.get("log", folder / f"{name}.log")),
            memory=wish.get("memory", 0),
            last_words=signal.SIGTERM if wish.get("asked") else signal.SIGKILL,
        )

    if user := plan["user"]:
        most = len(list(Path("/proc/self/task").iterdir())) + 3
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        os.setgroups([])
        os.setresuid(user, user, user)
    take_stdout()
    gauge = Gauge(folder / "memory-tiny.json", "tiny", plan["memory"])
    return node.NodeSupervisor([child(name, wish) for name, wish in plan["children"].items()], gauge).run()


@contextlib.contextmanager
def cut_name():
    """A process whose name Linux has cut in the middle of a letter; its pid."""
    code = (
        "import ctypes, signal; ctypes.CDLL(None).prctl(15, b'\\xd1\\x80\\xd0'); print(1, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process.pid
        process.kill()


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
