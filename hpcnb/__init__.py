"""hpcnb: notebook cells, futures and queues inside a Slurm allocation, from where you are.

>>> import hpcnb as hpc
>>> cluster = hpc.Cluster()                   # doctest: +SKIP
>>> hpc.submit(sum, [1, 2, 3]).result()       # doctest: +SKIP
6
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from hpcnb import errors
from hpcnb.errors import *  # noqa: F403 - the tree of errors is the public one, name by name

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from hpcnb.future.work import Look, View
    from hpcnb.site.shell import Prompt
    from hpcnb.tasks.graph import Graph

__version__ = "0.1.0"

# Name → module. Loaded on first use: `import hpcnb` must not import distributed, paramiko or pandas.
_LAZY = {
    "Action": "hpcnb.pilot.queue.action",
    "Cluster": "hpcnb.cluster",
    "Collection": "hpcnb.tasks",
    "Commutative": "hpcnb.tasks",
    "Concurrent": "hpcnb.tasks",
    "Dictionary": "hpcnb.tasks",
    "DirectoryIn": "hpcnb.tasks",
    "DirectoryInOut": "hpcnb.tasks",
    "DirectoryOut": "hpcnb.tasks",
    "Executor": "hpcnb.future.executor",
    "FileCommutative": "hpcnb.tasks",
    "FileConcurrent": "hpcnb.tasks",
    "FileIn": "hpcnb.tasks",
    "FileInOut": "hpcnb.tasks",
    "FileOut": "hpcnb.tasks",
    "Future": "hpcnb.future.future",
    "In": "hpcnb.tasks",
    "InDelete": "hpcnb.tasks",
    "InOut": "hpcnb.tasks",
    "Out": "hpcnb.tasks",
    "Queue": "hpcnb.queue.queue",
    "as_completed": "hpcnb.future.verbs",
    "attach": "hpcnb.choice",
    "barrier": "hpcnb.tasks",
    "binary": "hpcnb.tasks",
    "clusters": "hpcnb.choice",
    "container": "hpcnb.tasks",
    "current": "hpcnb.choice",
    "delete": "hpcnb.tasks",
    "doctor": "hpcnb.report",
    "futures": "hpcnb.future.verbs",
    "gather": "hpcnb.future.verbs",
    "graph": "hpcnb.tasks",
    "group": "hpcnb.tasks",
    "implements": "hpcnb.tasks",
    "io": "hpcnb.tasks",
    "load": "hpcnb.objects",
    "local": "hpcnb.tasks",
    "map": "hpcnb.future.verbs",
    "mpi": "hpcnb.tasks",
    "persist": "hpcnb.objects",
    "persisted": "hpcnb.objects",
    "queues": "hpcnb.queue.queue",
    "race": "hpcnb.future.race",
    "reduction": "hpcnb.tasks",
    "retry": "hpcnb.future.again",
    "sites": "hpcnb.choice",
    "submit": "hpcnb.future.verbs",
    "submit_and_wait": "hpcnb.dropbox",
    "task": "hpcnb.tasks",
    "unpersist": "hpcnb.objects",
    "use": "hpcnb.choice",
    "wait": "hpcnb.future.verbs",
    "wait_on": "hpcnb.tasks",
    "wait_on_file": "hpcnb.tasks",
}

__all__ = sorted([*_LAZY, *errors.__all__])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        importlib.import_module("hpcnb.config")  # before Dask, of which a file that is not YAML is no error of ours
        found = getattr(importlib.import_module(_LAZY[name]), name)
        for module_name, show in _SHOWN.items():
            if (module := sys.modules.get(module_name)) is not None:
                module.shown_by(show)
        return found
    raise AttributeError(f"module 'hpcnb' has no attribute {name!r}")


def _show_work(look: Look) -> View | None:
    from hpcnb.notebook.work import show

    return show(look)


def _show_graph(graph: Graph) -> bool:
    from hpcnb.notebook.graph import show

    return show(graph)


async def _ask(prompt: Prompt) -> str:
    from hpcnb.notebook_name import shell

    if (running := shell()) is None:
        from hpcnb.cli.face import ask_in_terminal

        return await ask_in_terminal(prompt)
    from hpcnb.notebook.line import NotebookFace

    return await NotebookFace(running).ask(prompt)


# What is shown while it changes, and what only the user knows: its module, and the face that does it.
_SHOWN: dict[str, Any] = {"hpcnb.future.work": _show_work, "hpcnb.tasks.graph": _show_graph, "hpcnb.handle": _ask}


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register `%hpc` and `%%hpc` (`%load_ext hpcnb`)."""
    from hpcnb.notebook import register

    _LAZY["attach"] = "hpcnb.notebook.attach"  # which shows the output, too, that nobody has seen
    register(shell)
