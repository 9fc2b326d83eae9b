"""OpenSSH's host patterns: ``*``, ``?`` and ``!`` in lists."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    # Not fnmatch: to OpenSSH a bracket is a bracket, and `[host]:port` is full of them.
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(char, re.escape(char)) for char in pattern), re.DOTALL)


def fits(name: str, pattern: str) -> bool:
    """Whether one pattern covers a name, case and all."""
    return _compiled(pattern).fullmatch(name) is not None


def any_fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a list covers a name: one pattern does, and none of those with a ``!``."""
    found = False
    for pattern in patterns:
        if pattern.startswith("!"):
            if fits(name, pattern[1:]):
                return False
        elif fits(name, pattern):
            found = True
    return found
