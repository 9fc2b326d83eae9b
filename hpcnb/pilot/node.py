"""All that runs on one node, forked from one warm interpreter: workers, and on the first node scheduler and sessions.

Importing distributed takes a second of CPU, and from a parallel file system much longer. One process imports it
once and forks the rest, so that a node with 64 workers imports once, not 64 times, and a worker that dies is
replaced in milliseconds. The processes themselves are Dask's own command line programs. It takes Dask's nanny's
place: it restarts workers and ends one that outgrows its memory, and it knows why each of them died.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback

import dask
import psutil

from hpcnb.pilot.address import own_address
from hpcnb.pilot.children import PACE, PATIENCE, Child, scheduler_child, sessions_child, worker_child
from hpcnb.pilot.events import emit, fall_silent, take_stdout
from hpcnb.pilot.layout import features_in, layout, node_from_environment, tags_of
from hpcnb.pilot.memory import Gauge
from hpcnb.pilot.run import Run

ENDS = {signal.SIGTERM, signal.SIGINT}
SIGNALS = {signal.SIGCHLD, signal.SIGIO, *ENDS}
CHECK = 0.5
"""Seconds between two looks at the workers' memory."""
LIMIT = 0.95
"""Share of its memory at which a worker is ended (Dask's nanny's own figure)."""
SHORT_LIFE = 1.5 * PATIENCE
"""Seconds; a worker that fails sooner and before its first task, `HOPELESS` times in a row, would fail for ever: its scheduler has gone, say."""
HOPELESS = 3
GRACE = 5.0
"""Seconds between the polite and the other signal."""
ASKED = 3.0
"""Seconds that Slurm has to tell the features of a node."""
PR_SET_PDEATHSIG = 1


class NodeSupervisor:
    """Forks the children of one node, restarts workers, and says what happened.

    Parameters
    ----------
    children : list of Child
        Those named ``worker-…`` are restarted; the end of any other ends the node.
    gauge : Gauge
    """

    def __init__(self, children: list[Child], gauge: Gauge) -> None:
        self._children = children
        self._gauge = gauge
        self._alive: dict[int, Child] = {}
        self._said = ""
        self._has_pilot = stat.S_ISFIFO(os.fstat(0).st_mode)

    def run(self) -> int:
        """Supervise until told to stop (0), or until going on makes no sense (1)."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if self._has_pilot:
            _announce_end_of_stdin()
        while True:
            self._start()
            # Blocked signals wait in the kernel, so none is lost between two looks and no handler ever runs.
            caught = signal.sigtimedwait(SIGNALS, CHECK)
            if (caught is not None and caught.si_signo in ENDS) or (self._has_pilot and _stdin_has_ended()):
                self._end()
                return 0
            for child, status in self._reap():
                if not self._bury(child, status):
                    self._end()
                    return 1
            self._check_memory()
            self._gauge.look({child.name: pid for pid, child in self._alive.items()})

    def _start(self) -> None:
        """Start who does not run; one that died at its birth a little later, or it would keep a core busy."""
        for child in self._children:
            if child.pid not in self._alive and time.monotonic() > child.started + PACE:
                self._fork(child)

    def _fork(self, child: Child) -> None:
        child.verdict, child.starved = "", None
        child.worked[0] = 0
        child.started = time.monotonic()
        parent = os.getpid()
        try:
            child.pid = os.fork()
        except OSError as exc:
            # Tasks hold all the processes, or the memory, that there may be: the next attempt comes soon.
            self._say(f"{child.name} cannot be started: {exc.strerror}")
            return
        if child.pid == 0:
            _become(child, parent)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(child.pid, child.pid)  # both do it, so that it is done whoever comes first
        self._alive[child.pid] = child
        child.died = ""

    def _say(self, what: str) -> None:
        """Tell the job's log, once."""
        if what != self._said:
            sys.stderr.write(f"hpcnb: {what}\n")
        self._said = what

    def _reap(self) -> list[tuple[Child, int]]:
        ended = []
        while self._alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if child := self._alive.pop(pid, None):
                ended.append((child, os.waitstatus_to_exitcode(status)))
        return ended

    def _bury(self, child: Child, code: int) -> bool:
        """Say who ended; False if the node ends with it, as with anything but a worker that may be restarted."""
        _kill_group(child.pid)
        if not child.name.startswith("worker-"):
            emit("failed", what=f"the {child.name} process {_ended(code)}", tail=child.tail())
            return False
        lived = time.monotonic() - child.started
        # What ends by a signal, or had a task, was at work: what a task does must not end the cluster of the others.
        hopeless = code > 0 and code != os.EX_TEMPFAIL and lived < SHORT_LIFE and not child.worked[0]
        child.failures = child.failures + 1 if hopeless else 0
        if code == -signal.SIGKILL and not child.verdict and self._gauge.has_killed():
            child.verdict = "was killed by the system: the job has no memory left"
            child.starved = (self._gauge.used, self._gauge.limit, "node")
        child.died = child.verdict or _ended(code)
        emit(
            "worker-exit",
            worker=child.name,
            how=child.died,
            code=code,
            tail=child.tail() if code else "",
            **({"memory": child.starved} if child.starved else {}),
        )
        if child.failures >= HOPELESS:
            emit("failed", what=f"{child.name} {_ended(code)} {HOPELESS} times in a row", tail=child.tail())
            return False
        return True

    def _check_memory(self) -> None:
        for child in self._alive.values():
            if not child.memory:
                continue
            used = psutil.Process(child.pid).memory_info().rss
            if used > LIMIT * child.memory:
                child.starved = (used, child.memory, "worker")
                child.verdict = (
                    f"was ended at {used >> 20} MiB: more than {LIMIT:.0%} of its limit of {child.memory >> 20} MiB"
                )
                _kill_group(child.pid)

    def _end(self) -> None:
        """End everything: who has children of its own to end is asked, the rest is killed with all that it started."""
        for pid, child in self._alive.items():
            if child.last_words is signal.SIGTERM:
                os.kill(pid, signal.SIGTERM)
            else:
                _kill_group(pid)
        deadline = time.monotonic() + GRACE
        while self._alive and (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, min(left, CHECK))
            self._reap()
        for pid in self._alive:
            _kill_group(pid)
        for pid in self._alive:
            os.waitpid(pid, 0)


