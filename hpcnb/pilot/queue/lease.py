"""Who owns a queue: a fencing number that is claimed by one link, and believed dead only by its silence.

``owner/`` holds a file for each ownership, ``000000000012``, made by `link`, which succeeds for one of all who try, on
network file systems, too; its owner's heartbeat ``000000000012.beat``; and ``000000000012.free`` once it has let go. The
queue is owned by the highest number. Who finds the heartbeat unchanged for `LAPSE` seconds, by his own monotonic clock,
may claim the next number: no two machines' clocks are ever compared.

An owner that was stopped for longer than that and wakes up cannot be kept from writing by any of this. So the next owner
works on a copy of its file (`hpcnb.pilot.queue.owner`), and whoever owns looks for a higher number *after* each commit and
*before* he tells anybody of it: what is told was committed before the next claim, and so is in the copy.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.place import Place, read_json, written

BEAT = 1.0
LAPSE = 10.0
"""Seconds of silence after which an owner is believed dead."""
_KEPT = 64
"""Claims that are kept: who claims with an older number in mind sees a newer one."""


class Fenced(Exception):
    """Somebody else owns the queue now: what was not told yet must not be told."""


def newest(folder: Path) -> tuple[int, bool]:
    """The highest number that was claimed, and whether it was given back; 0 is nobody's and free."""
    # By listing: names made elsewhere are seen at once so, on network file systems where stat may lag.
    names = {path.name for path in folder.iterdir()}
    number = max((int(name) for name in names if name.isdecimal()), default=0)
    return number, number == 0 or f"{_name(number)}.free" in names


def _name(number: int) -> str:
    return f"{number:012}"


class Watch:
    """Somebody who would own the queue: looks now and then, and says when it may be claimed."""

    def __init__(self, place: Place) -> None:
        self._folder = place / "owner"
        self._seen: tuple[int, Any] = (-1, None)
        self._since = 0.0

    def claimable(self) -> int | None:
        """The number after which to claim; None while the owner is alive, for all we know."""
        number, free = newest(self._folder)
        if free:
            return number
        seen = number, read_json(self._folder / f"{_name(number)}.beat")
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        silent = now - self._since >= LAPSE
        return number if silent or _dead(read_json(self._folder / _name(number)) or {}) else None

    def owner(self) -> dict[str, Any] | None:
        """What the owner says of itself, unless it has let go."""
        number, free = newest(self._folder)
        return None if free else read_json(self._folder / _name(number))


class Lease:
    """The ownership of a queue, from `claim` to `release`."""

    def __init__(self, folder: Path, fence: int) -> None:
        self.fence = fence
        self._folder = folder
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"owner {fence}", daemon=True)

    @classmethod
    def claim(cls, place: Place, after: int, about: dict[str, Any] | None = None) -> Lease | None:
        """Claim the number after `after`; None when somebody else was faster."""
        folder = place / "owner"
        fence = after + 1
        aside = folder / f".claim.{secrets.token_hex(8)}"
        written(aside, {"fence": fence, **_self(), **(about or {})}, sync=True)
        try:
            os.link(aside, folder / _name(fence))
        except FileExistsError:
            return None
        finally:
            aside.unlink()
        lease = cls(folder, fence)
        if not lease.current:  # we had an old number in mind
            return None
        lease._tidy()
        lease._beating.start()
        return lease

    @property
    def current(self) -> bool:
        return newest(self._folder)[0] == self.fence

    @property
    def inherits(self) -> bool:
        """Whether the owner before us has let go."""
        return any(path.name == f"{_name(self.fence - 1)}.free" for path in self._folder.iterdir())

    def confirm(self) -> None:
        """Raise `Fenced` when somebody else has claimed the queue since."""
        if not self.current:
            raise Fenced(f"the owner with number {self.fence} was replaced")

    def _beat(self) -> None:
        count = 0
        # A thread of its own: while a million tasks come in, the owner is alive all the same.
        while not self._over.wait(BEAT):
            count += 1
            # The folder may be full or gone for a while; then we fall silent, which is what the others are to see.
            with contextlib.suppress(OSError):
                written(self._folder / f"{_name(self.fence)}.beat", count)

    def _tidy(self) -> None:
        for path in self._folder.iterdir():
            number = path.name.partition(".")[0]
            if number.isdecimal() and int(number) < self.fence - _KEPT:
                path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Stop beating, without a word: for an owner that was fenced, or cannot write."""
        self._over.set()
        self._beating.join()

    def release(self) -> None:
        """Let go; only with the store closed."""
        self.drop()
        written(self._folder / f"{_name(self.fence)}.free", self.fence, sync=True)


def _self() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "space": _space(), "began": began(os.getpid())}


def _space() -> str:
    """Within which a process id means one process: this boot, this namespace."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError as exc:
        raise QueueError("a queue's owner needs /proc", evidence=str(exc), remedy="Run it on Linux.") from exc


def began(pid: int) -> str:
    """When a process began, in ticks; empty when there is none, or a zombie."""
    try:
        # Behind the name, which may hold anything: state, parent, and so on; the 22nd of all is the start.
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if words[0] in "ZX" else words[19]


def _dead(owner: dict[str, Any]) -> bool:
    """Whether an owner is known to have ended: it was a process of this very machine."""
    return owner.get("space") == _space() and began(owner.get("pid", 0)) != owner.get("began")
