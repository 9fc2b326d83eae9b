"""Where a queue lies at its site, and what lies there; nothing in it is ever read half-written.

Layout (0700, files 0600)::

    inbox/      requests, one file each; its owner carries them out in the order of their names
    answers/    what was answered, one file each, until the asker has read it
    owner/      who owns the queue: see `hpcnb.pilot.queue.lease`
    store/      the tasks: one SQLite file, named by the fencing number of its owner
    logs/       what each worker's tasks have printed: NAME.out and NAME.err; NAME.out.now and NAME.err.now of the one that runs, which NAME.now names
    tls/        certificates of the owner and of the workers, once somebody drains the queue
    runs/       a folder for each job that drains it
    counts.json how many tasks there are in each state, as of its owner's last look
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hpcnb.errors import NoSuchQueue, QueueError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
_FOLDERS = ("inbox", "answers", "owner", "store", "logs")


def checked_name(name: object) -> str:
    """A name that can be a queue's, and so part of a path and of a job's name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise QueueError(
            f"{name!a:.80} cannot be a queue's name",
            remedy="Use up to 64 of A-Z a-z 0-9 . _ - and begin with a letter or a digit.",
        )
    return name


def home() -> Path:
    """Our folder at this site: ``$HPCNB_HOME``, else ``~/.hpcnb``."""
    return Path(os.path.expandvars(os.environ.get("HPCNB_HOME") or "~/.hpcnb")).expanduser()


class Place:
    """The folder of one queue.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @classmethod
    def named(cls, name: str, *, root: Path | None = None) -> Place:
        """The place of the queue of that name, whether there is one or not."""
        return cls((root or home()) / "queues" / checked_name(name))

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def exists(self) -> bool:
        return (self / "inbox").is_dir()

    def make(self) -> None:
        """Make the folder, whole or not at all.

        Raises
        ------
        QueueError
            There is such a queue, or no room for one.
        """
        aside = self.path.with_name(f".{self.name}.{secrets.token_hex(4)}")
        with refused(self.path):
            aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in _FOLDERS:
                (aside / folder).mkdir(mode=0o700, parents=True)
            aside.chmod(0o700)
            try:
                aside.rename(self.path)  # onto a queue it fails, since that is not empty
            except OSError:
                for folder in _FOLDERS:
                    (aside / folder).rmdir()
                aside.rmdir()
                if self.path.exists():
                    remedy = f"Use it (`hpc.Queue.connect({self.name!r})`), or another name."
                    raise QueueError(f"there is a queue {self.name!r} already", remedy=remedy) from None
                raise

    def check(self) -> None:
        """Raise `QueueError` unless there is such a queue, and it is ours alone."""
        try:
            found = self.path.stat()
        except OSError:
            found = None
        if found is None or not self.exists:
            remedy = f"Make it: `hpc.Queue.create({self.name!r})`, `hpcnb queue create {self.name}`."
            raise NoSuchQueue(f"there is no queue {self.name!r}", where=str(self.path.parent), remedy=remedy)
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            remedy = f"chmod 700 {self.path}, if it is yours."
            raise QueueError(f"others can write to {self.path}, from which code is run as you", remedy=remedy)


def passes(exc: Exception) -> bool:
    """Whether an error of the system's may be none a little later: there is no room, or the file system is away."""
    return isinstance(exc, OSError) and exc.errno in _PASSING


@contextlib.contextmanager
def refused(path: Path) -> Iterator[None]:
    """Say what the system has refused as our own error."""
    try:
        yield
    except OSError as exc:
        why = exc.strerror or str(exc)
        raise QueueError(
            f"cannot write {path}: {why}", evidence=str(exc), remedy="See to the place; nothing was changed."
        ) from exc


@contextlib.contextmanager
def whole(path: Path, *, sync: bool = True) -> Iterator[IO[str]]:
    """Write a file that nobody sees before it is complete, and on the disk."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if sync:
        synced(path.parent)


def synced(folder: Path) -> None:
    """Bring to the disk what was renamed in a folder."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def written(path: Path, value: Any, *, sync: bool = False) -> None:
    """Write a small JSON file whole."""
    with whole(path, sync=sync) as file:
        json.dump(value, file)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None when it is not there, or a machine that crashed has left it empty: not all are synchronised."""
    # By open and read: on a network file system they see what was renamed elsewhere, stat may not for a while.
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
