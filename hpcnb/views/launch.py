"""What was submitted to drain a queue, and why in that shape, as text: pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpcnb.model import ClusterSpec
from hpcnb.queue.shape import SAME, Shape
from hpcnb.units import format_duration
from hpcnb.views.cluster import moment
from hpcnb.views.visible import visible


def launched_text(queue: str, ids: Sequence[str], spec: ClusterSpec, jobs: int, *, default: bool) -> str:
    """One line: what was submitted, and what to type next; `default` says that the queue is at the default site."""
    nodes, workers = spec.resources.nodes, (spec.workers_per_node or 1) * spec.resources.nodes
    names = ", ".join(ids) if len(ids) < 3 else f"{ids[0]} … {ids[-1]}"
    what = f"job {names} drains" if jobs == 1 else f"{_count(jobs, 'job')} ({names}) drain"
    each = _count(workers, "worker") + (f" on {nodes} nodes" if nodes > 1 else "") + (" each" if jobs > 1 else "")
    waits = "" if jobs == len(ids) else f"; at most {len(ids)} wait at a time"
    time = format_duration(spec.resources.walltime)
    site = "" if default else f" --site {spec.site}"
    return f"{what} queue {queue} with {each}, up to {time}{waits}. How far it is: hpcnb queue status {queue}{site}"


def shapes_text(tried: Sequence[Shape], chosen: Shape, core_hours: float, now: float) -> str:
    """The shapes that were tried, the chosen one marked."""
    because = "it starts soonest" if chosen.starts is not None else "the batch system does not say what starts sooner"
    if all(one is chosen or one.refused for one in tried):
        because = "no other shape fits"
    elif _together(tried, chosen):
        because = "of those that start soonest it ends first"
    head = f"{core_hours:g} core-hours in one job: {_count(chosen.nodes, 'node')} of {_count(chosen.cores, 'core')}; {because}."
    rows = [("", "Nodes", "Walltime", "Starts", "Ends")]
    for one in tried:
        begin, end = "?", ""
        if one.starts is not None:
            starts = max(one.starts, now)
            begin, end = ("now" if starts < now + 1 else moment(starts, now)), moment(starts + one.walltime, now)
        cells = (f"refused: {visible(one.refused)}", "") if one.refused else (begin, end)
        rows.append(("→" if one is chosen else "", str(one.nodes), format_duration(one.walltime), *cells))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), *row[3:]]).rstrip() for row in rows]
    return "\n".join([head, *lines])


def _together(tried: Sequence[Shape], chosen: Shape) -> bool:
    others = [one.starts for one in tried if one is not chosen and one.starts is not None]
    return any(starts <= (chosen.starts or 0.0) + SAME for starts in others)


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
