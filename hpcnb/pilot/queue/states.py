"""The states of a queue's task, and from which into which it may be moved."""

from __future__ import annotations

import enum


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
