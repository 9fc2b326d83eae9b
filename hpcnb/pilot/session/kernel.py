"""The kernel of a session: ipykernel's own, which also takes variables, gives them back and counts as the notebook does.

Beyond Jupyter's messages it answers ``hpcnb_missing`` on the control channel (so also while a cell runs), ``hpcnb_push`` and
``hpcnb_pull`` on the shell channel, and heeds ``metadata["hpcnb"]`` of an execute request:

``count``
    The notebook's execution count, so that ``Out[n]`` and ``Cell In[n]`` are the same on both sides.
``names``, ``always``
    The request's buffers are pickle frames of a dict of these names; those not in `always` are bound only where they are
    missing.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import faulthandler
import io
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zmq
from ipykernel import kernelapp
from ipykernel.iostream import IOPubThread
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from IPython.core.interactiveshell import ExecutionResult
from traitlets import Bool, Float, Integer, Type, Unicode
from zmq.eventloop.zmqstream import ZMQStream

from hpcnb.errors import CannotSerialize, HPCError, TaskError
from hpcnb.pilot.run import Run
from hpcnb.pilot.session import child_output, cluster_client, interrupts
from hpcnb.pilot.values import dump, pack, unpack, words

LARGEST_EXCEPTION = 1 << 20
"""Bytes; a larger exception travels as its name, message and traceback alone."""


class SessionKernel(IPythonKernel):
    """IPython's kernel with the messages that the module's docstring describes."""

    shell: Any
    session: Any
    _execute_sleep = Float(0.0)  # for clients that take the reply for the end; the host waits until the kernel is idle

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self._failure: BaseException | None = None
        self.control_handlers["hpcnb_missing"] = self.missing
        self.shell_handlers["hpcnb_push"] = self.push
        self.shell_handlers["hpcnb_pull"] = self.pull
        self.shell.events.register("post_run_cell", self._notice)

    # -- messages ------------------------------------------------------------------------------------------------

    async def missing(self, stream: Any, ident: Any, request: dict[str, Any]) -> None:
        """Answer which of the names asked for the namespace lacks."""
        names = request["content"]["names"]
        answer = {"status": "ok", "names": [name for name in names if name not in self.shell.user_ns]}
        self.session.send(stream, "hpcnb_missing_reply", answer, request, ident)

    async def push(self, stream: Any, ident: Any, request: dict[str, Any]) -> None:
        """Bind the values that came along."""
        names = request["content"]["names"]
        answer: dict[str, Any] = {"status": "ok"}
        try:
            self._bind(request["buffers"], names, always=names)
        except HPCError as error:
            answer = {"status": "error", "error": error.to_json()}
        self.session.send(stream, "hpcnb_push_reply", answer, request, ident)

    async def pull(self, stream: Any, ident: Any, request: dict[str, Any]) -> None:
        """Answer with the values of the names asked for."""
        answer: dict[str, Any] = {"status": "ok"}
        frames: Sequence[Any] = ()
        try:
            frames = pack(self._values(request["content"]["names"]))
        except HPCError as error:
            answer = {"status": "error", "error": error.to_json()}
        except KeyboardInterrupt:  # who asked waits for an answer
            names = ", ".join(request["content"]["names"])
            interrupted = TaskError(f"bringing back {names} was interrupted", remedy="The session still has it.")
            answer = {"status": "error", "error": interrupted.to_json()}
        self.session.send(stream, "hpcnb_pull_reply", answer, request, ident, buffers=list(frames))

    def _values(self, names: Sequence[str]) -> dict[str, Any]:
        namespace = self.shell.user_ns
        if absent := [name for name in names if name not in namespace]:
            raise TaskError(
                f"the session has no {', '.join(absent)}",
                remedy="Bring back names that the cell or an earlier one binds.",
            )
        return {name: namespace[name] for name in names}

    def _bind(self, frames: Sequence[Any], names: Sequence[str], always: Sequence[str]) -> None:
        namespace = self.shell.user_ns
        try:
            values = unpack([bytearray(frame) for frame in frames], namespace)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            raise CannotSerialize(
                f"{', '.join(names)} cannot be rebuilt in the session: {words(error)}",
                remedy="Make both sides' packages agree (`%hpc doctor` compares them), or send something plainer.",
            ) from error
        for name, value in values.items():
            if name in always or name not in namespace:
                namespace[name] = value

    # -- cells -----------------------------------------------------------------------------------------------------

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, Any] | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: dict[str, Any] | None = None,
        cell_id: str | None = None,
    ) -> dict[str, Any]:
        """Run a cell as ipykernel does, after what the notebook sent along is in place."""
        self._failure = None
        wish = (cell_meta or {}).get("hpcnb", {})
        try:
            self._prepare(wish)
        except HPCError as error:
            return {"status": "error", "ename": type(error).__name__, "evalue": str(error), "error": error.to_json()}
        reply: dict[str, Any] = await super().do_execute(  # type: ignore[no-untyped-call]
            code, silent, store_history, user_expressions, allow_stdin, cell_meta=cell_meta, cell_id=cell_id
        )
        child_output.settle()
        if reply["status"] == "error" and wish:
            reply["exception"] = _pickled(self._failure)
        self._failure = None  # it holds the frames, and with them the cell's variables
        return reply

    @contextlib.contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Cancel an awaiting cell at once: ipykernel's own handler leaves the event loop asleep until something else happens."""
        with super()._cancel_on_sigint(future):
            cancel: Any = signal.getsignal(signal.SIGINT)

            def cancel_and_wake(*arguments: Any) -> None:
                cancel(*arguments)
                future.get_loop().call_soon_threadsafe(bool)

            signal.signal(signal.SIGINT, cancel_and_wake)
            yield

    def _prepare(self, wish: dict[str, Any]) -> None:
        if count := wish.get("count"):
            self.shell.execution_count = count
            history = self.shell.history_manager
            for inputs in (history.input_hist_parsed, history.input_hist_raw):
                inputs.extend([""] * (count - len(inputs)))
        if names := wish.get("names"):
            request = self.get_parent("shell")  # type: ignore[no-untyped-call]
            self._bind(request["buffers"], names, wish["always"])

    def _notice(self, result: ExecutionResult | None) -> None:
        if result is not None:
            self._failure = result.error_before_exec or result.error_in_exec


