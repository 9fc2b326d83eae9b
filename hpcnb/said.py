"""What a client has told the scheduler, until it is known to have been heard."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

from hpcnb.pilot.scheduler.once import HELLO, ONCE
from hpcnb.pilot.scheduler.refusals import REFUSE
from hpcnb.pilot.scheduler.work import RETRY
from hpcnb.pilot.worker.turns import DROP

__all__ = ["Said"]

LASTING = frozenset({"update-graph", "client-releases-keys", "cancel-keys", REFUSE, RETRY, DROP})
"""What must be heard, whatever becomes of the connection; the rest is of no use over another one, or is said anew there."""


class Said:
    """The memory of one client, over all of its connections (see `hpcnb.pilot.scheduler.once`)."""

    def __init__(self) -> None:
        self._who = uuid.uuid4().hex
        self._last = 0
        self._unheard: deque[dict[str, Any]] = deque()

    def lasting(self, message: Mapping[str, Any]) -> bool:
        """Whether a message must be heard."""
        return message["op"] in LASTING

    def note(self, message: dict[str, Any]) -> dict[str, Any]:
        """Keep a message; return what is to be sent in its place."""
        self._last += 1
        numbered = {"op": ONCE, "number": self._last, "said": message}
        self._unheard.append(numbered)
        return dict(numbered)

    def heard(self, number: int) -> None:
        """Forget what the scheduler has heard."""
        while self._unheard and self._unheard[0]["number"] <= number:
            self._unheard.popleft()

    def again(self) -> list[dict[str, Any]]:
        """What a new connection begins with."""
        return [{"op": HELLO, "who": self._who}, *map(dict, self._unheard)]
