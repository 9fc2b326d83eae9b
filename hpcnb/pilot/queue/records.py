"""What a store is told of attempts, and tells of workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcnb.pilot.queue.states import TaskState


class Outcome(NamedTuple):
    """How one attempt at a task ended, as its worker tells it.

    Parameters
    ----------
    task, attempt : int
    state : TaskState
        One of those that end a task.
    code : int or None
        A command's exit status; a signal is negative.
    error : str
        Of a task that failed: why.
    result : str or None
        JSON.
    began, ended : float
        POSIX times of the worker.
    output : sequence of int
        Where its stdout and its stderr begin and end in the worker's logs.
    action : sequence of dict
        What it does to the queue, see `hpcnb.pilot.queue.action`; of a task that succeeded.
    """

    task: int
    attempt: int
    state: TaskState
    code: int | None = None
    error: str = ""
    result: str | None = None
    began: float = 0.0
    ended: float = 0.0
    output: Sequence[int] = (0, 0, 0, 0)
    action: Sequence[dict[str, Any]] = ()


class Worker(NamedTuple):
    """Who carries tasks out: the number, the name it has given itself, and where it runs."""

    id: int
    name: str
    host: str
    pid: int
