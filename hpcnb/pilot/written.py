"""Files that nobody sees before they are whole, and that nobody else may read."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of ours, in the place of what may be there, so that a crash or a full disk leaves that as it was.

    One process at a time writes it. Whoever reads has the old one or the new one, on whatever file system.
    """
    aside = path.with_name(f".{path.name}.new")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
