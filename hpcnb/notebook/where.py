"""Which cluster a `%%hpc` cell means, and which session: a cluster is started, or waited for, where that is needed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from hpcnb import choice, handle
from hpcnb.model import State
from hpcnb.notebook.line import NotebookFace, run_line
from hpcnb.notebook.options import Options
from hpcnb.session import Session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from hpcnb.cluster import Cluster


def session_for(shell: InteractiveShell, options: Options) -> Session:
    """Find the session of a cell: of the cluster that `cluster_for` finds, the one that ``-s`` names."""
    return cluster_for(shell, options).session_named(options.session)


def cluster_for(shell: InteractiveShell, options: Options) -> Cluster:
    """Find the cluster of a cell, which is ready then; shows what is being waited for.

    Parameters
    ----------
    shell : InteractiveShell
    options : Options
        ``--cluster`` says which; without it the cluster in use, or a new one on the default site.
        ``--quiet``: nothing is shown.

    Raises
    ------
    HPCError
        There is no such cluster, or it cannot be started.
    """
    if options.cluster:
        found = choice.named(options.cluster)
    elif (used := choice.used()) is not None:
        found = used
    else:
        if not options.quiet:
            click.echo("no cluster yet: starting one on the default site (`%hpc down` ends it)")
            run_line(shell, "up")
        found = choice.current()
    if found.state is not State.READY:
        with nullcontext() if options.quiet else NotebookFace(shell).following(found.handle):
            handle.run(found.handle.ready())
    return found
