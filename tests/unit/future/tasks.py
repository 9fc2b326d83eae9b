"""What the tests of futures submit."""

from __future__ import annotations

import threading

DEADLINE = 20.0

gate, ran = threading.Event(), threading.Event()
"""Tasks run in this process: they can wait for one, and tell by the other."""


def waits(value=0):
    """A task that ends when it is let."""
    assert gate.wait(DEADLINE)
    return value


def tells():
    """A task that somebody can hear of."""
    waits()
    ran.set()


def fails(what="as it should"):
    """One that fails."""
    raise ValueError(what)


class CannotBeRead:
    """A value that can be sent, and not be read where it arrives."""

    def __reduce__(self):
        return fails, ("not here",)
