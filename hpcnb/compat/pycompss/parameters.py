"""``pycompss.api.parameter``: the directions by their names there, and how those that are written as dictionaries are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hpcnb.tasks import directions

IN = directions.In
OUT = directions.Out
INOUT = directions.InOut
CONCURRENT = directions.Concurrent
COMMUTATIVE = directions.Commutative
IN_DELETE = directions.InDelete

FILE = FILE_IN = directions.FileIn
FILE_OUT = directions.FileOut
FILE_INOUT = directions.FileInOut
FILE_CONCURRENT = directions.FileConcurrent
FILE_COMMUTATIVE = directions.FileCommutative

DIRECTORY = DIRECTORY_IN = directions.DirectoryIn
DIRECTORY_OUT = directions.DirectoryOut
DIRECTORY_INOUT = directions.DirectoryInOut

COLLECTION = COLLECTION_IN = directions.Collection(1, IN)
COLLECTION_IN_DELETE = directions.Collection(1, IN_DELETE)
COLLECTION_INOUT = directions.Collection(1, INOUT)
COLLECTION_OUT = directions.Collection(1, OUT)
COLLECTION_FILE = COLLECTION_FILE_IN = directions.Collection(1, FILE_IN)
COLLECTION_FILE_INOUT = directions.Collection(1, FILE_INOUT)
COLLECTION_FILE_OUT = directions.Collection(1, FILE_OUT)

DICTIONARY = DICTIONARY_IN = directions.Dictionary(1, IN)
DICTIONARY_IN_DELETE = directions.Dictionary(1, IN_DELETE)
DICTIONARY_INOUT = directions.Dictionary(1, INOUT)

# The keys of a parameter that is written as a dictionary.
Type, Direction, Depth, StdIOStream, Prefix = "Type", "Direction", "Depth", "StdIOStream", "Prefix"
# Hints to their runtime, which do not change what a program does.
Weight, Keep_rename, Cache = "Weight", "Keep_rename", "Cache"

STDIN, STDOUT, STDERR = STREAMS = ("stdin", "stdout", "stderr")
FILE_STDIN = FILE_IN_STDIN = {Type: FILE_IN, StdIOStream: STDIN}
FILE_STDOUT = FILE_OUT_STDOUT = {Type: FILE_OUT, StdIOStream: STDOUT}
FILE_STDERR = FILE_OUT_STDERR = {Type: FILE_OUT, StdIOStream: STDERR}
FILE_INOUT_STDOUT = {Type: FILE_INOUT, StdIOStream: STDOUT}
FILE_INOUT_STDERR = {Type: FILE_INOUT, StdIOStream: STDERR}

KEYS = frozenset({Type, Direction, Depth, StdIOStream, Prefix, Weight, Keep_rename, Cache})

__all__ = [name for name in dir() if name[0].isupper() and name not in ("Any", "Mapping", "KEYS", "STREAMS")]


def direction(said: Any, name: str) -> directions.Direction:
    """The direction that a program gives a parameter, by constant or by dictionary.

    Examples
    --------
    >>> direction({Type: COLLECTION_INOUT, Depth: 2}, "c").depth
    2
    >>> direction({Type: FILE, Direction: INOUT}, "f") == FILE_INOUT
    True

    Raises
    ------
    TypeError
        It is neither.
    """
    if isinstance(said, directions.Direction):
        return said
    said = _flat(said, name)
    kind: directions.Direction = said.get(Type, IN)
    access: directions.Direction = said.get(Direction, kind)
    made = replace(kind, access=access.access)
    return replace(made, depth=int(said[Depth])) if Depth in said else made


def mark(said: Any, name: str) -> tuple[str, str]:
    """Which stream of a program a parameter is, and what stands before it in its command line.

    Examples
    --------
    >>> mark({Type: FILE_OUT_STDOUT}, "f"), mark({Type: FILE_IN, Prefix: "--hide="}, "h")
    (('stdout', ''), ('', '--hide='))
    """
    if not isinstance(said, Mapping):
        return "", ""
    flat = _flat(said, name)
    if (stream := flat.get(StdIOStream, "")) not in ("", *STREAMS):
        raise TypeError(f"{name}: {stream!r} is none of STDIN, STDOUT and STDERR")
    return stream, str(flat.get(Prefix, ""))


def _flat(said: Any, name: str) -> dict[str, Any]:
    """A dictionary whose type is none itself."""
    if not isinstance(said, Mapping):
        raise TypeError(f"{name}={said!r} is no parameter of pycompss.api.parameter that is covered here")
    if unknown := [str(key) for key in said if key not in KEYS]:
        raise TypeError(f"{name}: {', '.join(unknown)} is not covered; {', '.join(sorted(KEYS))} are")
    kind = said.get(Type)
    return {
        **(_flat(kind, name) if isinstance(kind, Mapping) else {Type: kind or IN}),
        **{k: v for k, v in said.items() if k != Type},
    }
