"""Calls in processes of their own, forked from a clean one: what such a call breaks is its own.

A worker has threads, and a process with threads must not be forked: a lock that one of them holds stays locked for ever. So
before a worker starts, it forks a process that does nothing but fork. The call and its value go through shared memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import io
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import distributed
import psutil

from hpcnb.pilot.worker.running import Job, end_tree
from hpcnb.pilot.worker.shared import received, shared

__all__ = ["Isolation", "Verdict"]

CHECK = 0.1
"""Seconds between two looks at the memory of a call."""
PR_SET_PDEATHSIG = 1
ASKED: dict[str, Callable[[], object]] = {"secede": distributed.secede, "rejoin": distributed.rejoin}
"""What the worker's thread does in the place of the process for which it waits."""
SMALL = 4096


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a process ended that did not bring a value.

    Parameters
    ----------
    code : int
        Its exit status, or the negative number of a signal.
    peak : int
        Bytes of memory that it was seen to have.
    over : bool
        It was ended since it had more than was left.
    last_words : str
        Where its code was when it crashed, as Python's `faulthandler` tells it.
    """

    code: int
    peak: int
    over: bool = False
    last_words: str = ""

    def __str__(self) -> str:
        return (
            f"was killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"exited with status {self.code}"
        )


class Isolation:
    """Forks processes for calls. Made in a process without threads, before its user's code runs."""

    def __init__(self) -> None:
        self._server, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(theirs, parent)
        theirs.close()

    def run(
        self,
        job: Job,
        work: Callable[[Callable[[str], None]], Any],
        room: Callable[[], float],
        out: int = 1,
    ) -> Any:
        """Run something in a process of its own; returns its value, or a `Verdict`.

        Parameters
        ----------
        job : Job
            Whoever stops it kills the process.
        work : callable
            Is pickled, with all that it needs; gets what has the worker's thread ``secede`` or ``rejoin``.
        room : callable
            How many bytes the process may have now.
        out : int, optional
            A descriptor for its stdout and stderr.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                descriptor, crash = shared(work), os.memfd_create("hpcnb-crash")
                try:
                    socket.send_fds(self._server, [b"."], [theirs.fileno(), descriptor, crash, out])
                except OSError:
                    _give_up()
                os.close(descriptor)
            with open(crash, errors="replace") as words:
                ended = _Process(ours, job, room).end()
                if isinstance(ended, Verdict):
                    words.seek(0)
                    return replace(ended, last_words=words.read(SMALL))
                return ended


def _give_up() -> None:
    """End this worker: what forks for it was killed, and it has threads by now."""
    sys.stderr.write("hpcnb: the process that forks for isolated calls is gone, and its worker goes with it\n")
    os.kill(os.getpid(), signal.SIGKILL)


class _Process:
    """A call's process, as the worker's thread sees it that waits for it."""

    def __init__(self, channel: socket.socket, job: Job, room: Callable[[], float]) -> None:
        self._channel, self._room = channel, room
        self._pid, self._peak, self._over = 0, 0, False
        self._stopped = False
        self._job = job
        job.stop = self._stop

    def _stop(self) -> None:
        self._stopped = True
        if self._pid:
            end_tree([self._pid])

    def end(self) -> Any:
        values: list[Any] = []
        while True:
            if not select.select([self._channel], [], [], CHECK)[0]:
                self._look()
                continue
            message, descriptors, _, _ = socket.recv_fds(self._channel, SMALL, 1)
            said, number = _heard(message)
            if said == "born":
                self._pid = number
                if self._stopped:
                    self._stop()
            elif said in ASKED:
                ASKED[said]()
                _tell(self._channel, said, 0)
            elif said == "value":
                values.append(received(descriptors[0]))
            elif said == "ended":
                self._pid = 0
                return values[0] if values else Verdict(code=number, peak=self._peak, over=self._over)

    def _look(self) -> None:
        if not self._pid:
            return
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            memory = psutil.Process(self._pid).memory_info()
            self._peak = max(self._peak, memory.rss)
            if memory.rss - memory.shared > self._room():
                self._over = True
                end_tree([self._pid])


def _serve(control: socket.socket, parent: int) -> None:
    """In the process that forks: never returns."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        _close_all_but({0, 1, 2, control.fileno()})
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        born: dict[int, socket.socket] = {}
        watched: list[Any] = [control, reader]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if reader in ready:
                os.read(reader, SMALL)
                _reap(born)
            if control in ready:
                message, descriptors, _, _ = socket.recv_fds(control, 1, 4)
                if not message:
                    os._exit(0)
                _bear(control, [reader, writer], born, descriptors)
    finally:
        os._exit(1)


def _bear(control: socket.socket, pipe: list[int], born: dict[int, socket.socket], descriptors: list[int]) -> None:
    server, channel = os.getpid(), socket.socket(fileno=descriptors[0])
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in [control, *born.values()]:
            other.close()
        for end in pipe:
            os.close(end)
        _become(channel, server, *descriptors[1:])
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    born[pid] = channel
    _tell(channel, "born", pid)


def _reap(born: dict[int, socket.socket]) -> None:
    while born:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if (channel := born.pop(pid, None)) is not None:
            _tell(channel, "ended", os.waitstatus_to_exitcode(status))
            channel.close()


def _become(channel: socket.socket, server: int, descriptor: int, crash: int, out: int) -> None:
    """In the process of a call: run it, send its value, never return."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        faulthandler.enable(crash)
        os.dup2(out, 1)
        os.dup2(out, 2)
        with contextlib.suppress(OSError):  # of all on this node, it is the one to go when memory ends
            Path("/proc/self/oom_score_adj").write_text("1000")
        _print_by_lines()
        value = shared(received(descriptor)(functools.partial(_ask, channel)))
        with contextlib.suppress(OSError):  # nobody waits any more
            socket.send_fds(channel, [b"value 0"], [value])
        code = 0
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _print_by_lines() -> None:
    """Let each line be in the log when it is printed, as the worker's own are."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _ask(channel: socket.socket, what: str) -> None:
    """In the process of a call: have the worker's thread do something, and wait until it has."""
    _tell(channel, what, 0)
    channel.recv(SMALL)


def _tell(channel: socket.socket, said: str, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody waits any more
        channel.send(f"{said} {number}".encode())


def _heard(message: bytes) -> tuple[str, int]:
    """What `_tell` has said; without a word, the process that forks is gone, and with it all that it has forked."""
    said, number = message.split() if message else (b"ended", -signal.SIGKILL)
    return said.decode(), int(number)


def _close_all_but(kept: set[int]) -> None:
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)
