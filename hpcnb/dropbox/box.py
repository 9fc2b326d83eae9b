"""A drop box's directory: which jobs are there, and how each goes on, by renaming alone.

Beside the jobs lies ``.hpcnb/``. ``owner/`` says who sees to the directory (`hpcnb.pilot.queue.lease`). The others hold files that are
complete, on their way to where they are seen, so that a runner that is killed at any moment is followed by one that goes on:
``submitted/NAME`` and ``refused/NAME`` take the place of ``NAME``, and count once that is gone; ``ended/NAME`` takes the place of
``NAME.submitted``, and counts at once: all that the job has made is where it belongs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcnb.dropbox.job import LONGEST, Refused, mapping, text
from hpcnb.dropbox.written import whole
from hpcnb.errors import QueueError
from hpcnb.pilot.queue.lease import Fenced, Lease, Watch
from hpcnb.pilot.queue.place import Place

SETTLED = 1.0
"""Seconds for which a job's file has to be unchanged: others than us may write it in its place."""
UNFIT = 5.0
"""Seconds for which one has to be that makes no sense, since it may only be half written."""

LONGEST_NAME = 255
_SUBMITTED, _FINISHED = ".submitted", ".finished"
_REPLACES = {"submitted": _SUBMITTED, "refused": _FINISHED}


class Box:
    """The directory of a drop box; after `own` it is ours.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._aside = folder / ".hpcnb"
        self._seen: dict[str, tuple[Any, float]] = {}
        self._lease: Lease | None = None

    @classmethod
    def at(cls, folder: Path) -> Box:
        """The drop box in a directory, which is made when it is not there.

        Raises
        ------
        QueueError
            It cannot be one.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.stat().st_mode & stat.S_IWOTH:
                what = f"everybody can write to {folder}, and so have files read and written as you"
                raise QueueError(what, remedy=f"chmod o-w {folder}")
            for name in ("owner", "submitted", "refused", "ended"):
                (folder / ".hpcnb" / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise QueueError(f"cannot write {folder}: {exc.strerror or exc}") from exc
        return cls(folder)

    # -- whose it is ---------------------------------------------------------------------------------------------------

    def watch(self) -> Watch:
        """Somebody who would own it."""
        return Watch(Place(self._aside))

    def own(self, watch: Watch) -> bool:
        """Own it, unless somebody does."""
        after = watch.claimable()
        self._lease = None if after is None else Lease.claim(Place(self._aside), after)
        return self._lease is not None

    def confirm(self) -> None:
        """Raise `Fenced` when somebody else owns it by now: we were stopped for a while."""
        if self._lease is None or not self._lease.current:
            raise Fenced("another runner sees to the drop box")

    def leave(self) -> None:
        """Let go of it."""
        if self._lease:
            with contextlib.suppress(OSError):  # a full disk; our silence says the same
                self._lease.release()
        self._lease = None

    def lose(self) -> None:
        """Somebody else owns it."""
        if self._lease:
            self._lease.drop()
        self._lease = None

    # -- what is there -------------------------------------------------------------------------------------------------

    def jobs(self) -> list[str]:
        """The jobs that are there and not submitted, in order, those that may still be written among them."""
        entries = (entry for entry in os.scandir(self.folder) if entry.name.endswith(".job") and _is_file(entry))
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        self._seen = {name: self._seen[name] for name in names if name in self._seen}
        return names

    def settled(self, name: str, *, unfit: bool = False) -> bool:
        """Whether a job's file will not be written any more, for all we know; longer is waited for one that makes no sense."""
        return self._unchanged(name) >= (UNFIT if unfit else SETTLED)

    def _unchanged(self, name: str) -> float:
        try:
            found = (self.folder / name).stat()
        except FileNotFoundError:
            return 0.0
        mark, now = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns), time.monotonic()
        # Ours alone is the clock: the files' may be another machine's.
        if self._seen.get(name, (None,))[0] != mark:
            self._seen[name] = mark, now
        return now - self._seen[name][1]

    def number(self, name: str) -> str:
        """What tells a job's file from all others, also of the same name."""
        found = (self.folder / name).stat()
        return f"{found.st_ino}-{found.st_ctime_ns // 10**9}.{found.st_ctime_ns % 10**9:09}"

    def read(self, name: str) -> bytes:
        """A job's file; raises `Refused`, and `OSError` for one to which there is no answer."""
        if len(os.fsencode(name + _SUBMITTED)) > LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, f"the name leaves no room for {_SUBMITTED}", name)
        try:
            with open(self.folder / name, "rb") as file:
                return file.read(LONGEST + 1)
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise Refused(f"the file cannot be read: {exc.strerror}") from exc

    def submitted(self) -> dict[str, dict[str, Any]]:
        """The jobs that are submitted, and what their files say; those that make no sense are others' to see to."""
        found = {}
        for entry in os.scandir(self.folder):
            if entry.name.endswith(f".job{_SUBMITTED}") and not entry.name.startswith(".") and _is_file(entry):
                with contextlib.suppress(OSError, Refused):
                    found[entry.name.removesuffix(_SUBMITTED)] = mapping(Path(entry.path).read_bytes())
        return found

    # -- how it goes on ------------------------------------------------------------------------------------------------

    def replace(self, name: str, kind: str, content: dict[str, Any]) -> None:
        """Put a file in the place of ``NAME``: `submitted`, or `refused` for good."""
        self._put(kind, name, content)
        self.confirm()
        (self.folder / name).unlink(missing_ok=True)
        self._show(kind, name, _REPLACES[kind])

    def end(self, name: str, content: dict[str, Any], tidy: Callable[[dict[str, Any]], None]) -> None:
        """Put the file of a finished job in the place of ``NAME.submitted``, after its workspace was seen to."""
        self._put("ended", name, content)
        self._end(name, content, tidy)

    def _end(self, name: str, content: dict[str, Any], tidy: Callable[[dict[str, Any]], None]) -> None:
        self.confirm()
        tidy(content)
        (self.folder / f"{name}{_SUBMITTED}").unlink(missing_ok=True)
        self._show("ended", name, _FINISHED)

    def interrupted(self) -> list[tuple[str, str]]:
        """The jobs that a runner before us could not finish with, each with the kind of its file."""
        return [(name, kind) for kind in (*_REPLACES, "ended") for name in self._names(kind)]

    def recover(self, name: str, kind: str, tidy: Callable[[dict[str, Any]], None]) -> None:
        """Go on with one of them."""
        if kind == "ended":
            self._end(name, mapping((self._aside / kind / name).read_bytes()), tidy)
        elif (self.folder / name).exists():
            (self._aside / kind / name).unlink()  # it is done once more, and leads to the same
        else:
            self._show(kind, name, _REPLACES[kind])

    def _names(self, kind: str) -> list[str]:
        """What is on its way; what was never completed is removed."""
        paths = list((self._aside / kind).iterdir())
        for path in paths:
            if not path.name.endswith(".job"):
                path.unlink()
        return [path.name for path in paths if path.name.endswith(".job")]

    def _put(self, kind: str, name: str, content: dict[str, Any]) -> None:
        with whole(self._aside / kind / name) as file:
            file.write(text(content))

    def _show(self, kind: str, name: str, suffix: str) -> None:
        self.confirm()
        (self._aside / kind / name).rename(self.folder / f"{name}{suffix}")


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()  # and no pipe, on which we would wait
    except OSError:
        return False
