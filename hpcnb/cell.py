"""What is sent to a session and what comes back: a cell that runs, its messages, its reply."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcnb.errors import HPCError, error_from_json

__all__ = ["KERNEL", "Message", "Reply", "Running"]

KERNEL = uuid.uuid4().hex
"""This process, among the kernels of its notebook."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a session; `hpcnb.pilot.session.journal.Message` says what its fields mean."""

    seq: int
    cell: str
    type: str
    content: dict[str, Any]
    buffers: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a cell ended.

    Parameters
    ----------
    status : str
        ``ok`` or ``error``.
    ename, evalue : str
    traceback : tuple of str
    exception : bytes
        The exception, pickled; empty where it cannot be.
    error : HPCError or None
        When it was us, not the cell's code, who ended it.
    payload : tuple of dict
        What Jupyter's front end is asked to do (show a pager).
    has_values : bool
        Values to bring back are waiting.
    """

    status: str
    ename: str = ""
    evalue: str = ""
    traceback: tuple[str, ...] = ()
    exception: bytes = b""
    error: HPCError | None = None
    payload: tuple[dict[str, Any], ...] = ()
    has_values: bool = False

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Reply:
        """Read the content of a ``reply`` message."""
        return cls(
            status=content["status"],
            ename=content.get("ename", ""),
            evalue=content.get("evalue", ""),
            traceback=tuple(content.get("traceback", ())),
            exception=base64.b64decode(content.get("exception", "")),
            error=error_from_json(content["error"]) if content.get("error") else None,
            payload=tuple(content.get("payload", ())),
            has_values=bool(content.get("values")),
        )


@dataclass(kw_only=True)
class Running:
    """A cell that was sent, or is about to be.

    Parameters
    ----------
    code : str
    count : int
        The notebook's execution count.
    on_message : callable
        Gets each of its messages but the reply, on the session's loop, also after it has ended.
    out : sequence of str
        Names to bring back.
    allow_stdin : bool
        Whether somebody can answer questions.
    timeout : float or None
        Seconds that it may run.
    page : str
        Which connection of a front end sent it.
    sent : float
        When, by the front end's clock.
    """

    code: str
    count: int
    on_message: Callable[[Message], None]
    out: Sequence[str] = ()
    allow_stdin: bool = False
    timeout: float | None = None
    page: str = ""
    sent: float = 0.0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    reply: concurrent.futures.Future[Reply] = field(default_factory=concurrent.futures.Future)
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def request(self) -> dict[str, Any]:
        """Return the fields that the host wants to know."""
        fields = ("id", "code", "count", "allow_stdin", "timeout", "page", "sent")
        return {**{name: getattr(self, name) for name in fields}, "out": list(self.out)}
