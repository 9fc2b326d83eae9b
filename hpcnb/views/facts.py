"""What there is to say of a cluster, a line for each thing, before it becomes text or HTML: pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from hpcnb.model import ClusterStatus, JobState, JobStatus, NodeLoad, State
from hpcnb.site.slurm_pending import cause, place
from hpcnb.units import format_duration
from hpcnb.views.cluster import about, clock, moment
from hpcnb.views.ending import numbered

SCARCE = 0.1
"""The share of the walltime, and of a node's memory, that is worth a warning when no more is left."""

TASKS = {
    "processing": "running",
    "queued": "queued",
    "no-worker": "without a worker that fits",
    "waiting": "waiting for others",
    "memory": "done",
    "erred": "failed",
}
"""Dask's words for the states of tasks, and a user's."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A share of something.

    Parameters
    ----------
    share : float
        From 0 to 1.
    text : str
        What it is a share of.
    warns : bool
    """

    share: float
    text: str
    warns: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing about a cluster.

    Parameters
    ----------
    label : str
    text : str
    bars : tuple of Bar
        Shown before the text.
    warns : bool
    """

    label: str
    text: str = ""
    bars: tuple[Bar, ...] = ()
    warns: bool = False


def title(status: ClusterStatus) -> str:
    """Its name, and where it is."""
    spec = status.spec
    return f"{spec.name} on {spec.site}" if spec.name != spec.site else spec.name


def since(status: ClusterStatus, now: float) -> str:
    """How long it has been in its state, or since when."""
    if not status.changed:
        return ""
    if status.state is State.ENDED:
        return moment(status.changed, now)
    if status.state in (State.READY, State.UNREACHABLE):  # seconds matter to who waits
        return about(now - status.changed)
    return clock(now - status.changed)


def facts(status: ClusterStatus, now: float) -> list[Line]:
    """All that is known of it, in order."""
    lines: list[Line] = []
    if status.detail and not (status.state is State.QUEUED and status.jobs and status.jobs[0].raw):
        lines.append(Line(label="", text=status.detail, warns=bool(status.error)))
    lines += [Line(label=topic, text=text, warns=True) for topic, text in status.notices.items()]
    if status.unknown_since:
        quiet = f"has not answered for {clock(now - status.unknown_since)}; what is shown is older"
        lines.append(Line(label="batch system", text=quiet, warns=True))
    for job in status.jobs:
        lines += _ended(status, job) if status.state is State.ENDED else _job(status, job, now)
    if status.state is not State.ENDED:
        lines += _walltime(status, now)
        lines += map(_node, status.counts.nodes)
        lines += _tasks(status)
        lines += _link(status)
    return [*lines, *_used(status, now)]


def _label(job: JobStatus) -> str:
    return numbered(job.job_id) or "job"


def _where(job: JobStatus) -> str:
    nodes = ", ".join(job.nodes[:4]) + (f" and {len(job.nodes) - 4:,} more nodes" if len(job.nodes) > 4 else "")
    return (f" on {nodes}" if nodes else "") + (f" in {job.partition}" if job.partition else "")


def _ended(status: ClusterStatus, job: JobStatus) -> Iterator[Line]:
    if job.started:
        yield Line(label=_label(job), text=f"ran{_where(job)} for {about(max(0, status.changed - job.started))}")
    elif job.state is not JobState.RUNNING and not job.nodes:
        yield Line(label=_label(job), text="never started")


def _job(status: ClusterStatus, job: JobStatus, now: float) -> Iterator[Line]:
    if job.state is not JobState.PENDING:
        began = f" since {moment(job.started, now)}" if job.started else ""
        yield Line(label=_label(job), text=f"runs{_where(job)}{began}")
        return
    resources = status.spec.resources
    nodes = resources.nodes if job is status.jobs[0] else 1
    wants = f"{nodes} node{'s' * (nodes != 1)} for {format_duration(resources.walltime)}"
    ahead = place(job) or f"waits{_where(job)}"
    yield Line(label=_label(job), text=f"{wants}; {ahead}")
    yield Line(label="waits because", text=cause(job.reason))
    if job.estimated_start:
        yield Line(label="starts", text=f"about {moment(job.estimated_start, now)}{_moved(job, now)}")
    elif job.first_estimate:
        yield Line(label="starts", text=f"no estimate now; the first was {moment(job.first_estimate, now)}")


def _moved(job: JobStatus, now: float) -> str:
    if not job.estimated_start:
        return ""
    wait = f", in {about(job.estimated_start - now)}" if job.estimated_start > now else ""
    by = job.estimated_start - (job.first_estimate or job.estimated_start)
    if abs(by) < 60:
        return wait
    return f"{wait}; {about(abs(by))} {'later' if by > 0 else 'earlier'} than first estimated"


def _walltime(status: ClusterStatus, now: float) -> Iterator[Line]:
    left, whole = status.left(now), status.spec.resources.walltime
    if left is not None and whole:
        share = min(1.0, left / whole)
        text = f"{about(left)} of {format_duration(whole)} left, until {moment(now + left, now)}"
        yield Line(label="walltime", bars=(Bar(share=share, text=text, warns=share <= SCARCE),))


def _node(load: NodeLoad) -> Line:
    cores = f"{load.busy:g} of {load.cores:,} core{'s' * (load.cores != 1)}"
    bars = [Bar(share=min(1.0, load.busy / max(1, load.cores)), text=cores)]
    if load.limit:
        share = min(1.0, load.memory / load.limit)
        bars.append(Bar(share=share, text=memory(load.memory, load.limit), warns=share >= 1 - SCARCE))
    label = load.name or f"{load.nodes:,} more nodes"
    return Line(label=label, bars=tuple(bars), text=f"{load.workers:,} worker{'s' * (load.workers != 1)}")


def memory(used: int, limit: int) -> str:
    """How much of how much, in the unit of the larger: ``3.1 of 16 GiB``."""
    power = min(max(0, (limit.bit_length() - 1) // 10), 5)
    unit = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")[power]
    # Two digits of the whole: less is noise.
    digits = 2 if limit >> 10 * power < 10 else 1 if limit >> 10 * power < 100 else 0
    return f"{used / 1024**power:.{digits}f} of {limit / 1024**power:.3g} {unit}"


def _tasks(status: ClusterStatus) -> Iterator[Line]:
    counts = {word: status.counts.tasks.get(state, 0) for state, word in TASKS.items()}
    if total := sum(counts.values()):
        text = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
        done = counts["done"] + counts["failed"]
        yield Line(label="tasks", bars=(Bar(share=done / total, text=text),), warns=bool(counts["failed"]))


def _link(status: ClusterStatus) -> Iterator[Line]:
    if status.link:
        slow = " (by files: slow)" if status.link == "mailbox" else ""
        yield Line(label="link", text=f"up, {status.link}{slow}")
    elif status.route:
        yield Line(label="link", text=f"cut; it was {status.route}", warns=True)


def _used(status: ClusterStatus, now: float) -> Iterator[Line]:
    if seconds := status.core_seconds(now):
        hours = seconds / 3600
        much = f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "less than 0.1"
        yield Line(label="used", text=f"{much} core-hours")


def as_of(now: float) -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S", time.localtime(now))
