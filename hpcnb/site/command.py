"""A command as a list of words: checked before it runs, named in errors."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Sequence

OUTPUT_LIMIT = 64 << 20
"""Bytes of stdout, and as many of stderr, that a command may write."""

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""What every shell answers for a program that cannot be run, or is not there."""

_LABEL = 200


def words(argv: Sequence[str]) -> list[str]:
    """The words of a command, checked: at least one, and none with a NUL, which no program could receive.

    Raises
    ------
    ValueError
        The command is empty or a word holds a NUL.
    TypeError
        The command is one string, or a word is none.
    """
    if isinstance(argv, str | bytes) or not all(isinstance(word, str) for word in argv):
        raise TypeError(f"a command is a list of strings, not {argv!r}")
    if not argv or not argv[0]:
        raise ValueError("a command needs a program")
    if any("\0" in word for word in argv):
        raise ValueError(f"a NUL in the command {label(argv)!r}")
    return list(argv)


def label(argv: Sequence[str]) -> str:
    """A command as one readable line, cut where it grows long."""
    line = " ".join(shlex.quote(word) for word in argv).replace("\n", "\\n")
    return line if len(line) <= _LABEL else f"{line[:_LABEL]}…"


def slow(argv: Sequence[str], where: str, timeout: float) -> TimeoutError:
    """The error of a command that did not end in time."""
    return TimeoutError(f"the command took longer than {timeout:g} s on {where}: {label(argv)}")


def flood(argv: Sequence[str], where: str) -> OSError:
    """The error of a command that wrote more than `OUTPUT_LIMIT`."""
    what = f"more than {OUTPUT_LIMIT >> 20} MiB of output on {where}: {label(argv)}"
    return OSError(errno.EFBIG, f"{os.strerror(errno.EFBIG)}: {what}")
