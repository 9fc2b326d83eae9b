"""The processes of one node, and how each of them is started: Dask's own command line programs, and the session host."""

from __future__ import annotations

import json
import math
import mmap
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dask
from distributed.cli import dask_scheduler, dask_worker

from hpcnb.pilot.layout import WorkerLayout
from hpcnb.pilot.run import Run
from hpcnb.pilot.scheduler.suspects import tell_of_death
from hpcnb.pilot.worker import call

PATIENCE = 60
"""Seconds that a worker looks for its scheduler."""
PACE = 1.0
"""Seconds between two starts of a worker."""
YIELDS = 0.4
"""Seconds after the others that the session host starts."""
TAIL = 2000


@dataclass(kw_only=True)
class Child:
    """One forked process and how to start it again."""

    name: str
    main: Callable[[], None]
    log: Path
    memory: int = 0  # bytes; 0: no limit
    last_words: signal.Signals = signal.SIGKILL  # what it gets when we die first
    pid: int = 0
    started: float = -math.inf
    failures: int = 0
    worked: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 1))  # shared with it: whether it has got to work
    verdict: str = field(default="", compare=False)  # why it ended, where more is known than a signal
    starved: tuple[int, int, str] | None = None  # how much it had of how much, and whose, when that was its end
    died: str = field(default="", compare=False)  # how the one before it did, for it to tell

    def tail(self) -> str:
        """The end of its log; nothing where the disk was too full for one."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                return file.read(TAIL).decode("utf-8", "replace")
        except OSError:
            return ""


def scheduler_child(run: Run, host: str) -> Child:
    """Dask's scheduler, as ``dask scheduler`` runs it."""
    argv = ["--protocol", "tls", "--host", host, "--port", "0", "--no-dashboard"]
    argv += ["--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(run.file("scheduler.json"))]
    argv += ["--preload", "hpcnb.pilot.plugin"]

    def main() -> None:
        # In the node's own place: a socket's name is short, and not every shared file system has sockets.
        dask.config.set({"hpcnb.dashboard": dask.config.get("temporary-directory"), "hpcnb.run": run.path})
        dask_scheduler.main(argv, standalone_mode=False)

    return Child(
        name="scheduler",
        main=main,
        log=run.file("logs/scheduler.log"),
    )


def sessions_child(run: Run) -> Child:
    """The session host; it ends its kernels itself, so it is asked to end, not killed."""

    def main() -> None:
        from hpcnb.pilot.session import host

        host.main(["--run-dir", run.path])

    return Child(
        name="sessions",
        main=main,
        log=run.file("logs/sessions.log"),
        last_words=signal.SIGTERM,
        # Scheduler and workers are what is waited for; it would take their cores from them.
        started=time.monotonic() - PACE + YIELDS,
    )


def worker_child(run: Run, worker: WorkerLayout, *, node: str, tags: Sequence[str], local_directory: str) -> Child:
    """A Dask worker, as ``dask worker --no-nanny`` runs it; it waits for the scheduler's address by itself."""
    name = f"{run.index}-{node}-{worker.index}"
    worked, log = mmap.mmap(-1, 1), run.file(f"logs/worker-{name}.log")

    def main() -> None:
        dask.config.set(
            {
                "hpcnb.umask": run.umask,
                "hpcnb.home": str(run.file("../..").resolve()),
                "hpcnb.worked": worked,
                **({"hpcnb.cache": run.cache} if run.cache else {}),
                "hpcnb.log": str(log),
                "hpcnb.begin": os.lseek(1, 0, os.SEEK_END),  # above it is what a worker has left whose place it takes
                "distributed.worker.resources": _offered(worker, tags, local_directory),
            }
        )
        if worker.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(worker.gpus)
        address = run.scheduler or _scheduler_address(run)
        argv = [address, "--protocol", "tls", "--host", _own_address(address), "--name", name, "--no-nanny"]
        argv += ["--nthreads", str(worker.threads), "--memory-limit", str(worker.memory)]
        argv += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--local-directory", local_directory]
        argv += ["--death-timeout", str(PATIENCE), "--preload", "hpcnb.pilot.plugin"]
        call.isolate_from_here()
        if child.died:
            tell_of_death(address, name, child.died)
        dask_worker.main(argv, standalone_mode=False)

    child = Child(name=f"worker-{name}", main=main, log=log, memory=worker.memory, worked=worked)
    return child


def _offered(worker: WorkerLayout, tags: Sequence[str], local_directory: str) -> dict[str, float]:
    """What tasks may ask of a worker."""
    storage = shutil.disk_usage(local_directory).free
    offered = {"cores": worker.threads, "memory": worker.memory, "storage": storage, "gpus": len(worker.gpus)}
    return {**offered, **dict.fromkeys(tags, 1)}


def _scheduler_address(run: Run) -> str:
    # Opening finds a file made on another host at once, where asking for its status may lag 20 s on NFS.
    while True:
        try:
            return str(json.loads(run.file("scheduler.json").read_text())["address"])
        except (FileNotFoundError, json.JSONDecodeError):
            time.sleep(0.02)


def _own_address(peer: str) -> str:
    """The address of this host as the peer sees it; nothing is sent."""
    host, port = peer.removeprefix("tls://").rsplit(":", 1)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host.strip("[]"), int(port)))
        return str(probe.getsockname()[0])
