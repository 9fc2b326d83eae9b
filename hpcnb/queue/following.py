"""Follows what a queue's task prints: piece after piece, each after the one before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

SOONEST, LATEST = 0.5, 5.0
"""Seconds between two looks; longer while there is nothing new."""
SHARE = 5
"""Of the time, a fifth at most is spent with looking: elsewhere each look is a command on a login node."""


def follow(piece: Callable[[int | None, Sequence[int] | None], dict[str, Any]], attempt: int | None) -> Iterator[str]:
    """What an attempt prints, until it has ended.

    Parameters
    ----------
    piece : callable
        Given the number of an attempt and what was read of it, as `Queue.piece` is.
    attempt : int or None
        By default the last one.
    """
    read: Sequence[int] | None = None
    pause = SOONEST
    while True:
        began = time.monotonic()
        found = piece(attempt, read)
        attempt, read = found["attempt"], found["read"]
        if found["text"]:
            yield found["text"]
        elif found["state"] != "Running":
            return
        pause = SOONEST if found["text"] else min(LATEST, 1.5 * pause)
        if found["state"] == "Running":
            time.sleep(max(pause, SHARE * (time.monotonic() - began)))
