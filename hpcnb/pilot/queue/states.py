"""The states of a queue's task, and from which into which it may be moved."""

from __future__ import annotations

import enum
from collections.abc import Sequence


class TaskState(enum.IntEnum):
    """As they are stored; shown by `title`.

    Examples
    --------
    >>> TaskState.PENDING.title, TaskState.of("Pending")
    ('Pending', <TaskState.PENDING: 1>)
    """

    WAITING = 0  # for other tasks
    PENDING = 1  # for a worker
    RUNNING = 2  # given to a worker
    SUCCEEDED = 3
    FAILED = 4
    KILLED = 5  # by the end of a walltime, or by the user; can be gone on with

    @property
    def title(self) -> str:
        return self.name.title()

    @classmethod
    def of(cls, title: str) -> TaskState:
        """The state that is shown so; raises `ValueError`."""
        try:
            return cls[title.upper()]
        except (KeyError, AttributeError):
            known = ", ".join(state.title for state in cls)
            raise ValueError(f"{title!r} is no state of a task; the states are {known}") from None


ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.KILLED)
BY_HAND = (TaskState.PENDING, *ENDED)
"""What a user may set; Waiting and Running follow from dependencies and workers alone."""

LOST = "Lost"
"""How an attempt ended whose worker has vanished, or whose task was taken from it; a task is never lost."""


def meets(state: int, succeed: int) -> bool:
    """Whether a task in this state has ended as somebody who waits for it asks."""
    return state == TaskState.SUCCEEDED or (not succeed and state == TaskState.FAILED)


def among(states: Sequence[TaskState]) -> str:
    """A condition on the state, said so that SQLite sees which partial index holds all that it asks for."""
    test = f"state IN ({', '.join(str(int(state)) for state in states)})"
    rare = not {TaskState.PENDING, TaskState.SUCCEEDED} & set(states)
    return f"{test} AND state NOT IN (1, 3)" if rare else test
