"""Durations and amounts of memory, as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from hpcnb.errors import ConfigError

__all__ = ["format_duration", "format_memory", "parse_duration", "parse_memory", "shown"]

_DURATION_HELP = "Write 90s, 15m, 1h30m, 2d, or as Slurm does 00:30:00, 2-00:00:00; a bare number is seconds."
_MEMORY_HELP = "Write a number and its unit: 500MB, 16GiB (kB, MB, GB, TB: of 1000; KiB, MiB, GiB, TiB: of 1024)."

_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_DURATIONS = [
    re.compile(rf"()()()({_NUMBER})"),
    re.compile(rf"(?:({_NUMBER})d)? ?(?:({_NUMBER})h)? ?(?:({_NUMBER})m)? ?(?:({_NUMBER})s)?"),
    re.compile(r"()(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,2})"),
    re.compile(r"([0-9]{1,9})-([0-9]{1,2})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?"),
]
_MEMORY = re.compile(rf"({_NUMBER}) ?([a-z]+)")
_BYTES: dict[str, int] = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", start=1)},
}


def parse_duration(value: str | float) -> int:
    """Return the seconds of a duration, rounded up.

    Parameters
    ----------
    value : str or number
        ``90s``, ``15m``, ``1h30m``, ``2d``; Slurm's ``MM:SS``, ``HH:MM:SS``, ``D-HH[:MM[:SS]]``; a bare
        number is seconds.

    Examples
    --------
    >>> parse_duration("1h30m"), parse_duration("2-00:00:00"), parse_duration(90)
    (5400, 172800, 90)
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return math.ceil(value)
    text = value.strip().lower() if isinstance(value, str) else ""
    for pattern in _DURATIONS:
        if text and (found := pattern.fullmatch(text)):
            return _seconds(found.groups())
    raise ConfigError(f"{shown(value)} is not a duration", remedy=_DURATION_HELP)


def _seconds(parts: Iterable[str | None]) -> int:
    return math.ceil(sum(float(part or 0) * size for part, size in zip(parts, (86400, 3600, 60, 1), strict=True)))


def format_duration(seconds: float) -> str:
    """Return a duration in words that `parse_duration` reads back.

    Examples
    --------
    >>> format_duration(5400), format_duration(172800), format_duration(0)
    ('1h30m', '2d', '0s')
    """
    rest, words = max(0, round(seconds)), ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        words += f"{count}{unit}" if count else ""
    return words or "0s"


def format_memory(size: float) -> str:
    """Return an amount of memory in MiB, or GiB where it is one or more.

    Examples
    --------
    >>> format_memory(9.8 * 2**30), format_memory(8 * 2**30), format_memory(300 * 2**20)
    ('9.8 GiB', '8 GiB', '300 MiB')
    """
    amount, unit = (size / 2**30, "GiB") if size >= 2**30 else (size / 2**20, "MiB")
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"


def parse_memory(value: str) -> int:
    """Return the bytes of an amount of memory; its unit is required.

    ``16G`` is refused on purpose: Slurm reads it as 16 GiB, Dask as 16 GB.

    Examples
    --------
    >>> parse_memory("16GiB"), parse_memory("1.5 MB")
    (17179869184, 1500000)
    """
    found = _MEMORY.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if found is None or found[2] not in _BYTES:
        raise ConfigError(f"{shown(value)} is not an amount of memory", remedy=_MEMORY_HELP)
    return math.ceil(float(found[1]) * _BYTES[found[2]])


def shown(value: object) -> str:
    """Return a value as a message quotes it: its repr, cut."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
