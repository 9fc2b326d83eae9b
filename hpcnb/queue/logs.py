"""What an attempt at a task has printed."""

from __future__ import annotations

from typing import Any

from hpcnb.pilot.queue.place import Place

MOST = 1_000_000
"""Bytes of each stream that are shown; the files have all of it."""


def attempt_log(place: Place, attempt: dict[str, Any]) -> str:
    """Its stdout, and then its stderr."""
    pieces = [
        _piece(place, f"{attempt['worker']}.{name}", attempt[f"{name}_from"], attempt[f"{name}_to"])
        for name in ("out", "err")
    ]
    return "".join(pieces)


def _piece(place: Place, name: str, begin: int | None, end: int | None) -> str:
    if not begin and not end:
        return ""
    begin, end = begin or 0, end or 0
    start = max(begin, end - MOST)
    try:
        with open(place / "logs" / name, "rb") as file:
            file.seek(start)
            text = file.read(end - start).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return text if start == begin else f"… {start - begin:,} bytes before this are in {place / 'logs' / name}\n{text}"
