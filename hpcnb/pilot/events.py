"""What the processes on the nodes tell the pilot: JSON, a line each, on the stdout they inherited.

Under Slurm that stdout is carried by `srun`, so that a node needs no connection of its own to say something.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Iterable
from typing import Any

from hpcnb.model import Record

LONGEST = select.PIPE_BUF
"""Bytes of one line: what a pipe takes in one piece, so that lines of two processes never mix."""

_descriptor: int | None = None


def take_stdout() -> None:
    """Keep stdout for events alone, and let everything else that is printed go to stderr."""
    global _descriptor
    _descriptor = os.dup(1)
    os.set_inheritable(_descriptor, False)
    os.dup2(2, 1)


def fall_silent() -> None:
    """Give up the way to the pilot: what the user's tasks leave behind must not keep it open."""
    global _descriptor
    if _descriptor is not None:
        os.close(_descriptor)
        _descriptor = None


def emit(event: str, **fields: Any) -> None:
    """Tell the pilot something.

    Parameters
    ----------
    event : str
        ``scheduler``, ``load``, ``session``, ``worker-exit`` or ``failed``.
    **fields
        Plain values. A ``tail`` is cut from the front until the line fits.
    """
    if _descriptor is None:
        return
    line = _encode(event, fields)
    while len(line) > LONGEST and fields.get("tail"):
        fields["tail"] = fields["tail"][max(1, len(line) - LONGEST) :]
        line = _encode(event, fields)
    os.write(_descriptor, line)


def _encode(event: str, fields: dict[str, Any]) -> bytes:
    return json.dumps({"event": event, **fields}).encode() + b"\n"


def news(event: str, look: Callable[[], Iterable[Record]]) -> Callable[[], None]:
    """A function that emits the records which `look` gives, unless they are those that it has emitted last."""
    told: list[dict[str, Any]] = []

    def publish() -> None:
        nonlocal told
        found = [one.to_json() for one in look()]
        if found != told:
            told = found
            emit(event, **{event: found})

    return publish
