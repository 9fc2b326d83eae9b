"""One stream at one end of a link: what is known of it, and nothing that acts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NOTHING", "Flow", "StreamError", "ignore"]


class StreamError(ConnectionError):
    """A stream was refused, reset, or ended with its link; the message says why."""


def ignore(*_: Any) -> None:
    """Stand in for a callback that nobody gave."""


NOTHING = memoryview(b"")


@dataclass(slots=True, eq=False)
class Flow:
    """The state of one stream at one end; only `Core` changes it.

    `changed` is called when a read or a write that could not go on may now do so.
    """

    id: int
    name: str
    opening: bool  # the OPEN is yet to be sent
    limit: int  # how much may be sent in all
    granted: int  # how much the other end may send in all
    changed: Callable[[], None] = ignore
    pending: bytearray = field(default_factory=bytearray)  # written, not yet framed
    lent: memoryview = NOTHING  # as `pending`, of who is writing just now
    waiting: bool = False  # who writes had more than there was room for
    sent: int = 0
    closing: bool = False  # nothing more will be written
    closed: bool = False  # ... and the other end has been told
    unread: deque[bytes] = field(default_factory=deque)
    held: int = 0  # bytes unread
    received: int = 0
    ended: bool = False  # the other end will send nothing more
    deaf: bool = False  # nobody will read any more
    resetting: str | None = None  # the RESET is yet to be sent
    error: str | None = None
