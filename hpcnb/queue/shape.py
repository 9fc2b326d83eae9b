"""The shapes that a job of so many core-hours may have, and which one is taken. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpcnb.errors import QueueError
from hpcnb.units import format_duration

SHORTEST = 300
"""Seconds below which a job is not worth its start, if there are shapes that take longer."""
SAME = 60.0
"""Seconds by which two starts may differ and are one."""
_NODES = (*range(1, 9), 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, *(2**power for power in range(7, 15)))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One way to have so many core-hours.

    Parameters
    ----------
    nodes, cores : int
        So many nodes, of so many cores each.
    walltime : int
        Seconds.
    starts : float or None
        When the batch system would start it; None: it does not say, or refuses it.
    refused : str
        What it says against it.
    """

    nodes: int
    cores: int
    walltime: int
    starts: float | None = None
    refused: str = ""


def shapes(core_hours: float, *, nodes: int, cores: int, walltime: int) -> list[Shape]:
    """All shapes to be tried, within so many nodes and so many seconds; the fewest nodes first.

    Raises
    ------
    QueueError
        There are none.

    Examples
    --------
    >>> [(shape.nodes, shape.walltime) for shape in shapes(400, nodes=8, cores=48, walltime=4 * 3600)]
    [(3, 10020), (4, 7500), (5, 6000), (6, 5040), (7, 4320), (8, 3780)]
    """
    counts = sorted({count for count in _NODES if count < nodes} | {nodes})
    # In whole minutes, which is what a batch system has.
    tried = [(count, 60 * math.ceil(core_hours * 60 / (count * cores))) for count in counts]
    if not (fitting := [one for one in tried if one[1] <= walltime]):
        most = f"{nodes} node{'s' * (nodes > 1)} of {cores} core{'s' * (cores > 1)} for {format_duration(walltime)}"
        raise QueueError(
            f"{core_hours:g} core-hours are more than one job can have here: {most} are {nodes * cores * walltime / 3600:g}",
            remedy="Raise nodes= or walltime=; or ask for less: a job is followed by another one while work is left.",
        )
    fitting = [one for one in fitting if one[1] >= SHORTEST] or fitting[:1]
    return [Shape(nodes=count, cores=cores, walltime=seconds) for count, seconds in fitting]


def taken(tried: Sequence[Shape]) -> Shape:
    """The shape that starts soonest, and of those that start at one time the one that ends first.

    Where the batch system says of none when it would start, that is the one of the fewest nodes.

    Raises
    ------
    QueueError
        All were refused.
    """
    if not (possible := [one for one in tried if not one.refused]):
        raise QueueError(
            "the batch system refuses a job of so many core-hours in each shape",
            evidence="\n".join(
                f"{one.nodes} nodes for {format_duration(one.walltime)}: {one.refused}" for one in tried
            ),
            remedy="Ask for less, or for another partition=.",
        )
    known = [(one.starts, one) for one in possible if one.starts is not None]
    if not known:
        return possible[0]
    first = min(starts for starts, _ in known)
    together = [(max(starts, first) + one.walltime, one) for starts, one in known if starts <= first + SAME]
    return min(together, key=lambda pair: pair[0])[1]
