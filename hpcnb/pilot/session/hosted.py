"""A session at its host: one kernel after another, cells in order, one journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from hpcnb.errors import HPCError, NotReady, TaskLost, TaskTimeout, error_from_json
from hpcnb.pilot.events import emit
from hpcnb.pilot.session import processes
from hpcnb.pilot.session.cells import Cell, Cells
from hpcnb.pilot.session.journal import Journal
from hpcnb.pilot.session.kernel_process import TOGETHER, WITH_ALL, KernelProcess, ending

__all__ = ["HostedSession"]

log = logging.getLogger(__name__)

PASSED_ON = frozenset(
    {
        "display_data",
        "update_display_data",
        "execute_result",
        "error",
        "clear_output",
        "comm_open",
        "comm_msg",
        "comm_close",
    }
)
REPLY_PATIENCE = 2.0
"""Seconds after the kernel's idle message at which a reply that has not come will not come."""
STOP_PATIENCE = 5.0
"""Seconds that a cell whose time is over has to stop before its end is told anyway."""
UNCOLLECTED = 8
"""Cells whose values are kept until they are fetched."""


class HostedSession:
    """One session.

    Parameters
    ----------
    name : str
    cwd : str
        Where its kernels run.
    run_dir : Path
        Its journal is kept in ``sessions/<name>`` there, its text in ``logs``.
    cells : Cells
        Where its cells are remembered.
    """

    def __init__(self, name: str, *, cwd: str, run_dir: Path, cells: Cells) -> None:
        self.name = name
        self._directory, self._cwd, self._run_dir = run_dir / "sessions" / name, cwd, str(run_dir)
        text = run_dir / "logs" / f"session-{name}.log"
        self.journal = Journal(self._directory, text, asyncio.get_running_loop())
        self._kernel: KernelProcess | None = None
        self._opening = asyncio.Lock()
        self._queue: deque[Cell] = deque()
        self._current: Cell | None = None
        self._waiting = asyncio.Event()
        self._cells = cells
        self._values: OrderedDict[str, Sequence[Any]] = OrderedDict()
        self._runner: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._ending: HPCError | None = None
        self._closed = False
        self._pulls = 0  # that the kernel has had and not answered, but for those of cells
        self._bringing = False  # the current cell has ended, and its values are being pickled
        self._question = 0  # the number of the one that is open

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Have a kernel: the one that runs, or a new one."""
        async with self._opening:
            if self._kernel is not None:
                return
            self._ending = None
            kernel = KernelProcess(
                cwd=self._cwd,
                log=self._directory / "kernel.log",
                run_dir=self._run_dir,
                hear=self._hear,
                ended=self._ended,
            )
            await kernel.start()
            if self._closed:  # meanwhile
                await kernel.end(grace=0)
                raise TaskLost("the session was closed", where=self.name)
            self._kernel = kernel
            if self._runner is None:
                self._runner = asyncio.ensure_future(self._run_cells())

    async def restart(self) -> None:
        """End the kernel and start a new one; cells that run or wait end with `TaskLost`."""
        await self._end_kernel(TaskLost("the session was restarted", where=self.name))
        await self.open()

    async def close(self, grace: float = 1.0) -> None:
        """End the kernel and the journal."""
        self._closed = True
        await self._end_kernel(TaskLost("the session was closed", where=self.name), grace)
        for task in [self._runner, *self._background]:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self.journal.close()

    async def _end_kernel(self, why: HPCError, grace: float = 1.0) -> None:
        if self._kernel is not None:
            self._ending = why
            await self._kernel.end(grace=grace)

    def _ended(self, code: int) -> None:
        kernel, self._kernel = self._kernel, None
        why = self._ending or TaskLost(
            ending(code),
            where=f"session {self.name}",
            evidence=kernel.last_words() if kernel else "",
            remedy="Its variables are gone. The next cell starts a new kernel.",
        )
        self._values.clear()
        lost, self._current = [self._current] if self._current else [], None
        lost += self._queue
        self._queue.clear()
        for cell in lost:
            cell.begun.set()
            cell.idle.set()
        if self._ending is None and code in WITH_ALL and lost:
            task = asyncio.ensure_future(self._finish_later(lost, why))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        else:
            self._finish_all(lost, why)

    async def _finish_later(self, lost: Sequence[Cell], why: HPCError) -> None:
        try:
            await asyncio.sleep(TOGETHER)
        finally:
            self._finish_all(lost, why)

    def _finish_all(self, lost: Sequence[Cell], why: HPCError) -> None:
        for cell in lost:
            self._finish(cell, _failure(why))

    # -- cells ---------------------------------------------------------------------------------------------------

    async def execute(self, cell: Cell, needs: Sequence[str]) -> Sequence[str]:
        """Queue a cell, unless the session lacks some of the names it needs: these are returned instead."""
        if cell.id in self._cells:
            return ()
        await self.open()
        missing = await self.missing(needs) if needs else ()
        if missing or cell.id in self._cells:  # it may have come again while a kernel started
            return missing
        cell.session = self.name
        self._cells.add(cell)
        self._queue.append(cell)
        self._waiting.set()
        await asyncio.sleep(0)  # the kernel has the cell before the notebook has the answer
        return ()

    async def _run_cells(self) -> None:
        while True:
            await self._waiting.wait()
            if not self._queue:
                self._waiting.clear()
                continue
            self._current = cell = self._queue.popleft()
            emit("session", name=self.name, busy=True)
            try:
                reply = await self._run(cell, self._alive())
            except HPCError:
                continue  # `_ended` has told everybody
            except Exception as error:  # a fault of ours; the cells that wait shall not wait for ever
                log.exception("while running a cell of session %s", self.name)
                reply = _failure(HPCError(f"the session host failed: {type(error).__name__}: {error}"))
            finally:
                emit("session", name=self.name, busy=False)
            if self._current is cell:
                self._current = None
            self._finish(cell, reply)

    async def _run(self, cell: Cell, kernel: KernelProcess) -> dict[str, Any]:
        cell.since = processes.now()
        wish = {"count": cell.count, "names": list(cell.names), "always": list(cell.always)}
        content = {"code": cell.code, "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": cell.allow_stdin, "stop_on_error": False}
        replying = kernel.request(
            "shell", "execute_request", content, msg_id=cell.id, metadata={"hpcnb": wish}, buffers=cell.frames
        )
        # Sent behind the cell at once, so that nothing can come in between.
        pulling = kernel.request("shell", "hpcnb_pull", {"names": list(cell.out)}) if cell.out else None
        cell.frames = ()
        timer = asyncio.ensure_future(self._limit(cell)) if cell.timeout else None
        reply = await self._reply(cell, replying)
        if timer:
            timer.cancel()
        if pulling is not None:
            self._bringing = True
            try:
                self._keep(cell, reply, await pulling)
            finally:
                self._bringing = False
        return reply

    async def _reply(self, cell: Cell, replying: Any) -> dict[str, Any]:
        reply = asyncio.ensure_future(replying)
        idle = asyncio.ensure_future(cell.idle.wait())
        await asyncio.wait([reply, idle], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([reply], timeout=REPLY_PATIENCE)
        if not reply.done():  # the interrupt hit the kernel's own code, after the cell's
            reply.cancel()
            return {"status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
        message = await reply
        await idle  # all output comes before it
        return _read(message["content"])

    def _keep(self, cell: Cell, reply: dict[str, Any], pulled: dict[str, Any]) -> None:
        if reply["status"] != "ok":
            return
        answer = _read(pulled["content"])
        if refusal := answer.get("error"):
            reply.update(_failure(error_from_json(refusal)))
            return
        reply["values"] = True
        self._values[cell.id] = pulled["buffers"]
        if len(self._values) > UNCOLLECTED:
            self._values.popitem(last=False)

    def _finish(self, cell: Cell, reply: dict[str, Any]) -> None:
        if cell.replied:
            return
        if cell.over is not None:
            reply = {**reply, **_failure(cell.over), "traceback": reply.get("traceback", [])}
        cell.ended, cell.status, cell.frames = time.time(), reply["status"], ()
        self.journal.finish(cell.id, json.dumps(reply).encode())
        cell.last = self.journal.seq

    async def _limit(self, cell: Cell) -> None:
        await cell.begun.wait()
        await asyncio.sleep(cell.timeout or 0)
        cell.over = TaskTimeout(f"the cell did not end within its {cell.timeout:g} s", where=f"session {self.name}")
        await self.interrupt(cell.id)
        await asyncio.sleep(STOP_PATIENCE)
        cell.over.remedy = "It does not heed the interrupt and still runs; restart the session to be rid of it."
        self._finish(cell, {"status": "error"})

    async def interrupt(self, cell_id: str = "") -> bool:
        """Interrupt a cell, by default the one that runs; True if it ran or waited.

        What the cell started is ended too, by force if it does not heed the interrupt.
        """
        for waiting in [cell for cell in self._queue if cell.id == cell_id]:
            self._queue.remove(waiting)
            self._finish(
                waiting,
                {"status": "error", "ename": "KeyboardInterrupt", "evalue": "the cell had not begun", "traceback": []},
            )
            return True
        cell, kernel = self._current, self._kernel
        if kernel is not None and self._pulls and (cell is None or not cell.begun.is_set()):
            kernel.interrupt()  # what pickles a value may take for ever, and is in the way of all cells
            if cell is None:
                return True
        if cell is None or kernel is None or cell_id not in ("", cell.id):
            return False
        await cell.begun.wait()  # before that the kernel ignores interrupts
        if not cell.idle.is_set() or self._bringing:
            kernel.interrupt()
            self._start(processes.stop(kernel.pid, cell.since, lambda: cell.until))
        return True

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def answer(self, value: str, question: int) -> None:
        """Answer the question of this number, unless it is open no more: an answer may come twice, and from two pages."""
        if question == self._question:
            self._question = 0
            self._alive().answer(value)

    def describe(self) -> dict[str, Any]:
        """What it does, in plain values."""
        running = self._current
        return {
            "name": self.name,
            "alive": self._kernel is not None,
            "running": {"id": running.id, "count": running.count, "code": running.code} if running else None,
            "waiting": [cell.id for cell in self._queue],
            "seq": self.journal.seq,
        }

    # -- variables -----------------------------------------------------------------------------------------------

    async def missing(self, names: Sequence[str]) -> list[str]:
        """Return which of the names the session lacks; answered also while a cell runs."""
        reply = await self._alive().request("control", "hpcnb_missing", {"names": list(names)})
        found: list[str] = _content(reply)["names"]
        return found

    async def push(self, names: Sequence[str], frames: Sequence[Any]) -> None:
        """Bind values, after the cells that the kernel has."""
        _content(await self._alive().request("shell", "hpcnb_push", {"names": list(names)}, buffers=frames))

    async def pull(self, names: Sequence[str]) -> Sequence[Any]:
        """Return the frames of values, after the cells that the kernel has."""
        self._pulls += 1
        try:
            reply = await self._alive().request("shell", "hpcnb_pull", {"names": list(names)})
        finally:
            self._pulls -= 1
        _content(reply)
        frames: Sequence[Any] = reply["buffers"]
        return frames

    def collect(self, cell_id: str) -> Sequence[Any]:
        """Return the frames of the values that a cell was to bring back; they are kept no longer."""
        if cell_id not in self._values:
            raise TaskLost("the values of the cell are no longer kept", remedy="Bring them with `%hpc pull`.")
        return self._values.pop(cell_id)

    # -- within --------------------------------------------------------------------------------------------------

    def _alive(self) -> KernelProcess:
        if self._kernel is None:
            raise NotReady("the session has no kernel", where=self.name, remedy="The next cell starts one.")
        return self._kernel

    def _hear(self, channel: str, message: dict[str, Any]) -> None:
        kind, cell_id = message["header"]["msg_type"], message["parent_header"].get("msg_id", "")
        content = bytes(message["content"])
        cell = self._current if self._current and self._current.id == cell_id else None
        if kind == "stream" and cell_id:  # the rest is what the kernel's own start has to say
            stream = _read(content, "surrogateescape")
            self.journal.text(cell_id, stream["name"], stream["text"])
        elif kind in PASSED_ON or channel == "stdin":
            self.journal.add(cell_id, kind, content, tuple(bytes(buffer) for buffer in message["buffers"]))
            if channel == "stdin":
                self._question = self.journal.seq
        elif cell and kind == "execute_input":
            cell.begun.set()
        elif cell and kind == "status" and _read(content)["execution_state"] == "idle":
            cell.until = processes.now()
            cell.begun.set()
            cell.idle.set()


def _read(content: Any, errors: str = "replace") -> dict[str, Any]:
    """The content of a kernel's message: what a cell prints, or raises, may be no UTF-8, as the names of files."""
    found: dict[str, Any] = json.loads(bytes(content).decode("utf-8", errors))
    return found


def _content(reply: dict[str, Any]) -> dict[str, Any]:
    content = _read(reply["content"])
    if refusal := content.get("error"):
        raise error_from_json(refusal)
    return content


def _failure(error: HPCError) -> dict[str, Any]:
    return {"status": "error", "ename": type(error).__name__, "evalue": str(error), "error": error.to_json()}
