"""Old results by content are removed: those that nobody has used for long, and beyond a size those that were used longest ago."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["SIZE", "sweep", "sweep_now_and_then", "used"]

log = logging.getLogger(__name__)

SIZE = 10 << 30
"""Bytes that results may have together, unless the site's entry says otherwise (``cache-limit``)."""
AGE = 30 * 86400.0
"""Seconds without use after which a result goes."""
PAUSE = 3600.0
"""Seconds between two looks; and for so long a result that was used counts as in use: nobody is in the middle of it afterwards."""
DEAD = 86400.0
"""Seconds after which what has not become a result never will."""


class Kept(NamedTuple):
    """A file in the folder, as its file system tells."""

    used: float
    size: int
    path: Path

    @property
    def is_result(self) -> bool:
        return not self.path.name.startswith(".") and ".claim-" not in self.path.name


def used(place: Path) -> None:
    """Note that a result is used; not each time, since each is a message to the file system."""
    with contextlib.suppress(OSError):  # it may go in this moment, or the folder be read-only
        if abs(time.time() - place.stat().st_mtime) > PAUSE / 4:  # where clocks disagree, each time
            os.utime(place)


def sweep_now_and_then(folder: Path, result: Path, limit: int) -> None:
    """Look through the folder, beside whatever else is to be done, unless somebody has done so within the hour.

    Parameters
    ----------
    folder : Path
    result : Path
        One that was written just now: it tells what time it is where the files are.
    limit : int
        Bytes.
    """
    stamp = folder.with_name(f"{folder.name}.swept")
    with contextlib.suppress(OSError):
        now = result.stat().st_mtime
        if stamp.exists() and now - stamp.stat().st_mtime < PAUSE:
            return
        stamp.touch(mode=0o600)
        threading.Thread(target=sweep, args=(folder, now, limit), name="hpcnb sweep", daemon=True).start()


def sweep(folder: Path, now: float, limit: int) -> list[Path]:
    """Remove what is too old or too much; gives what has gone.

    What was used within the hour stays, whatever the size: somebody may be in the middle of it. A file goes at once and whole.

    Parameters
    ----------
    folder : Path
    now : float
        By the clock of the file system.
    limit : int
        Bytes.
    """
    gone = []
    kept = sorted(_files(folder))
    left = sum(one.size for one in kept if one.is_result)
    for one in kept:
        idle = now - one.used
        over = one.is_result and (idle > AGE or (left > limit and idle > PAUSE))
        if (over or (not one.is_result and idle > DEAD)) and _remove(one):
            gone.append(one.path)
            left -= one.size if one.is_result else 0
    if gone:
        log.info("removed %d old results and remains", len(gone))
    return gone


def _remove(one: Kept) -> bool:
    with contextlib.suppress(OSError):  # another one sweeps as well
        if one.path.stat().st_mtime == one.used:  # nobody has used it since
            one.path.unlink()
            return True
    return False


def _files(folder: Path) -> Iterator[Kept]:
    for group in folder.iterdir():
        with contextlib.suppress(OSError), os.scandir(group) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    seen = entry.stat(follow_symlinks=False)
                    yield Kept(seen.st_mtime, seen.st_size, Path(entry.path))
