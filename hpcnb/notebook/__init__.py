"""`%hpc` and `%%hpc`: registered at once, imported on first use."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher
from IPython.core.magic import no_var_expand

from hpcnb import printed
from hpcnb.notebook import record

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell


CALLER = 2
"""Calls between a magic and the code that has called it."""


def register(shell: InteractiveShell) -> None:
    """Register the magics. Nothing else is imported yet: an extension must not slow every notebook down."""

    @no_var_expand  # an f-string of `--each` has braces of its own
    def hpc(line: str, cell: str | None = None) -> Any:
        """Clusters inside Slurm allocations, and cells that run there.

        %hpc doctor [SITE]         what keeps a cluster from starting there, and what to do
        %hpc up [SITE]             start a cluster; until it is ready, show what it waits for
        %hpc                       show your clusters
        %hpc down                  end it
        %hpc --help                all commands; `%hpc COMMAND --help` explains one

        %%hpc [OPTIONS]            run the cell on the cluster in use; without one, on one that is started for it
          -i a,b                   send these variables; those that the cell needs and lacks are sent by themselves
          -o c,d                   bring these back
          -s SESSION               in another session than `main`, with variables of its own
          --cluster NAME           on this cluster
          --detach                 return at once, with a handle; its output goes on appearing under the cell
          --timeout 10m            interrupt it after so long
          --quiet                  show the cell's own output only
          --each "x in xs"         run it once for each element, as tasks on all workers: a clause as that of a `for`.
                                   What stands after -o becomes a list, with the value of each element in order; what
                                   they print is shown. An element has the variables that it reads, by value, and a
                                   namespace of its own. One that fails stops no other; the error says which it was.
                                   No magics, no display(), no -s, no --detach. The time of --timeout is that of all
                                   together; when it is over, or by an interrupt, the rest is cancelled.
          --all-workers            run it once in each worker that is there, in the worker's own namespace, which lasts:
                                   the next such cell finds what this one has bound. What stands after -o becomes a
                                   list, in the order of the workers. What they print and display is shown with the
                                   worker's name; magics and `!` work. It goes before tasks that wait, and takes a core.
                                   -i sends anew what the workers have already. No -s, no --each, no --detach.
          -n NODE                  the same in one worker of a node, by its name or its number in `%hpc` (0 is the
                                   first); -o brings bare values
        """
        if cell is None:
            from hpcnb.notebook.line import run_line

            return run_line(shell, shell.var_expand(line, CALLER))
        if line.strip() in ("-h", "--help"):
            return print(inspect.getdoc(hpc))  # noqa: T201 - where help is shown
        return _run(shell, line if "--each" in line else shell.var_expand(line, CALLER), cell)

    printed.show_with(partial(_place, shell))
    record.keep(shell)
    # IPython's annotation of this method speaks of the shell where it means the magic.
    shell.register_magic_function(hpc, "line_cell", "hpc")  # type: ignore[arg-type]
    if _complete not in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.append(_complete)

    _show_what_is_displayed(shell)


def _show_what_is_displayed(shell: InteractiveShell) -> None:
    """Have clusters and queues shown where they are displayed."""

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


def _run(shell: InteractiveShell, line: str, cell: str) -> Any:
    from hpcnb.notebook.options import parse
    from hpcnb.notebook.where import cluster_for, session_for

    if (options := parse(line)).each is not None:
        from hpcnb.notebook.each import run_each

        return run_each(shell, line, cell, options, partial(cluster_for, shell))
    if options.all_workers or options.node is not None:
        from hpcnb.notebook.everywhere import run_everywhere

        return run_everywhere(shell, line, cell, options, partial(cluster_for, shell))
    from hpcnb.notebook.cells import run_cell

    return run_cell(shell, line, cell, partial(session_for, shell))


@context_matcher(priority=100)  # type: ignore[untyped-decorator]  # IPython has no types for it
def _complete(context: CompletionContext) -> SimpleMatcherResult:
    typed = context.text_until_cursor.lstrip()
    found: list[str] = []
    if re.match(r"%hpc\s", typed):
        from hpcnb.notebook import line

        found = line.complete(typed)
    elif re.match(r"%%hpc\s", typed):
        from hpcnb.notebook import options

        found = options.complete(typed)
    return {"completions": [SimpleCompletion(one, type="magic") for one in found], "suppress": bool(found)}


def _place(shell: InteractiveShell) -> printed.Place:
    from hpcnb.notebook.printed import place_of

    return place_of(shell)
