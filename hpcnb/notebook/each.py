"""`%%hpc --each`: the cell's body as one task for each element, by the way of `hpc.map`; values come back in order."""

from __future__ import annotations

import ast
import reprlib
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from types import CodeType
from typing import TYPE_CHECKING, Any

import click
from IPython.core.compilerop import PyCF_MASK
from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import TransformerManager

from hpcnb import choice
from hpcnb.errors import TaskTimeout
from hpcnb.future.batches import UNKNOWN, keep, send_all
from hpcnb.future.future import Future
from hpcnb.future.verbs import wait
from hpcnb.future.work import shown_by, together, uncounted, work_now
from hpcnb.notebook import clause
from hpcnb.notebook.cells import UNASKED, numbered, sendable
from hpcnb.notebook.remote_error import shown
from hpcnb.notebook.work import show
from hpcnb.pilot.values import Frame, pack, size
from hpcnb.pilot.worker.element import Body
from hpcnb.serializing import send_own_modules_by_value

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from hpcnb.cluster import Cluster
    from hpcnb.kept import NotebookClient
    from hpcnb.notebook.options import Options

__all__ = ["run_each"]

ALONG = 10e6
"""Bytes of variables that go along with the tasks, all of them together."""
NAMED = 5
"""Elements that are named of those that failed."""

_left: dict[str, list[Future]] = {}
"""What an earlier cell has left unfinished, by what it was to bring back: its results stay until such a cell is run again."""


def run_each(
    shell: InteractiveShell, line: str, body: str, options: Options, cluster_for: Callable[[Options], Cluster]
) -> None:
    """Run a cell for each element; returns when all have ended, with their values in the notebook.

    Each element is a task, as those of `hpc.map` are. It has a namespace of its own, in which stand the names of the clause and, by value, as they are when the
    cell is begun, the notebook's variables that the body reads. What it prints appears under the cell.

    Parameters
    ----------
    shell : InteractiveShell
    line, body : str
        What stands after ``%%hpc``, and below it.
    options : Options
        What was read from the line, with ``--each``. The time of ``--timeout`` is that of all elements together.
    cluster_for : callable
        Finds the cluster that the options mean.

    Raises
    ------
    UsageError
        The line or the clause is wrong, or the body needs IPython; nothing was submitted.
    CannotSerialize
        A variable cannot be sent; likewise.
    TaskTimeout
        The time was over; what had not ended was cancelled.
    BaseException
        What the first element has raised that failed; the others have ended, too.
    """
    shown_by(show)  # which nobody has said yet where the notebook has used nothing of `hpc` itself
    what = clause.read(options.each or "")
    names = [name for name in sendable(shell, body, options.inputs) if name not in what.names]
    made = Body(
        _compiled(shell, numbered(line, body)),
        targets=what.names,
        inputs=(*options.inputs, *names),
        outputs=options.outputs,
    )
    frames = _packed(shell, options.inputs, names)
    if rows := what.rows(shell.user_ns):
        values = _Elements(what, rows, frames, options).run(made, cluster_for(options))
    else:
        values = []
        if not options.quiet:
            click.echo(f"{what.text}: no elements" + "".join(f", {name} = []" for name in options.outputs))
    shell.user_ns.update(_columns(options.outputs, values))


def _columns(names: Sequence[str], values: Sequence[Any]) -> dict[str, list[Any]]:
    """What `Body` has given for each element, as a list for each name."""
    if len(names) == 1:
        return {names[0]: list(values)}
    return {name: [value[number] for value in values] for number, name in enumerate(names)}


def _compiled(shell: InteractiveShell, cell: str) -> CodeType:
    """The code of a cell, whose lines are the notebook's."""
    text = TransformerManager().transform_cell(cell)
    compiler: Any = shell.compile
    file = compiler.cache(text, shell.displayhook.prompt_count, raw_code=cell)
    tree = ast.parse(text, file)
    if any(isinstance(node, ast.Name) and node.id == "get_ipython" for node in ast.walk(tree)):
        raise UsageError(
            "%%hpc: with --each a cell has no magics and no shell lines (`!…`), for its elements run without IPython; "
            "subprocess.run() runs commands. Nothing was submitted."
        )
    flags = compiler.flags & PyCF_MASK | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # the notebook's own `from __future__ import`
    code: CodeType = compile(tree, file, "exec", flags, dont_inherit=True)
    return code


def _packed(shell: InteractiveShell, inputs: Sequence[str], names: Sequence[str]) -> tuple[Frame, ...]:
    """The notebook's variables, as they are now: those that were named by the user, and those that the body reads."""
    own = shell.user_ns
    send_own_modules_by_value()
    unasked = {name: own[name] for name in names}
    frames = pack(unasked, limit=UNASKED) if names else []
    if inputs:  # together, so that what they share stays shared
        frames = pack({name: own[name] for name in inputs} | unasked)
    # Buffers are unpickled as what may be written to, anew for each element, so that nobody copies them once more.
    return tuple(bytearray(frame) if number else bytes(frame) for number, frame in enumerate(frames))


