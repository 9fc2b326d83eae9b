"""The IPython of a worker, for the cells that run in its namespace, one at a time; what they display goes the way of what they print."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shlex
import subprocess
import threading
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import cell_magic, magics_class
from IPython.core.magic_arguments import magic_arguments
from IPython.core.magics.script import ScriptMagics, script_args
from IPython.core.pylabtools import print_figure
from traitlets import Type
from traitlets.config import Config

from hpcnb.pilot.worker import call
from hpcnb.pilot.worker.cell import main
from hpcnb.pilot.worker.running import Job

__all__ = ["WorkerShell", "in_turn"]

TICK = 0.2
"""Seconds between two looks whether a cell may begin: a thread that waits longer hears no interrupt."""
LARGEST = 4 << 20
"""Bytes of what is displayed at once."""

_queue: list[Job] = []


@contextlib.contextmanager
def in_turn() -> Iterator[WorkerShell]:
    """Wait until this thread's call is the only one that has a cell here; gives the shell."""
    job = next(one for one in call.running().jobs() if one.thread == threading.get_ident())
    _queue.append(job)
    try:
        for earlier in _queue[: _queue.index(job)]:
            while not earlier.over.wait(TICK):
                if earlier.lost:
                    break
        shell: WorkerShell = WorkerShell.instance(config=_config(), user_module=main)
        shell.job = job
        yield shell
    finally:
        _queue.remove(job)


def _config() -> Config:
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.cache_size = 0  # what was shown is not to fill the memory of those who compute
    return config


class Compiler(CachingCompiler):
    """Gives cells the name that they have in the notebook, where their source is."""

    file = ""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return self.file


class Displays(DisplayPublisher):
    """What `display` does."""

    shell: Any

    def publish(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *_: Any,
        transient: Mapping[str, Any] | None = None,
        update: bool = False,
        **more: Any,
    ) -> None:
        kind = "update_display_data" if update else "display_data"
        self.shell.tell(kind, data, metadata, transient)

    def clear_output(self, wait: bool = False) -> None:
        """Nothing: the output is that of other workers, too."""


class Results(DisplayHook):
    """What becomes of the value of an expression."""

    shell: Any

    def quiet(self) -> bool:
        ends: Callable[[str], bool | None] = self.semicolon_at_end_of_expression
        return bool(ends(self.shell.cell))

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        self.shell.tell("execute_result", format_dict, md_dict)

    def log_output(self, format_dict: dict[str, Any]) -> None:
        pass

    def finish_displayhook(self) -> None:
        self._is_active = False


@magics_class
class Scripts(ScriptMagics):
    """Cell magics of other languages, whose processes are children of the call's own thread: they print for it, and end with it."""

    shell: Any

    @magic_arguments()  # type: ignore[untyped-decorator]
    @script_args  # type: ignore[untyped-decorator]
    @cell_magic("script")  # type: ignore[arg-type]
    def shebang(self, line: str, cell: str) -> None:
        """Run a cell by a program."""
        args, command = type(self).shebang.parser.parse_known_args(shlex.split(line))
        if args.bg or args.proc:
            raise UsageError("%%script: a worker's cell leaves nothing behind in the background: no --bg, no --proc")
        out, err = (subprocess.PIPE if name else None for name in (args.out, args.err))
        ran = subprocess.run(command, input=cell.encode(), stdout=out, stderr=err, check=False)
        for name, found in ((args.out, ran.stdout), (args.err, ran.stderr)):
            if name:
                self.shell.user_ns[name] = found.decode("utf-8", "replace")
        if args.raise_error and ran.returncode:
            raise subprocess.CalledProcessError(ran.returncode, cell)


class WorkerShell(InteractiveShell):
    """IPython in the thread of a call."""

    displayhook_class = Type(Results)
    display_pub_class = Type(Displays)
    compiler_class = Type(Compiler)
    job: Job
    cell = ""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)  # type: ignore[no-untyped-call]
        self.loop_runner = self._awaited
        self._loop: asyncio.AbstractEventLoop | None = None
        self.register_magics(Scripts)
        # The notebook says so when the SystemExit arrives there.
        warnings.filterwarnings("ignore", message="To exit: use", category=UserWarning)
        formatter: Any = self.display_formatter
        formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _png)

    def run(self, cell: str, file: str) -> None:
        """Run a cell; raises what it raises, with its own lines only."""
        compiler: Any = self.compile
        compiler.file, self.cell = file, cell
        result = self.run_cell(cell, store_history=False)  # type: ignore[no-untyped-call]
        self.last_execution_result = self.displayhook.exec_result = None  # they would keep what the cell has let go
        if result.error_before_exec is not None:
            raise result.error_before_exec.with_traceback(None)
        if (error := result.error_in_exec) is not None:
            raise error.with_traceback(_users(error.__traceback__))

    def tell(
        self,
        kind: str,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        transient: Mapping[str, Any] | None = None,
    ) -> None:
        """Have something displayed in the notebook; what another task displays is printed, as without IPython."""
        content = {"data": _fitting(data), "metadata": metadata or {}, "transient": transient or {}}
        message = json.dumps({"kind": kind, "content": content}, default=_plain).encode()
        watch = call.running().watch
        if watch is None or not watch.show(self.job.key, message):
            print(data.get("text/plain", ""))  # noqa: T201 - its output

    def system(self, cmd: str) -> None:
        """Run a line with `!`: its process is a child of this thread, so that it prints for the call, and ends with it."""
        command = self.var_expand(cmd, depth=1)  # type: ignore[no-untyped-call]
        self.user_ns["_exit_code"] = subprocess.call(command, shell=True, stdin=subprocess.DEVNULL)  # noqa: S602

    def showtraceback(
        self, *_: Any, running_compiled_code: bool = False, exception_only: bool = False, **more: Any
    ) -> None:
        """Print what was raised where the cell goes on, as after `%run`; what ends it the notebook shows."""
        if not (running_compiled_code or exception_only):
            traceback.print_exc()

    def showsyntaxerror(self, *_: Any, **more: Any) -> None:
        """Nothing: the notebook shows it."""

    showindentationerror = show_usage_error = showsyntaxerror

    def enable_gui(self, gui: Any = None) -> None:
        """Have no windows."""
        if gui is not None:
            raise UsageError(f"a worker has no windows, and no use for {gui!r}: `%matplotlib inline` shows figures")

    def init_virtualenv(self) -> None:
        """Nothing: the path is that of tasks, too."""

    def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None or self._loop.is_running():
            self._loop = asyncio.new_event_loop()
        loop = self._loop  # the same for all cells: what one has made, the next one awaits
        asyncio.set_event_loop(loop)
        task = loop.create_task(coroutine)
        self.job.stop = lambda: loop.call_soon_threadsafe(task.cancel)
        return loop.run_until_complete(task)


def _users(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without what is IPython's at its head."""
    while tb is not None and tb.tb_frame.f_globals.get("__name__", "").startswith("IPython.core."):
        tb = tb.tb_next
    return tb


def _png(figure: Any) -> Any:
    return print_figure(figure, "png")


def _fitting(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is displayed, without what is too large to travel beside everything else."""
    found = dict(data)
    for mime in sorted(found, key=lambda mime: _size(found[mime]), reverse=True):
        if sum(map(_size, found.values())) > LARGEST:
            found.pop(mime)
            note = f"({mime} is not shown: it has {_size(data[mime]) / 1e6:,.1f} MB, more than {LARGEST / 1e6:,.1f} MB)"
            found["text/plain"] = f"{str(found.get('text/plain', ''))[:1000]} {note}".strip()
    return found


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else len(json.dumps(value, default=_plain))


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
