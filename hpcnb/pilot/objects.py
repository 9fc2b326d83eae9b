"""Objects that outlive their cluster: each in a file of the site, by name, as ``objects/<name>`` in our folder there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hpcnb.errors import TaskFailed
from hpcnb.pilot import pickled

__all__ = ["NAME", "drop", "fetch", "keep", "names", "version"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""What an object may be called: its name is a file's."""


def keep(value: Any, name: str) -> str:
    """Write an object down, in the place of one of the same name; returns its version."""
    return pickled.write(_place(name), value)


def version(name: str) -> str:
    """The version that there is now; empty: there is none."""
    return pickled.digest(_place(name))


def fetch(name: str, wanted: str) -> Any:
    """An object in the version that was there when it was asked for.

    Raises
    ------
    TaskFailed
        It has gone since, or its file is damaged.
    """
    place = _place(name)
    found = pickled.read(place)
    if not found or pickled.digest(place) != wanted:
        raise TaskFailed(
            f"the object {name!r} is not there any more in the version asked for"
            if found
            else f"there is no whole {name!r}",
            where=str(place),
            remedy="Load it again; if it is damaged, persist it anew.",
        )
    return found[0]


def names() -> dict[str, int]:
    """Every object there: its size in bytes."""
    folder = pickled.home() / "objects"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path.stat().st_size for path in found if NAME.fullmatch(path.name)}


def drop(name: str) -> bool:
    """Remove an object; whether there was one."""
    there = bool(version(name))
    _place(name).unlink(missing_ok=True)
    return there


def _place(name: str) -> Path:
    return pickled.home() / "objects" / name
