"""Who prints: an attempt of a call, and how a thread knows it."""

from __future__ import annotations

import contextvars
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpcnb.pilot.output.tape import RAW

if TYPE_CHECKING:
    from hpcnb.pilot.output.index import Tape

__all__ = ["Speaker", "mine", "of_coroutine"]


@dataclass(kw_only=True, eq=False, slots=True)
class Speaker:
    """One attempt of a call, with what it has printed and not yet written."""

    number: int
    key: Any
    member: int | None = None
    attempt: int = 0
    started: Any = None
    kind: int = RAW
    parts: list[str] = field(default_factory=list)
    warm: bool = False
    recent: int = 0
    said: bool = False
    open: bool = False  # in the middle of a line


class _Mine(threading.local):
    """What this thread prints for, once it has printed; the level of the message that it logs; its children's file."""

    speaker: Speaker | None = None
    level = 0
    tape: Tape | None = None


mine = _Mine()
of_coroutine: contextvars.ContextVar[Speaker | None] = contextvars.ContextVar("hpcnb_speaker", default=None)
"""Who speaks where a task is a coroutine, which runs in the thread of the event loop."""
