"""`%%hpc`: a cell that runs in a session, as if it ran here."""

from __future__ import annotations

import asyncio
import getpass
import queue
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.display import display

from hpcnb.notebook import record
from hpcnb.notebook.names import analyse
from hpcnb.notebook.options import Options, parse
from hpcnb.notebook.output import CellView, view_for
from hpcnb.notebook.page import page_of
from hpcnb.notebook.remote_error import remote_error, shown
from hpcnb.pilot.values import pack, unpack
from hpcnb.session import Message, Reply, Running, Session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["UNASKED", "Handle", "numbered", "run_cell", "sendable"]

UNASKED = 100 * 10**6
"""Bytes of variables that are sent along without being named."""
STOPPING = 4.0
"""Seconds that an interrupted cell is waited for."""
ARRIVING = 0.5
"""Seconds that the end of a cell which does not run (any more) may be on its way."""
_OUTPUT = re.compile(r"_\d+")

Outcome = dict[str, Any] | BaseException


def run_cell(shell: InteractiveShell, line: str, body: str, session_for: Callable[[Options], Session]) -> Handle | None:
    """Run a cell; returns when it has ended, or at once with a handle (``--detach``).

    Parameters
    ----------
    shell : InteractiveShell
    line, body : str
        What stands after ``%%hpc``, and below it.
    session_for : callable
        Finds the session that the options mean.

    Raises
    ------
    UsageError
        The line is wrong; nothing was sent.
    CannotSerialize
        A variable cannot be sent; nothing was run.
    BaseException
        What the cell raised.
    """
    options = parse(line)
    candidates = sendable(shell, body, options.inputs)
    session = session_for(options)
    sys.stdout.flush()
    view = view_for(shell, f"`%hpc logs {session.name}`")
    run = _Detached if options.detach else _Foreground
    return run(shell, session, view).run(numbered(line, body), options, candidates)


def numbered(line: str, body: str) -> str:
    r"""Return the code to send: its lines have the numbers that they have in the notebook.

    Examples
    --------
    >>> numbered("-i a", "a + b")
    '# %%hpc -i a\na + b'
    """
    body = body.removesuffix("\n")  # IPython's addition
    if body.lstrip().startswith("%%"):
        return body  # another cell magic must come first
    return f"# %%hpc {' '.join(line.split())}".rstrip() + "\n" + body


def sendable(shell: InteractiveShell, body: str, inputs: Sequence[str]) -> list[str]:
    """The names that the cell reads and the notebook could send beside its ``-i``; not those that IPython itself keeps there.

    Raises
    ------
    UsageError
        The notebook has none of ``-i``.
    """
    own, hidden = shell.user_ns, shell.user_ns_hidden
    if absent := [name for name in inputs if name not in own]:
        raise UsageError(f"%%hpc: the notebook has no variable {', '.join(absent)}")
    return sorted(
        name
        for name in analyse(body).reads
        if name in own
        and name not in inputs
        and (name not in hidden or own[name] is not hidden[name] or _OUTPUT.fullmatch(name))
    )


class _Cell:
    """What foreground and detached cells have in common: sending, and bringing back."""

    def __init__(self, shell: InteractiveShell, session: Session, view: CellView) -> None:
        self._shell = shell
        self._session = session
        self._view = view

    def _running(self, code: str, options: Options, *, hear: Callable[[Message], None], asks: bool) -> Running:
        cell = Running(
            code=code,
            count=self._shell.displayhook.prompt_count,
            on_message=hear,
            out=options.outputs,
            allow_stdin=asks,
            timeout=options.timeout,
            **page_of(self._shell),
        )
        record.sends(self._shell, cell.id)
        return cell

    def _send(self, cell: Running, inputs: Sequence[str], candidates: Sequence[str]) -> None:
        session, own = self._session, self._shell.user_ns
        if not inputs and not candidates:
            session.start(cell)
            return
        if inputs:  # they travel once, so the question comes first
            missing = session.missing(candidates) if candidates else []
        else:
            missing = session.wait(session.submit(cell, needs=candidates))
            if not missing:
                return
        unasked = {name: own[name] for name in missing}
        frames = pack(unasked, limit=UNASKED)
        if inputs:
            frames = pack({name: own[name] for name in inputs} | unasked)
        session.wait(session.submit(cell, names=[*inputs, *missing], always=inputs, frames=frames))