def _announce_end_of_stdin() -> None:
    """Have the kernel send SIGIO when the pilot closes our stdin, which asks us to end, or dies."""
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def _stdin_has_ended() -> bool:
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable) and os.read(0, 1) == b""


def _kill_group(pid: int) -> None:
    # A child leads a group of its own, so that what a task has started goes with its worker.
    with contextlib.suppress(ProcessLookupError, PermissionError):  # what is left may be another user's: a task's sudo
        os.killpg(pid, signal.SIGKILL)


def _become(child: Child, parent: int) -> None:
    """In the fork: log to the child's file, die with the parent, run, never return."""
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, child.last_words)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        log = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if child.name.startswith("worker-"):
            fall_silent()
        child.main()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException as exc:
        traceback.print_exc()
        code = os.EX_TEMPFAIL if _wants(exc) else 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # a full disk must not make a second supervisor of this process
            os._exit(code)


def _wants(exc: BaseException) -> bool:
    """Whether it failed for want of processes, threads or memory, which others may give back."""
    return isinstance(exc, BlockingIOError | MemoryError) or "can't start new thread" in str(exc)


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def _slurms_features(node: str) -> list[str]:
    """The features that Slurm knows of a node; none where it does not answer soon."""
    if "SLURM_JOB_ID" not in os.environ or shutil.which("scontrol") is None:
        return []
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "node", node],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASKED,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        sys.stderr.write(f"hpcnb: the features of {node} are not known: {exc}\n")
        return []
    return features_in(done.stdout)


def main() -> int:
    """Run one node of an allocation (``python -m hpcnb.pilot.node --run-dir DIR``)."""
    parser = argparse.ArgumentParser(description="one node of an hpcnb allocation")
    parser.add_argument("--run-dir", required=True)
    options = parser.parse_args()
    take_stdout()
    run = Run.load(options.run_dir)
    os.chdir(run.directory)
    sys.path[0] = run.directory  # as in a notebook: modules beside it can be imported
    asked = run.spec.resources
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total
    node = node_from_environment(
        os.environ, cores=min(asked.cores_per_node or cores, cores), memory=min(asked.memory_per_node or memory, memory)
    )
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    tags = [
        f"node:{name}",
        *tags_of(os.environ, software=run.software, features=[*run.features, *_slurms_features(name)]),
    ]
    scratch = os.path.expandvars(dask.config.get("temporary-directory") or "") or None
    with tempfile.TemporaryDirectory(prefix="hpcnb-", dir=scratch, ignore_cleanup_errors=True) as local:
        dask.config.set({"temporary-directory": local})  # the scheduler has a work space, too
        children = [worker_child(run, w, node=name, tags=tags, local_directory=local) for w in layout(run.spec, node)]
        if run.leads and int(os.environ.get("SLURM_NODEID", "0")) == 0:
            children = [scheduler_child(run, own_address(run.launcher)), *children, sessions_child(run)]
        return NodeSupervisor(children, Gauge(run.file(f"memory-{name}.json"), name, node.memory)).run()


if __name__ == "__main__":
    sys.exit(main())
