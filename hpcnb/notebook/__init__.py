"""`%hpc` and `%%hpc`: registered at once, imported on first use."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hpcnb import printed

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def register(shell: InteractiveShell) -> None:
    """Register the magics. Nothing else is imported yet: an extension must not slow every notebook down."""

    def hpc(line: str, cell: str | None = None) -> Any:
        """Clusters inside Slurm allocations: `%hpc --help`, `%%hpc --help`."""
        if cell is None:
            from hpcnb.notebook.line import run_line

            return run_line(shell, line)
        from hpcnb.notebook.cells import run_cell
        from hpcnb.notebook.where import session_for

        return run_cell(shell, line, cell, partial(session_for, shell))

    printed.show_with(partial(_place, shell))
    # IPython's annotation of this method speaks of the shell where it means the magic.
    shell.register_magic_function(hpc, "line_cell", "hpc")  # type: ignore[arg-type]

    def show(cluster: Any) -> None:
        from hpcnb.notebook.cluster_view import show_cluster

        show_cluster(cluster)

    def show_tasks(queue: Any) -> None:
        from hpcnb.notebook.queue_view import show_queue

        show_queue(queue)

    # By their names, so that nothing of Dask is imported before there is one.
    if shell.display_formatter is not None:
        shown = shell.display_formatter.ipython_display_formatter
        shown.for_type_by_name("hpcnb.cluster", "Cluster", show)
        shown.for_type_by_name("hpcnb.queue.queue", "Queue", show_tasks)


def _place(shell: InteractiveShell) -> printed.Place:
    from hpcnb.notebook.printed import place_of

    return place_of(shell)
