"""What was found out about one thing at a site, and whether it will do."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hpcnb.errors import HPCError
from hpcnb.model import Record

__all__ = ["Finding", "Verdict", "failed"]


class Verdict(enum.StrEnum):
    """Whether what was found will do."""

    OK = "ok"
    NOTE = "note"  # it will, and there is something worth knowing
    FAILED = "failed"  # `up` would fail
    SKIPPED = "skipped"  # it could not be looked at, since something before it failed


@dataclass(frozen=True, kw_only=True)
class Finding(Record):
    """One thing that was looked at.

    Parameters
    ----------
    name : str
        Of the thing, in a user's words; empty until whoever asked has entered it.
    verdict : Verdict
    text : str
        What was found, in a sentence with figures.
    evidence : str
        What was seen, verbatim.
    remedy : str
        What to do about it.
    seconds : float
        How long it took to find out, without the time in which the user was asked.
    """

    name: str = ""
    verdict: Verdict
    text: str
    evidence: str = ""
    remedy: str = ""
    seconds: float = 0.0


def failed(error: HPCError, *, site: str) -> Finding:
    """What an error says, as a finding; where it happened is told as far as it is more than this site.

    Examples
    --------
    >>> failed(HPCError("no dask", where="site octopus, /usr/bin/python3"), site="octopus").text
    'no dask (/usr/bin/python3)'
    """
    where = error.where.removeprefix(f"site {site}").removeprefix(", ")
    text = error.what if not where or where in error.what or where == site else f"{error.what} ({where})"
    return Finding(verdict=Verdict.FAILED, text=text, evidence=error.evidence, remedy=error.remedy)
