"""How much memory the processes of a node have, and whether the kernel has killed one because there was none left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Gauge"]

EVERY = 2.0
"""Seconds between two looks."""
NEAR = 0.5
"""Share of the limit from which on a peak is written."""
GROWTH = 1.05
CGROUPS = Path("/sys/fs/cgroup")
KILLS = ("memory.events", "memory.oom_control")
"""Where the kernel counts whom it has killed, in the new hierarchy and in the old one."""


class Gauge:
    """Keeps the peak of a node's processes in a file, for whoever looks after the job has been killed.

    Parameters
    ----------
    path : Path
        The file.
    node : str
    limit : int
        Bytes that the node's share of the job may have.

    Attributes
    ----------
    used : int
        Bytes, when it looked last.
    """

    def __init__(self, path: Path, node: str, limit: int) -> None:
        self._path = path
        self._node = node
        self.limit = limit
        self.used = 0
        self._written = 0
        self._next = 0.0
        self._counter = _counter()
        self._killed = self._kills()

    def look(self, children: Mapping[str, int]) -> None:
        """Measure the children, by name, with all that they have started; write what is a new peak near the limit."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY
        sizes = Counter({name: sum(map(_resident, _family(pid))) for name, pid in children.items()})
        self.used = used = sizes.total()
        if used > max(NEAR * self.limit, GROWTH * self._written):
            self._written = used
            self._write(
                {"node": self._node, "used": used, "limit": self.limit, "largest": max(sizes, key=sizes.__getitem__)}
            )

    def _write(self, peak: dict[str, str | int]) -> None:
        aside = self._path.with_suffix(".new")
        # A full disk must not end the node; then there is no peak to tell.
        with contextlib.suppress(OSError):
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(json.dumps(peak) + "\n")
            aside.rename(self._path)

    def has_killed(self) -> bool:
        """Whether the kernel has killed a process of this job for want of memory since the last question."""
        before, self._killed = self._killed, self._kills()
        return self._killed > before

    def _kills(self) -> int:
        with contextlib.suppress(OSError, AttributeError):
            if found := re.search(r"^oom_kill (\d+)", self._counter.read_text(), re.MULTILINE):  # type: ignore[union-attr]
                return int(found[1])
        return 0


def _counter(root: Path = CGROUPS) -> Path | None:
    """The file in which the kernel counts the processes of our cgroup that it has killed."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                for name in KILLS:
                    file = root / controllers / path.strip("/") / name
                    if file.exists():
                        return file
    return None


def _family(pid: int) -> list[int]:
    """A process and all that it has started; `/proc` is asked for these alone, not for all of the node."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0
