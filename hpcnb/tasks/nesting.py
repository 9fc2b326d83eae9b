"""The body of a task that may call tasks itself, and waits for them before it ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import distributed

if TYPE_CHECKING:
    from hpcnb.tasks.program import Program

__all__ = ["here", "inner", "on_worker"]

worker: Any = distributed.worker


class Here(threading.local):
    """What a thread runs: the body of a task, or none, and its program, once it has called a task."""

    inside = False
    program: Program | None = None


here = Here()


def on_worker() -> bool:
    """Whether this thread is one of a worker's own, and not of a process beside it."""
    return getattr(worker.thread_state, "execution_state", None) is not None


@contextlib.contextmanager
def inner() -> Iterator[Callable[[Any], Any]]:
    """Where the body of a task runs: gives what waits for the tasks that it has called, and puts values in the place of futures."""
    before, here.inside, here.program = (here.inside, here.program), True, None

    def settled(value: Any) -> Any:
        if here.program is None:
            return value
        value = here.program.wait_on(value)
        here.program.barrier()
        return value

    try:
        yield settled
    finally:
        here.inside, here.program = before
