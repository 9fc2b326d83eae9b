"""Where a test's queue lies."""

from __future__ import annotations

from hpcnb.pilot.queue.place import Place
from hpcnb.queue.queue import Queue


def place(q: Queue) -> Place:
    """The folder of a queue on this machine."""
    return Place.named(q.name, root=q._desk.root)
