"""How fast a queue's tasks end of late: kept by its owner while it owns, so that nobody has to compute it from the tasks."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable

SPAN, ENOUGH = 60.0, 20
"""What is of late: so many seconds, and more if fewer tasks than this have ended in them."""
_GRAIN = 1.0
_KEPT = 1000


class Pace:
    """The rate at which tasks end.

    Parameters
    ----------
    clock : callable
        Seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total: int | None = None
        self._ends: deque[list[float]] = deque(maxlen=_KEPT)
        """Moments, at least a grain apart, and how many had ended since the one before; the first is a beginning."""

    def saw(self, total: int) -> None:
        """Hear how many tasks have ended in all; fewer than before: some are carried out again."""
        now = self._clock()
        new = 0 if self._total is None else max(0, total - self._total)
        self._total = total
        if not self._ends:
            self._ends.append([now, 0])
        elif new and (len(self._ends) == 1 or now - self._ends[-1][0] >= _GRAIN):
            self._ends.append([now, new])
        elif new:
            self._ends[-1][1] += new

    @property
    def rate(self) -> float | None:
        """Tasks a second; None as long as that cannot be said."""
        now, ended = self._clock(), 0.0
        for (_, count), (since, _) in itertools.pairwise(reversed(self._ends)):
            ended += count
            if ended >= ENOUGH and now - since >= SPAN:
                return ended / (now - since)
        since = self._ends[0][0] if self._ends else now
        return ended / (now - since) if ended and now - since >= _GRAIN else None
