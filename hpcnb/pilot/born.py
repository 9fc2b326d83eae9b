"""When a process was started, by which its number means that process alone."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["born"]


def born(pid: int) -> float:
    """In seconds since the machine was started; negative: there is no such process.

    psutil's own ``create_time`` adds the machine's start, which is known in whole seconds only, and may move.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()  # the name in it may end in the middle of a letter
    except OSError:
        return -1.0
    return int(stat.rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
