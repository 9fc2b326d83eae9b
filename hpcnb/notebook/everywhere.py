"""`%%hpc --all-workers`, `%%hpc -n NODE`: a cell in workers' own processes, once in each."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from IPython.core.error import UsageError

from hpcnb.errors import NotReady
from hpcnb.future.future import Future
from hpcnb.future.pinned import FIRST, send_to
from hpcnb.future.why import node_of
from hpcnb.future.work import shown_by
from hpcnb.notebook.along import packed, parsed, travelling
from hpcnb.notebook.calls import Calls
from hpcnb.notebook.cells import numbered, sendable
from hpcnb.notebook.work import show
from hpcnb.pilot.worker.cell import Cell, lacking
from hpcnb.views.cluster import workers_wanted

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from hpcnb.cluster import Cluster
    from hpcnb.kept import NotebookClient
    from hpcnb.notebook.options import Options

__all__ = ["in_order", "of_node", "run_everywhere"]

FEW = 3
"""Workers of which it is said what they wait for."""


def run_everywhere(
    shell: InteractiveShell, line: str, body: str, options: Options, cluster_for: Callable[[Options], Cluster]
) -> None:
    """Run a cell once in each worker that there is now, or in one of a node; returns when all have ended.

    It runs in the worker's own namespace, which lasts, with an IPython there. What the worker lacks of the notebook's variables that the cell reads goes along.
    As a task that only this worker may run it has a core, the next that is free, and other tasks go on beside it.

    Parameters
    ----------
    shell : InteractiveShell
    line, body : str
        What stands after ``%%hpc``, and below it.
    options : Options
        What was read from the line, with ``--all-workers`` or ``-n``.
    cluster_for : callable
        Finds the cluster that the options mean.

    Raises
    ------
    UsageError
        There is no such node; nothing was submitted.
    SyntaxError, CannotSerialize
        Likewise.
    TaskTimeout
        The time was over; what had not ended was cancelled.
    BaseException
        What the first worker has raised that failed; the others have ended, too.
    """
    shown_by(show)
    code = numbered(line, body)
    names = sendable(shell, body, options.inputs)
    _, file = parsed(shell, code)
    cluster = cluster_for(options)
    client, workers = cluster.client, _meant(cluster, options)
    missing: dict[str, list[str]] = (
        client.run(lacking, names, workers=list(workers), on_error="ignore") if names else {}
    )
    needed = sorted({name for some in missing.values() for name in some})
    cell = Cell(code, file, names=(*options.inputs, *needed), always=options.inputs, outputs=options.outputs)
    frames = packed(shell, options.inputs, needed)
    lacks = [bool(options.inputs or missing.get(address)) for address in workers]

    def submit() -> list[Future]:
        variables = travelling(client, cell, frames, len(workers), priority=FIRST) if frames else ()
        return send_to(client, workers, cell, [(variables if lack else (),) for lack in lacks])

    all_names = list(workers.values())
    label = "all workers" if options.node is None else f"worker {all_names[0]}"
    calls = Calls(label, "workers", all_names.__getitem__, len(workers), options)
    values = calls.run(
        client.ledger, submit, late=lambda futures: None if options.quiet else _say_what_waits(client, futures)
    )
    shell.user_ns.update(_bound(options, values))


def _meant(cluster: Cluster, options: Options) -> dict[str, str]:
    """The names of the workers that are to run a cell, by their addresses, in order."""
    client: Any = cluster.client
    known = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    workers = in_order({address: str(worker["name"]) for address, worker in known.items()})
    if options.node is not None:
        return of_node(workers, options.node)
    if not workers:
        raise NotReady("no worker is there", remedy="`%hpc` shows what the cluster waits for.")
    if len(workers) < (wanted := workers_wanted(cluster.handle.status)) and not options.quiet:
        click.echo(f"{len(workers)} of {wanted} workers are there, and run the cell")
    return workers


def _bound(options: Options, values: Sequence[Any]) -> dict[str, Any]:
    """What comes back: bare from the worker of a node, as lists from all."""
    rows = [value if len(options.outputs) > 1 else (value,) for value in values]
    if options.node is not None:
        return dict(zip(options.outputs, rows[0], strict=False))
    return {name: [row[number] for row in rows] for number, name in enumerate(options.outputs)}


def _say_what_waits(client: NotebookClient, futures: Sequence[Future]) -> None:
    with contextlib.suppress(OSError):  # the connection: the cell goes on, and what is shown of it says so
        running = client.executing()
        waiting = [future for future in futures if future.batch.key not in running and not future.done()]
        said = [future.why() for future in waiting[:FEW]]
        if len(waiting) > FEW:
            said.append(f"{len(waiting) - FEW:,} more workers have no free core yet")
        click.echo("".join(f"{line}\n" for line in said), nl=False)


def in_order(workers: dict[str, str]) -> dict[str, str]:
    """Workers, by their addresses, in the order of their nodes as `%hpc` shows these, and on each in that of their names.

    Examples
    --------
    >>> list(in_order({"a": "0-n10-0", "b": "0-n2-10", "c": "0-n2-9"}))
    ['c', 'b', 'a']
    """

    def place(item: tuple[str, str]) -> tuple[Any, ...]:
        node = node_of(item[1])
        return len(node), node, [int(number) for number in re.findall(r"^\d+|\d+$", item[1])], item[1]

    return dict(sorted(workers.items(), key=place))


def of_node(workers: dict[str, str], wanted: str) -> dict[str, str]:
    """The worker that runs a cell for a node: the first one there.

    Parameters
    ----------
    workers : dict
        In order.
    wanted : str
        The name of the node, or its number.

    Raises
    ------
    UsageError
        There is no such node.

    Examples
    --------
    >>> of_node({"a": "0-n1-0", "b": "0-n2-0", "c": "0-n2-1"}, "1")
    {'b': '0-n2-0'}
    """
    nodes: dict[str, dict[str, str]] = {}
    for address, name in workers.items():
        nodes.setdefault(node_of(name), {address: name})
    if wanted in nodes:
        return nodes[wanted]
    if wanted.isdecimal() and int(wanted) < len(nodes):
        return list(nodes.values())[int(wanted)]
    known = ", ".join(f"{number} ({name})" for number, name in enumerate(nodes))
    raise UsageError(f"%%hpc: there is no node {wanted!r} with workers; those that are there: {known or 'none'}")
