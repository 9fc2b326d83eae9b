"""Files and directories as values: read where they are, written again where a task runs or where the program is."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcnb.tasks.directions import Direction, Kind

__all__ = ["Content", "Place", "collected", "published"]

PIECE = 1 << 26
"""Bytes; a file travels in pieces, so that none of the copies on its way needs all of it at once."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file or a directory holds.

    Parameters
    ----------
    kind : Kind
    mode : int, optional
        The file's permissions; by default those of any new file.
    pieces : tuple of bytes
        Of a directory: an archive of it.
    """

    kind: Kind
    mode: int | None = None
    pieces: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, path: str | os.PathLike[str], kind: Kind) -> Content:
        """The content of what lies at a path."""
        if kind is Kind.DIRECTORY:
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for entry in sorted(Path(path).iterdir()):
                    tar.add(entry, arcname=entry.name)
            archive.seek(0)
            return cls(kind=kind, pieces=tuple(_pieces(archive)))
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            return cls(kind=kind, mode=mode, pieces=tuple(_pieces(file)))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Have it at a path, whole or not at all; until it is there, what was there before stays."""
        place = Path(path)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as folder:
            aside, old = Path(folder) / "new", Path(folder) / "old"
            if self.kind is Kind.DIRECTORY:
                aside.mkdir()
                if self.pieces:
                    with tarfile.open(fileobj=io.BytesIO(b"".join(self.pieces))) as tar:
                        tar.extractall(aside, filter="tar")
                if place.is_dir():
                    place.rename(old)
            else:
                with aside.open("wb") as file:  # in a private folder: nobody sees it before it has its own permissions
                    file.writelines(self.pieces)
                if self.mode is not None:
                    aside.chmod(self.mode)
            try:
                aside.rename(place)
            except OSError:
                if old.exists():
                    old.rename(place)
                raise


def _pieces(file: io.BufferedIOBase) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def published(path: str, contents: Sequence[Content]) -> None:
    """Have the content of a file at its own path, where all tasks see it."""
    contents[0].write(path)


def collected(path: str, _: Sequence[None]) -> Content:
    """The content of a file that tasks have written at its own path."""
    return Content.read(path, Kind.FILE)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A path of the main program, beside which its content travels.

    Parameters
    ----------
    path : str
        Absolute.
    """

    path: str

    def content(self, content: Content | None, direction: Direction) -> tuple[bytes, ...] | None:
        """What is in it before the task runs; None where the task makes it."""
        if not direction.reads:
            return None
        return (content or Content.read(self.path, direction.kind)).pieces

    def stage(self, content: Content | None, direction: Direction, folder: Path) -> str:
        """Have it where a task runs; gives the path there.

        Without content it is a path of the site itself, and stays what it is.

        Raises
        ------
        FileNotFoundError
            It is neither in the main program's place nor here.
        """
        if direction.is_shared or (content is None and direction.reads):
            if not Path(self.path).exists():
                raise FileNotFoundError(
                    f"{self.path} does not exist where the task runs: tasks that write a file at the same time need one that all of them see"
                    if direction.is_shared
                    else f"{self.path} exists neither where the program runs nor where the task does, and no task has written it"
                )
            return self.path
        path = folder / Path(self.path).name
        if content is not None:
            content.write(path)
        elif direction.kind is Kind.DIRECTORY:
            path.mkdir()
        return str(path)