class _Elements:
    """The elements of a cell that runs."""

    def __init__(
        self, what: clause.Clause, rows: Sequence[tuple[Any, ...]], frames: tuple[Frame, ...], options: Options
    ) -> None:
        self._clause, self._rows, self._frames, self._options = what, rows, frames, options
        self._tag = ",".join(options.outputs)
        self._futures: list[Future] = []

    def run(self, body: Body, cluster: Cluster) -> list[Any]:
        """Submit them, and wait; the values in order."""
        _left.pop(self._tag, None)
        ledger = cluster.early_client.ledger
        stopped: KeyboardInterrupt | TaskTimeout | None = None
        errors: dict[int, BaseException] = {}
        with together(self._clause.text, shown=not self._options.quiet):
            work = work_now()
            try:
                self._submit(body, ledger.client)
                self._wait()
                errors = self._errors()
            except (KeyboardInterrupt, TaskTimeout) as error:
                ledger.cancel_work(work.id)
                stopped = error
            except BaseException:
                ledger.cancel_work(work.id)
                raise
        # Raised here, and without what waited: what was raised last is kept by Python, and would keep all results with it.
        if stopped is not None:
            raise self._stopped(stopped, cluster)
        if errors:
            raise self._failure(errors, cluster)
        return [future.result() for future in self._futures]

    def _submit(self, body: Body, client: NotebookClient) -> None:
        variables: Any = ()
        if size(self._frames) * min(len(self._rows), UNKNOWN) > ALONG:
            with uncounted():
                variables = keep(client, self._frames)
        else:
            # What depends on nothing goes to whichever worker is free; what depends on something is moved only if that seems to pay.
            body.frames = tuple(map(bytes, self._frames))
        self._frames = ()
        self._futures = send_all(client, body, [(variables, *row) for row in self._rows], tag=self._tag)

    def _wait(self) -> None:
        limit = self._options.timeout
        if limit is not None and wait(self._futures, limit).not_done:
            raise TaskTimeout(f"the cell did not end within its {limit:g} s")

    def _errors(self) -> dict[int, BaseException]:
        """What was raised, by the number of the element; waits for all."""
        for batch in {future.batch: None for future in self._futures}:
            batch.want()  # all of them, before the first is waited for
        found = {}
        for number, future in enumerate(self._futures):
            try:
                error = future.exception()
            except CancelledError as cancelled:
                error = cancelled
            if error is not None:
                found[number] = error
        return found

    def _stopped(self, error: KeyboardInterrupt | TaskTimeout, cluster: Cluster) -> BaseException:
        ended = sum(future.done() and not future.cancelled() for future in self._futures)
        said = f"{ended:,} of {len(self._rows):,} elements had ended, the others are cancelled"
        if not self._futures:
            said = "the cell was not sent as a whole; what was sent is cancelled"
        if isinstance(error, TaskTimeout):
            return self._with_rest(TaskTimeout(f"{error.what}: {said}"), cluster)
        return self._with_rest(KeyboardInterrupt(said), cluster)

    def _failure(self, errors: dict[int, BaseException], cluster: Cluster) -> BaseException:
        number, first = next(iter(errors.items()))
        some = "; ".join(map(self._named, list(errors)[:NAMED]))
        more = f"; and {len(errors) - NAMED:,} more" if len(errors) > NAMED else ""
        whose = f" This is the error of {self._named(number)}." if len(errors) > 1 else ""
        note = f"{len(errors):,} of {len(self._rows):,} elements failed: {some}{more}.{whose}"
        return self._with_rest(first.with_traceback(None), cluster, note)

    def _with_rest(self, error: BaseException, cluster: Cluster, note: str = "") -> BaseException:
        """The error as it is shown: with which elements it was of, and with where the results of the others are, which are kept there."""
        render = getattr(error, "_render_traceback_", lambda: [f"{type(error).__name__}: {error}"])
        notes = [text for text in (note, self._keep_rest(error, cluster)) if text]
        for text in notes:
            error.add_note(text)
        return shown(error, [*render(), *notes])

    def _keep_rest(self, error: Any, cluster: Cluster) -> str:
        futures, self._futures = self._futures, []
        if not self._tag or not futures:
            return ""
        if futures[0].batch.ledger.closed:
            error.futures = futures
            return (
                "What had ended before is here, in order, until the next error: `import sys; sys.last_value.futures`."
            )
        _left[self._tag] = futures
        where = "" if cluster is choice.in_use() else f"after `%hpc attach {cluster.name}` "
        return (
            f'What has ended is kept until a cell with these -o is run again: {where}`hpc.futures("{self._tag}")` has '
            f'all in order, `hpc.retry(hpc.futures("{self._tag}"))` runs again what failed.'
        )

    def _named(self, number: int) -> str:
        pairs = zip(self._clause.names, self._rows[number], strict=True)
        return ", ".join(f"{name} = {reprlib.repr(value)}" for name, value in pairs)
