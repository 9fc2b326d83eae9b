"""A cluster's status as a line of text and as compact HTML: pure, from one snapshot and the time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

from hpcnb.model import ClusterStatus, State
from hpcnb.units import format_duration
from hpcnb.views.visible import visible

MARKS = {
    State.REQUESTED: "◌",
    State.QUEUED: "◔",
    State.STARTING: "◑",
    State.READY: "●",
    State.UNREACHABLE: "◍",
    State.DRAINING: "◒",
    State.ENDED: "○",
}

# Each is legible on white as on the black of dark themes.
COLOURS = {
    State.READY: "#388e3c",
    State.UNREACHABLE: "#b86e00",
    State.ENDED: "#787878",
}
WAITING = "#1a78d6"
FAILED = "#e53935"


def status_line(status: ClusterStatus, now: float) -> str:
    """One line: name, state and since when, and what is being waited for or what there is.

    Examples
    --------
    ``fit on octopus: queued 0:14, job 117, starts about 14:05: 2 ahead in debug; jobs with a higher priority go first (Priority)``
    """
    spec = status.spec
    head = f"{spec.name} on {spec.site}" if spec.name != spec.site else spec.name
    return visible(f"{head}: {_facts(status, now)}")


def _facts(status: ClusterStatus, now: float) -> str:
    waits = status.state in (State.REQUESTED, State.QUEUED, State.STARTING)
    facts = [f"{status.state} {clock(now - status.changed)}" if waits and status.changed else str(status.state)]
    job = status.jobs[0] if status.jobs else None
    if job and status.state is not State.ENDED and len(job.job_id) < 32:
        facts.append(f"job {job.job_id}")
    if job and status.state is State.QUEUED and job.estimated_start:
        facts.append(f"starts about {moment(job.estimated_start, now)}")
    if status.state in (State.READY, State.UNREACHABLE):
        facts += _loads(status, now)
    detail = status.detail
    if status.unknown_since:
        detail = f"the batch system has not answered for {clock(now - status.unknown_since)}"
    return "; ".join([", ".join(facts) + (f": {detail}" if detail else ""), *status.notices.values()])


def _loads(status: ClusterStatus, now: float) -> list[str]:
    counts = status.counts
    facts = [f"{_workers(status)}, {counts.cores} core{'s' * (counts.cores != 1)}"]
    busy = {k: n for k, n in counts.tasks.items() if n and k in ("processing", "queued", "waiting", "erred")}
    facts += [f"tasks: {', '.join(f'{n:,} {k}' for k, n in busy.items())}"] if busy else []
    facts += [f"{about(left)} left"] if (left := status.left(now)) else []
    facts += [_link(status)] if status.link or status.route else []
    return facts


def _link(status: ClusterStatus) -> str:
    if not status.link:
        return f"link was {status.route}"
    return f"link {status.link}" + (" (by files: slow)" if status.link == "mailbox" else "")


def _workers(status: ClusterStatus) -> str:
    """How many there are, and of how many, until all are there."""
    number, wanted = status.counts.workers, workers_wanted(status)
    if number < wanted and wanted > 1:
        return f"{number} of {'' if status.spec.workers_per_node else 'at least '}{wanted} workers"
    return f"{number} worker{'s' * (number != 1)}"


def workers_wanted(status: ClusterStatus) -> int:
    """How many workers there are when all have started; at least, where their number is the site's choice."""
    # Each further job adds one node.
    return (status.spec.resources.nodes + max(0, len(status.jobs) - 1)) * (status.spec.workers_per_node or 1)


def moment(then: float, now: float) -> str:
    """The time of day, with the date where it is not today's."""
    day, today = time.localtime(then), time.localtime(now)
    return time.strftime("%H:%M" if day[:3] == today[:3] else "%a %d %b %H:%M", day)


def about(seconds: float) -> str:
    """A duration without what is too small to matter."""
    unit = 3600 if seconds >= 86400 else 60 if seconds >= 60 else 1
    return format_duration(seconds // unit * unit)


def clock(seconds: float) -> str:
    """``0:14``, ``1:02:03``."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def mark(status: ClusterStatus) -> str:
    """One character for its state."""
    return "✗" if status.error else MARKS[status.state]


def status_html(status: ClusterStatus, now: float) -> str:
    """The same as `status_line`, with a mark in the colour of the state."""
    colour = FAILED if status.error else COLOURS.get(status.state, WAITING)
    head, _, rest = status_line(status, now).partition(": ")
    coloured = f'<span style="color:{colour}">{mark(status)}</span>'
    return f'<div style="font-size:0.9em">{coloured} <b>{escape(head)}</b> {escape(rest)}</div>'


def table_text(statuses: Sequence[ClusterStatus], now: float) -> str:
    """All clusters, a line each."""
    return "\n".join(f"{mark(status)} {status_line(status, now)}" for status in statuses)


def sites_text(sites: Sequence[dict[str, Any]]) -> str:
    """The configured sites, a line each, the default marked."""
    return "\n".join(
        f"{'*' if site['default'] else ' '} {site['name']}: {site['batch']} on {site['host'] or 'this machine'}"
        for site in sites
    )
