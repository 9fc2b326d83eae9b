"""Files that nobody sees before they are whole, with the modes that the user's other files have."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hpcnb.pilot.queue.place import synced


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Write a file aside, in its own directory, and rename it when it is complete and on the disk.

    A file that was there keeps its mode. Whoever shares a drop box may be another user, so a new one has that of the umask.
    """
    aside = path.with_name(f".{secrets.token_hex(8)}")  # not with the name in it, which may be as long as names may be
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    synced(path.parent)