class _Foreground(_Cell):
    """A cell that the notebook waits for."""

    def __init__(self, shell: InteractiveShell, session: Session, view: CellView) -> None:
        super().__init__(shell, session, view)
        self._questions: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._error: Message | None = None

    def run(self, code: str, options: Options, candidates: Sequence[str]) -> None:
        kernel = getattr(self._shell, "kernel", None)
        cell = self._running(code, options, hear=self._hear, asks=kernel is None or kernel._allow_stdin)  # noqa: SLF001
        try:
            with self._session.awaited():
                self._send(cell, options.inputs, candidates)
                reply = self._wait(cell)
        except KeyboardInterrupt:
            reply = self._stop(cell)
        self._conclude(cell, reply)

    def _hear(self, message: Message) -> None:
        if message.type == "input_request":
            self._questions.put(message)
            return
        if self._error is not None:
            self._view.show(self._error)
        # The last error is not shown: it is raised here, and the notebook shows it then.
        self._error = message if message.type == "error" else None
        if self._error is None:
            self._view.show(message)

    def _wait(self, cell: Running) -> Reply:
        cell.reply.add_done_callback(lambda _: self._questions.put(None))
        while (question := self._questions.get()) is not None:
            self._session.wait(self._session.answer(_ask(question), question.seq))
        return cell.reply.result()

    def _stop(self, cell: Running) -> Reply:
        patience = STOPPING
        try:
            if not self._session.wait(self._session.interrupt_cell(cell), STOPPING):
                patience = ARRIVING
            return cell.reply.result(patience)
        except TimeoutError:
            if patience == ARRIVING:
                raise shown(
                    KeyboardInterrupt("the cell was not sent"), ["KeyboardInterrupt: the cell was not sent"]
                ) from None
            text = f"the cell has not heeded the interrupt yet and still runs in session {self._session.name!r}"
            raise shown(KeyboardInterrupt(text), [f"KeyboardInterrupt: {text}"]) from None

    def _conclude(self, cell: Running, reply: Reply) -> None:
        if self._error is not None and (
            reply.status == "ok" or reply.traceback != tuple(self._error.content["traceback"])
        ):
            self._view.show(self._error)
        payloads: Any = self._shell.payload_manager
        for wish in reply.payload:
            if wish.get("source") != "ask_exit":
                payloads.write_payload(wish)
        if reply.ename == "NoneType":  # nothing was raised, but a result could not be displayed; that has been shown
            shell: Any = self._shell
            shell._last_traceback_during_displayhook = True  # noqa: SLF001 - how ipykernel says so
        elif reply.status != "ok":
            raise remote_error(reply)
        if reply.has_values:
            own = self._shell.user_ns
            own.update(unpack(self._session.wait(self._session.collect(cell.id)), own))


def _ask(question: Message) -> str:
    ask = getpass.getpass if question.content["password"] else input
    try:
        return ask(question.content["prompt"])
    except EOFError:
        return "\x04"  # Jupyter's way to say so


class _Detached(_Cell):
    """A cell that runs on while the notebook does other things."""

    def run(self, code: str, options: Options, candidates: Sequence[str]) -> Handle:
        cell = self._running(code, options, hear=self._view.show, asks=False)
        self._send(cell, options.inputs, candidates)
        return Handle(self._session, cell, self._conclude, None if options.quiet else self._view)

    async def _conclude(self, cell: Running) -> Outcome:
        # An exception is returned, not raised: a KeyboardInterrupt would end the loop itself.
        try:
            reply = await asyncio.wrap_future(cell.reply)
        except Exception as error:
            self._view.say(f"{type(error).__name__}: {error}")
            return error
        if reply.status != "ok":
            if reply.error is not None or not reply.traceback:  # else the cell's own error has been shown
                self._view.say(f"{reply.ename}: {reply.evalue}")
            return remote_error(reply)
        try:
            return await self._bring(cell) if reply.has_values else {}
        except Exception as error:
            self._view.say(f"{type(error).__name__}: {error}")
            return error

    async def _bring(self, cell: Running) -> dict[str, Any]:
        own = self._shell.user_ns
        values: dict[str, Any] = await asyncio.to_thread(unpack, await self._session.collect(cell.id), own)
        own.update(values)
        return values


class Handle:
    """A detached cell.

    Examples
    --------
    >>> handle.done()                                # doctest: +SKIP
    False
    >>> handle.result()                              # doctest: +SKIP
    {'model': LinearRegression()}
    """

    def __init__(
        self,
        session: Session,
        cell: Running,
        conclude: Callable[[Running], Coroutine[Any, Any, Outcome]],
        view: CellView | None = None,
    ) -> None:
        self._session = session
        self._cell = cell
        self._view = view
        self._displayed = False
        self._outcome = asyncio.run_coroutine_threadsafe(conclude(cell), session.loop)
        self._outcome.add_done_callback(self._update)

    def _ipython_display_(self) -> None:
        if self._view is not None:
            self._displayed = True
            display({"text/plain": repr(self)}, raw=True, display_id=self._display_id)
            if self._outcome.done():
                self._update()

    @property
    def _display_id(self) -> str:
        return f"hpcnb-handle-{self._cell.id}"

    def _update(self, outcome: object = None) -> None:
        """Let the page no longer say that it runs."""
        if self._displayed and self._view is not None:
            self._view.update(self._display_id, repr(self))

    def done(self) -> bool:
        """Tell whether it has ended, in whatever way."""
        return self._outcome.done()

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it has ended; return what ``-o`` brought back (the notebook has it too), or raise what it raised.

        Raises
        ------
        TimeoutError
            It runs on.
        """
        outcome = self._outcome.result(timeout)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def interrupt(self) -> bool:
        """Interrupt it, or keep it from running if it still waits; False if it has ended."""
        return self._session.wait(self._session.interrupt_cell(self._cell))

    def __repr__(self) -> str:
        where = f"cell in session {self._session.name!r}"
        if not self._outcome.done():
            return f"<{where}: running>"
        outcome = self._outcome.result()
        return f"<{where}: {type(outcome).__name__ if isinstance(outcome, BaseException) else 'done'}>"
