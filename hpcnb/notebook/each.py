"""`%%hpc --each`: the cell's body as one task for each element, by the way of `hpc.map`; values come back in order."""

from __future__ import annotations

import ast
import reprlib
from collections.abc import Callable, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any

import click
from IPython.core.compilerop import PyCF_MASK
from IPython.core.error import UsageError

from hpcnb import choice
from hpcnb.future.batches import send_all
from hpcnb.future.future import Future
from hpcnb.future.work import shown_by
from hpcnb.notebook import clause
from hpcnb.notebook.along import packed, parsed, travelling
from hpcnb.notebook.calls import Calls
from hpcnb.notebook.cells import numbered, sendable
from hpcnb.notebook.work import show
from hpcnb.pilot.values import Frame
from hpcnb.pilot.worker.element import Body

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from hpcnb.cluster import Cluster
    from hpcnb.kept import NotebookClient
    from hpcnb.notebook.options import Options

__all__ = ["run_each"]

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
    frames = packed(shell, options.inputs, names)
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
    tree, file = parsed(shell, cell)
    if any(isinstance(node, ast.Name) and node.id == "get_ipython" for node in ast.walk(tree)):
        raise UsageError(
            "%%hpc: with --each a cell has no magics and no shell lines (`!…`), for its elements run without IPython; "
            "subprocess.run() runs commands. Nothing was submitted."
        )
    compiler: Any = shell.compile
    flags = compiler.flags & PyCF_MASK | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # the notebook's own `from __future__ import`
    code: CodeType = compile(tree, file, "exec", flags, dont_inherit=True)
    return code


class _Elements:
    """The elements of a cell that runs."""

    def __init__(
        self, what: clause.Clause, rows: Sequence[tuple[Any, ...]], frames: tuple[Frame, ...], options: Options
    ) -> None:
        self._clause, self._rows, self._frames, self._options = what, rows, frames, options
        self._tag = ",".join(options.outputs)

    def run(self, body: Body, cluster: Cluster) -> list[Any]:
        """Submit them, and wait; the values in order."""
        _left.pop(self._tag, None)
        client = cluster.early_client
        calls = Calls(self._clause.text, "elements", self._named, len(self._rows), self._options)
        return calls.run(
            client.ledger,
            lambda: self._submit(body, client),
            rest=lambda error, futures: self._keep_rest(error, futures, cluster),
        )

    def _submit(self, body: Body, client: NotebookClient) -> list[Future]:
        variables = travelling(client, body, self._frames, len(self._rows))
        self._frames = ()
        return send_all(client, body, [(variables, *row) for row in self._rows], tag=self._tag)

    def _keep_rest(self, error: Any, futures: list[Future], cluster: Cluster) -> str:
        if not self._tag:
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
