"""Which program is meant: the main one, or the one of the task in whose body we are."""

from __future__ import annotations

import threading

from hpcnb.tasks.nesting import here
from hpcnb.tasks.program import Program
from hpcnb.tasks.where import Inside, Main

__all__ = ["program"]

_lock = threading.Lock()
_main: Program | None = None


def program() -> Program:
    """The program that calls: in the body of a task it is a program of its own.

    Raises
    ------
    TaskError
        A task that runs in a process of its own, apart from the cluster, calls tasks.
    """
    global _main
    if here.inside:
        if here.program is None:
            here.program = Program(Inside())
        return here.program
    with _lock:
        if _main is None:
            _main = Program(Main())
        return _main
