"""qdo's Python API by name, on `hpc.Queue`: ``from hpcnb.compat import qdo`` instead of ``import qdo``.

Covered are qdo's functions, queues and tasks as its documentation and public programs use them. What differs:

* Ids are numbers that the queue gives; ``id=`` and ``ids=`` are refused.
* Queues are one's own: ``user=`` of somebody else is refused.
* `Queue.recover` takes back what is lost and leaves what runs: that it was forgotten, or called too early, is what it did harm by.
* `Queue.launch` submits as `hpc.Queue.launch` does: jobs follow each other while work is left, and end when there is none.
"""

from __future__ import annotations

import getpass
import json
from typing import Any

from hpcnb.compat.qdo.queue import Queue
from hpcnb.compat.qdo.task import Task, as_theirs
from hpcnb.errors import QueueError
from hpcnb.pilot.queue.place import checked_name
from hpcnb.queue import queue as ours
from hpcnb.views.queue import queues_text

__all__ = ["Queue", "Task", "connect", "create", "print_queues", "qlist", "tojson", "valid_queue_name"]


def _own(user: str | None) -> None:
    if user not in (None, getpass.getuser()):
        raise ValueError(f"queues of {user!r}: only one's own can be reached")


def valid_queue_name(name: str) -> bool:
    """Whether a queue can have this name."""
    try:
        checked_name(name)
    except QueueError:
        return False
    return True


def create(queuename: str, user: str | None = None, worker: str | None = None) -> Queue:
    """Make a queue; raises `ValueError` when there is one of that name."""
    _own(user)
    with as_theirs():
        return Queue(ours.Queue.create(queuename), worker)


def connect(queuename: str, user: str | None = None, worker: str | None = None, create_ok: bool = False) -> Queue:
    """Find a queue, or make it with `create_ok`; raises `ValueError` when there is none."""
    _own(user)
    with as_theirs():
        try:
            return Queue(ours.Queue.connect(queuename), worker)
        except QueueError:
            if not create_ok:
                raise
            return Queue(ours.Queue.create(queuename), worker)


def qlist(user: str | None = None) -> list[Queue]:
    """The queues, by name."""
    _own(user)
    return [Queue(one) for one in ours.queues()]


def print_queues(user: str | None = None) -> None:
    """Print a table of the queues."""
    _own(user)
    print(queues_text(ours.listing()))  # noqa: T201 - what it is for


def tojson(thing: Any) -> str:
    """A queue, a task, or a list of them as JSON."""
    return json.dumps(thing, default=lambda one: one.status() if isinstance(one, Queue) else one.todict())
