"""One kernel as its host sees it: a process, and Jupyter's channels over unix sockets in a private directory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.connect import write_connection_file
from jupyter_client.launcher import launch_kernel
from jupyter_client.session import DELIM
from jupyter_client.session import Session as Wire

from hpcnb.errors import TaskLost
from hpcnb.pilot.session import processes

__all__ = ["TOGETHER", "WITH_ALL", "KernelProcess", "ending"]

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds for a kernel to start: a cold parallel file system is slow."""
SUBSCRIBED = 1.0
"""Seconds after which a kernel whose output channel is still silent is asked again."""
TAIL = 2000
WITH_ALL = (-signal.SIGTERM, -signal.SIGKILL)
"""How a kernel ends with its job, whose end is then the cause that its cells should hear of."""
TOGETHER = 1.0
"""Seconds within which the session host is ended, too, if its kernel was killed with the job."""
CHANNELS = {"shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER, "iopub": zmq.SUB}

Hear = Callable[[str, dict[str, Any]], None]


class KernelProcess:
    """A session's kernel.

    Parameters
    ----------
    cwd : str
        Where it runs.
    log : Path
        What the process itself writes to stderr goes here.
    run_dir : str
        For the cluster's client.
    hear : callable
        Gets each message of the channels ``iopub`` and ``stdin``, content not decoded.
    ended : callable
        Called once, with the exit code, when the process has ended.
    options : sequence of str
        Further options of its command line.
    """

    def __init__(
        self,
        *,
        cwd: str,
        log: Path,
        run_dir: str,
        hear: Hear,
        ended: Callable[[int], None],
        options: Sequence[str] = ("--HistoryManager.enabled=False",),
    ) -> None:
        self._cwd, self._log, self._run_dir, self._options = cwd, log, run_dir, options
        self._hear = hear
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        # Paths of unix sockets are short, and a home directory's may be long, or on a file system without sockets.
        self._directory = Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp"))
        self._context = zmq.asyncio.Context()
        self._sockets: dict[str, zmq.asyncio.Socket] = {}
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._listeners: list[asyncio.Task[None]] = []
        self._spoke = asyncio.Event()
        self._log_begin = 0  # what comes before it was said by an earlier kernel
        self.exit: asyncio.Future[int] = self._loop.create_future()

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the process and wait until it answers.

        Raises
        ------
        TaskLost
            It ended, or said nothing for two minutes.
        """
        try:
            file, info = write_connection_file(
                str(self._directory / "kernel.json"),
                ip=str(self._directory / "k"),
                key=os.urandom(32).hex().encode(),
                transport="ipc",
            )
            self._wire = Wire(key=str(info["key"]).encode())
            self._launch(file)
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        self._connect({name: f"ipc://{info['ip']}-{info[f'{name}_port']}" for name in CHANNELS})  # type: ignore[literal-required]
        try:
            async with asyncio.timeout(PATIENCE):
                while not self._spoke.is_set():
                    await self.request("shell", "kernel_info_request", {})
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._spoke.wait(), SUBSCRIBED)
        except TimeoutError:
            await self.end(grace=0)
            raise TaskLost(
                f"the session's kernel did not start within {PATIENCE:.0f} s", evidence=self.last_words()
            ) from None

    def _launch(self, connection_file: str) -> None:
        lifeline, self._lifeline = os.pipe()
        command = [
            sys.executable,
            "-P",
            "-m",
            "hpcnb.pilot.session.kernel",
            "-f",
            connection_file,
            f"--SessionApp.lifeline={lifeline}",
        ]
        command += [f"--SessionApp.run_dir={self._run_dir}", *self._options]
        try:
            with os.fdopen(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)) as log:
                self._log_begin = os.fstat(log.fileno()).st_size
                self._process = launch_kernel(
                    command, stdout=subprocess.DEVNULL, stderr=log.fileno(), cwd=self._cwd, pass_fds=(lifeline,)
                )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)
        threading.Thread(target=self._watch, name="kernel watch", daemon=True).start()

    def _watch(self) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the host has ended before its kernel
            self._loop.call_soon_threadsafe(self._gone, code)

    def _gone(self, code: int) -> None:
        for task in self._listeners:
            task.cancel()
        self._context.destroy(linger=0)
        os.close(self._lifeline)
        shutil.rmtree(self._directory, ignore_errors=True)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # children that were not its session's last
            os.killpg(self.pid, signal.SIGKILL)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(TaskLost(ending(code), evidence=self.last_words()))
        self.exit.set_result(code)
        self._ended(code)

    async def end(self, *, grace: float = 1.0) -> None:
        """End the process, with all that it started, and wait until it is gone."""
        if self.exit.done():
            return
        left = await asyncio.to_thread(processes.of_kernel, self.pid)
        if grace:
            self._send("control", "shutdown_request", {"restart": False})
            await asyncio.wait([self.exit], timeout=grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await processes.end(left)
        await self.exit

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        """What the process wrote to stderr at last: how it crashed, if Python says so, else the end."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(self._log_begin, file.seek(0, os.SEEK_END) - 20 * TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:  # purged, or out of descriptors: the end must be told without it
            return ""
        crash = text.rfind("Fatal Python error")
        return text[crash : crash + TAIL] if crash >= 0 else text[-TAIL:]

    # -- messages ------------------------------------------------------------------------------------------------

    def _connect(self, urls: Mapping[str, str]) -> None:
        for name, url in urls.items():
            socket = self._sockets[name] = self._context.socket(CHANNELS[name])
            socket.linger = 0
            socket.rcvhwm = 0  # what is not taken yet must not be dropped
            socket.reconnect_ivl = 20
            if name == "iopub":
                socket.subscribe(b"")
            else:
                # The kernel sends its questions to whom the request came from.
                socket.identity = self._wire.bsession
            socket.connect(url)
            self._listeners.append(asyncio.ensure_future(self._listen(name, socket)))

    async def _listen(self, channel: str, socket: zmq.asyncio.Socket) -> None:
        while True:
            frames: list[bytes] = await socket.recv_multipart()
            try:
                self._take(channel, frames[frames.index(DELIM) + 1 :])
            except Exception:
                # Cells may send what they like, and an interrupt may leave half a message: the next one is to be heard.
                log.warning("a message of a kernel's %s channel could not be read", channel, exc_info=True)

    def _take(self, channel: str, frames: list[bytes]) -> None:
        message = self._wire.deserialize(frames, content=False)
        if channel in ("shell", "control"):
            reply = self._replies.pop(message["parent_header"].get("msg_id", ""), None)
            if reply is not None and not reply.done():
                reply.set_result(message)
        else:
            self._spoke.set()
            self._hear(channel, message)

    def _send(
        self,
        channel: str,
        kind: str,
        content: Mapping[str, Any],
        *,
        msg_id: str = "",
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[Any] = (),
    ) -> str:
        message = self._wire.msg(kind, dict(content), metadata=dict(metadata or {}))
        message["header"]["msg_id"] = message["msg_id"] = msg_id or message["msg_id"]
        self._put(channel, [*self._wire.serialize(message), *buffers])
        return str(message["msg_id"])

    def _put(self, channel: str, frames: Sequence[Any]) -> None:
        small = max(memoryview(frame).nbytes for frame in frames) < self._wire.copy_threshold
        # Not by Session.send, which sends past asyncio: that takes the one wake-up of a reply that has just arrived.
        sent: Any = self._sockets[channel].send_multipart(frames, copy=small)
        sent.add_done_callback(_seen)

    def request(self, channel: str, kind: str, content: Mapping[str, Any], **more: Any) -> Awaitable[dict[str, Any]]:
        """Send a request at once; await its reply (a Jupyter message with its content not decoded).

        Parameters
        ----------
        channel : str
            ``shell`` or ``control``.
        kind : str
        content : mapping
        **more
            ``msg_id``, ``metadata``, ``buffers``.
        """
        if self.exit.done():
            raise TaskLost(ending(self.exit.result()), evidence=self.last_words())
        msg_id = self._send(channel, kind, content, **more)
        reply = self._replies[msg_id] = self._loop.create_future()
        reply.add_done_callback(_seen)  # a reply that nobody awaits any more is no fault
        return reply

    def answer(self, value: str) -> None:
        """Answer the kernel's question for input."""
        self._send("stdin", "input_reply", {"value": value})

    def interrupt(self) -> None:
        """Interrupt what runs, as Ctrl-C would: the kernel and its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGINT)


def _seen(reply: asyncio.Future[Any]) -> None:
    if not reply.cancelled():
        reply.exception()


def ending(code: int) -> str:
    """Say how a kernel ended."""
    if code >= 0:
        return f"the session's kernel ended with exit status {code}"
    name = signal.Signals(-code).name
    cause = "; a lack of memory is the usual cause" if name == "SIGKILL" else ""
    return f"the session's kernel was killed by {name} (signal {-code}){cause}"
