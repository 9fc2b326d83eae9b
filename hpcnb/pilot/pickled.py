"""A value in a file of ours: there whole or not at all, and believed only if its digest is right."""

from __future__ import annotations

import hashlib
import os
import pickle
import secrets
from pathlib import Path
from typing import Any

import cloudpickle
import dask

from hpcnb.errors import CannotSerialize, NotReady

__all__ = ["digest", "home", "make_folder", "read", "write"]

SIZE = hashlib.sha256().digest_size


def home() -> Path:
    """The folder of ours at the site where this worker runs.

    Raises
    ------
    NotReady
        This is no worker of ours.
    """
    if not (found := dask.config.get("hpcnb.home", "")):
        raise NotReady(
            "values are kept at a site, and this is none", remedy="Do this in a task, on a cluster of hpcnb."
        )
    return Path(found)


def make_folder(folder: Path) -> None:
    """Have a folder in `home`, private on each level, whatever the user's umask is."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def write(place: Path, value: Any) -> str:
    """Write a value, private, in the place of what may be there; returns its digest, 64 hexadecimal digits.

    Raises
    ------
    CannotSerialize
        No file can hold it.
    """
    try:
        body = cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as exc:
        raise CannotSerialize(
            f"a {type(value).__qualname__} cannot be written to a file",
            evidence=f"{type(exc).__name__}: {exc}",
            remedy="Keep plain values: arrays, frames, dictionaries, objects of classes that can be pickled.",
        ) from exc
    make_folder(place.parent)
    aside = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    head = hashlib.sha256(body).digest()
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(head)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(place)
    finally:
        aside.unlink(missing_ok=True)
    return head.hex()


def read(place: Path) -> tuple[Any, ...]:
    """The value, in a tuple of one; an empty one where there is none that is whole."""
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        return ()
    body = memoryview(data)[SIZE:]
    if hashlib.sha256(body).digest() != data[:SIZE]:
        return ()
    return (pickle.loads(body),)  # noqa: S301 - the folder is private to the user


def digest(place: Path) -> str:
    """The digest that a file claims for itself; empty: there is none."""
    try:
        with place.open("rb") as file:
            return file.read(SIZE).hex()
    except FileNotFoundError:
        return ""