def _say_nothing(_error: BaseException) -> None:
    pass


def _pickled(exception: BaseException | None) -> str:
    if exception is None:
        return ""
    try:
        frames = dump(exception.with_traceback(None), LARGEST_EXCEPTION)
    except Exception:  # anything may go wrong in a user's class; the notebook makes a stand-in
        return ""
    return base64.b64encode(frames[0]).decode() if len(frames) == 1 else ""


class IOPub(IOPubThread):
    """ipykernel's output thread, which hears of forked children by a file instead of a TCP port open to every local user."""

    def _setup_pipe_in(self) -> None:
        endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._pipe_port = f"{endpoint}-children"
        self._pipe_uuid = os.urandom(16)
        pipe = self.socket.context.socket(zmq.PULL)
        pipe.linger = 0
        pipe.bind(self._pipe_port)
        self._pipe_in = ZMQStream(pipe, self.io_loop)
        self._pipe_in.on_recv(self._handle_pipe_msg)

    def _setup_pipe_out(self) -> tuple[zmq.Context[Any], zmq.Socket[Any]]:
        context: zmq.Context[Any] = zmq.Context()  # of the child: its parent's does not survive the fork
        pipe = context.socket(zmq.PUSH)
        pipe.linger = 3000
        pipe.connect(self._pipe_port)
        return context, pipe


class SessionApp(IPKernelApp):
    """ipykernel's application for a kernel that belongs to a session host.

    Parameters
    ----------
    lifeline : int
        A file descriptor whose other end the host holds: at its end the kernel and its children end.
    run_dir : str
        The run directory, for the cluster's client.
    alone : bool
        There is no notebook's kernel beside it: a front end drives it by itself.
    """

    kernel_class = Type(SessionKernel)
    classes = [*IPKernelApp.classes, SessionKernel]  # noqa: RUF012 - traitlets' way
    lifeline = Integer(-1).tag(config=True)
    run_dir = Unicode("").tag(config=True)
    alone = Bool(False).tag(config=True)

    def init_poller(self) -> None:
        """Watch the host instead of the parent's process id."""
        if self.lifeline >= 0:
            os.set_inheritable(self.lifeline, False)
            arguments = (self.lifeline, Path(self.abs_connection_file).parent)
            self.poller = threading.Thread(target=_end_with_host, args=arguments, name="lifeline", daemon=True)

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        """Never drop output, however slow the host is to take it, and open no port for it."""
        context.sndhwm = 0  # for the sockets made from here on
        kernelapp.IOPubThread = IOPub  # type: ignore[attr-defined]
        super().init_iopub(context)  # type: ignore[no-untyped-call]
        del context.sndhwm

    def initialize(self, argv: list[str] | None = None) -> None:
        """Set the kernel up, and let the cluster's client start when it is first asked for."""
        super().initialize(argv)  # type: ignore[no-untyped-call]
        with contextlib.suppress(io.UnsupportedOperation):  # it stands for no descriptor where the parent is under test
            # Past the pipe that stands for stderr by now: a process that crashes reads it no more.
            faulthandler.enable(sys.stderr.fileno(), all_threads=False)
        interrupts.install()
        if not self.alone:
            # The notebook's own shell says it. Not a subclass: libraries know a notebook by the name of the shell's class.
            self.kernel.shell.show_usage_error = _say_nothing
            # The notebook warns by itself when the SystemExit arrives there.
            warnings.filterwarnings("ignore", message="To exit: use", category=UserWarning)
        if self.run_dir:
            cluster_client.install(self.run_dir)
            os.umask(Run.load(self.run_dir).umask)  # not earlier: what was made until now is private


def _end_with_host(lifeline: int, directory: Path) -> None:
    os.read(lifeline, 1)
    shutil.rmtree(directory, ignore_errors=True)  # the host made it for this kernel, and cannot remove it any more
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    child_output.install()
    SessionApp.launch_instance()
