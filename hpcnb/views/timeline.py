"""What a cluster and its nodes have done when, as light SVG plots and as text: pure, from statuses and the scheduler's history."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcnb.model import ClusterStatus, JobStatus, State
from hpcnb.views.cluster import clock
from hpcnb.views.visible import escaped, visible
from hpcnb.views.work import seconds

__all__ = ["Timeline", "Wait"]

LEFT, WIDTH, ROW, LANE = 130, 640, 20, 7
NODES = 24
"""Rows of nodes; with more, the last one is what all others do together."""
LANES = 48
"""Rows of tasks."""
LABEL = 2
"""Rows from one worker's name to the next, at least: names are higher than rows."""
TICKS = 5
QUEUE_SHARE = 0.25
"""Of the width, at most, for the wait before the first job has begun: however long that was, the rest can be seen."""
QUEUED, STARTING, BUSY, ENDED = "#bdbdbd", "#90caf9", "#388e3c", "#e53935"
IDLE = "var(--jp-border-color3, #eeeeee)"
PALE = "var(--jp-ui-font-color2, #616161)"
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
OTHERS = "#999999"


@dataclass(frozen=True, kw_only=True)
class Wait:
    """How long a cluster has waited in its queue.

    Parameters
    ----------
    name : str
    since : float
        POSIX time.
    seconds : float
    over : bool
        It waits no more.
    """

    name: str
    since: float
    seconds: float
    over: bool = True

    @classmethod
    def of(cls, status: ClusterStatus, now: float) -> Wait | None:
        """That of a cluster's first job; None: it is not known, or there was none."""
        begun = status.jobs[0].started if status.jobs else None
        waits = status.state in (State.REQUESTED, State.QUEUED)
        if not status.created or (begun is None and not waits):
            return None
        seconds = max(0.0, (begun or now) - status.created)
        return cls(name=status.spec.name, since=status.created, seconds=seconds, over=not waits)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a node has done: moments at which its job was submitted and began, and at which it came and went; its work."""

    name: str
    submitted: float | None = None
    begun: float | None = None
    since: float | None = None
    until: float = 0.0
    cores: int = 0
    busy: Sequence[float] = ()

    def share(self, width: float, end: float) -> float:
        """How much of its cores' time it has worked."""
        there = self.cores * ((self.until or end) - (self.since or end))
        return min(1.0, sum(self.busy) / there) if there > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A picture of a cluster's life; a notebook shows it as plots, `print` as text.

    Parameters
    ----------
    status : ClusterStatus
    now : float
        POSIX time of all that is in it.
    history : mapping
        What the scheduler remembers (`hpcnb.pilot.scheduler.history.History.tell`); empty: it could not be asked.
    waits : sequence of Wait
        In the queue of the same site, of late; the youngest is the last.
    """

    status: ClusterStatus
    now: float
    history: Mapping[str, Any] = field(default_factory=dict)
    waits: Sequence[Wait] = ()

    # -- what it shows -------------------------------------------------------------------------------------------------

    @property
    def end(self) -> float:
        """When it ended, or now."""
        return self.status.changed if self.status.state is State.ENDED and self.status.changed else self.now

    @property
    def begin(self) -> float:
        """When it was asked for."""
        known = [self.status.created, *(row.since for row in self._nodes() if row.since)]
        return min((moment for moment in known if moment), default=self.end - 1)

    def rows(self) -> list[Row]:
        """A row for each node and each job without one; nodes beyond `NODES` share one."""
        found = [*self._nodes(), *self._waiting()]
        if len(found) <= NODES:
            return found
        return [*found[: NODES - 1], self._sum(found[NODES - 1 :])]

    def _nodes(self) -> Iterator[Row]:
        jobs = {node: job for job in reversed(self.status.jobs) for node in job.nodes}
        jobs |= {"": self.status.jobs[0]} if len(self.status.jobs) == 1 else {}
        for node in self.history.get("nodes", ()):
            job = jobs.get(node["name"]) or jobs.get("")
            submitted, begun = self._moments(job)
            yield Row(
                name=node["name"],
                submitted=submitted,
                begun=begun,
                since=node["since"],
                until=node["until"],
                cores=node["cores"],
                busy=node["busy"],
            )

    def _waiting(self) -> Iterator[Row]:
        seen = {node["name"] for node in self.history.get("nodes", ())}
        for job in self.status.jobs:
            if not seen or not (set(job.nodes) & seen or len(self.status.jobs) == 1):
                submitted, begun = self._moments(job)
                name = f"job {job.job_id}" if len(job.job_id) < 32 else "job"
                yield Row(name=", ".join(job.nodes[:2]) or name, submitted=submitted, begun=begun)

    def _moments(self, job: JobStatus | None) -> tuple[float | None, float | None]:
        if job is None:
            return None, None
        submitted = job.submitted or (self.status.created if job is self.status.jobs[0] else None)
        return submitted, job.started

    def _sum(self, rows: Sequence[Row]) -> Row:
        longest = max(len(row.busy) for row in rows)
        busy = [sum(row.busy[place] for row in rows if place < len(row.busy)) for place in range(longest)]
        since = min((row.since for row in rows if row.since), default=None)
        return Row(
            name=f"{len(rows)} more",
            since=since,
            until=0.0 if any(not row.until for row in rows) else max(row.until for row in rows),
            cores=sum(row.cores for row in rows),
            busy=busy,
        )

    # -- as text -------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        lines = [
            f"{self.status.spec.name} on {self.status.spec.site}: {self.status.state} after {clock(self.end - self.begin)}"
        ]
        lines += [f"  {row.name}: {', '.join(self._facts(row))}" for row in self.rows()]
        if number := self.history.get("number"):
            lines.append("1 task has ended" if number == 1 else f"{number:,} tasks have ended")
        if self.waits:
            told = (f"{clock(wait.seconds)}{'' if wait.over else ' so far'}" for wait in self.waits)
            lines.append(f"waits in the queue of {self.status.spec.site}: {', '.join(told)}")
        return "\n".join(map(visible, lines))

    def _facts(self, row: Row) -> Iterator[str]:
        if row.submitted and (row.begun or row.since):
            yield f"queued {clock((row.begun or row.since or 0) - row.submitted)}"
        elif row.submitted:
            yield f"queued since {clock(self.end - row.submitted)}"
        if row.begun and row.since:
            yield f"starting {clock(row.since - row.begun)}"
        if row.since:
            yield f"there {clock((row.until or self.end) - row.since)}"
            yield f"busy {row.share(self.history['width'], self.end):.0%} of {row.cores} core{'s' * (row.cores != 1)}"

    # -- as pictures ---------------------------------------------------------------------------------------------------

    def _repr_svg_(self) -> str:
        axis = Axis(self.begin, max(self.end, self.begin + 1), self._first_begun())
        parts: list[str] = []
        y = self._allocation(parts, axis)
        if self.history.get("tasks"):
            y = self._stream(parts, axis, y + 16)
        if self.waits:
            y = self._queue(parts, y + 16)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 10} {y}" width="{LEFT + WIDTH + 10}" '
            f'height="{y}" font-size="11" font-family="system-ui, sans-serif" style="max-width: 100%; height: auto">'
            f"{''.join(parts)}</svg>"
        )

    def _repr_html_(self) -> str:
        return f"<div>{self._repr_svg_()}</div>"

    def _first_begun(self) -> float | None:
        begun = [row.begun or row.since for row in self.rows() if row.begun or row.since]
        return min((moment for moment in begun if moment), default=None)

    def _allocation(self, parts: list[str], axis: Axis) -> int:
        y = _title(parts, 0, f"{self.status.spec.name} on {self.status.spec.site}: nodes")
        x = LEFT + WIDTH
        for text, colour in reversed((("queued", QUEUED), ("starting", STARTING), ("idle", IDLE), ("busy", BUSY))):
            x -= 6 * len(text) + 26
            parts.append(_box(x, 3, 9, 9, colour) + _text(x + 13, 11, text))
        for row in self.rows():
            parts.append(_text(LEFT - 6, y + 13, _clipped(row.name), anchor="end", title=row.name))
            parts.extend(self._segments(row, axis, y + 3))
            y += ROW
        return axis.draw(parts, y)

    def _segments(self, row: Row, axis: Axis, y: int) -> Iterator[str]:
        high, end = ROW - 5, row.until or self.end
        begun = row.begun or row.since
        if row.submitted:
            wait = (begun or end) - row.submitted
            yield axis.box(row.submitted, begun or end, y, high, QUEUED, f"queued {clock(wait)}")
        if row.begun:
            yield axis.box(
                row.begun, row.since or end, y, high, STARTING, f"starting {clock((row.since or end) - row.begun)}"
            )
        if row.since:
            share = f"busy {row.share(self.history['width'], self.end):.0%} of {row.cores} cores"
            yield axis.box(row.since, end, y, high, IDLE, share)
            yield self._work(row, axis, y, high)

    def _work(self, row: Row, axis: Axis, y: int, high: int) -> str:
        width, begun = self.history["width"], self.history["begun"]
        steps, last = [f"M{axis.x(begun):.1f} {y + high}"], -1.0
        for place, busy in enumerate(row.busy):
            share = round(high * min(1.0, busy / (width * max(1, row.cores))), 1)
            if share != last:
                steps.append(f"H{axis.x(begun + place * width):.1f}V{y + high - share:g}")
                last = share
        steps.append(f"H{min(axis.x(begun + len(row.busy) * width), axis.x(row.until or self.end)):.1f}V{y + high}Z")
        return f'<path d="{"".join(steps)}" fill="{BUSY}"/>'

    def _stream(self, parts: list[str], axis: Axis, y: int) -> int:
        tasks, shortest = self.history["tasks"], self.history["shortest"]
        left_out = f", those that took {seconds(shortest)} or more" if shortest else ""
        y = _title(parts, y, f"tasks{left_out}")
        colours = _coloured(name for _, _, _, name, _ in tasks)
        x = LEFT + WIDTH
        for name in reversed([name for name, colour in colours.items() if colour != OTHERS]):
            x -= 6 * len(_clipped(name)) + 22
            parts.append(_box(x, y - 13, 9, 9, colours[name]) + _text(x + 13, y - 5, _clipped(name), title=name))
        paths: dict[str, list[str]] = {}
        lanes = Lanes(slack=axis.slack)
        for worker, start, stop, name, failed in sorted(tasks, key=lambda task: (task[0], task[1])):
            lane = lanes.of(worker, start, stop or self.end)
            if lane < LANES:
                drawn = axis.path(start, stop or self.end, y + LANE * lane, LANE - 1)
                paths.setdefault(ENDED if failed else colours[name], []).append(drawn)
        labelled = -LABEL
        for worker, lane in lanes.first.items():
            if lane < LANES and lane >= labelled + LABEL:
                labelled = lane
                parts.append(_text(LEFT - 6, y + LANE * lane + LANE, _clipped(worker), anchor="end", size=8))
        parts.extend(f'<path d="{"".join(drawn)}" fill="{colour}"/>' for colour, drawn in paths.items())
        return axis.draw(parts, y + LANE * min(LANES, lanes.number) + 2)

    def _queue(self, parts: list[str], y: int) -> int:
        y = _title(parts, y, f"waits in the queue of {self.status.spec.site}")
        longest = max(1.0, *(wait.seconds for wait in self.waits))
        for wait in self.waits:
            when = time.strftime("%d %b %H:%M", time.localtime(wait.since))
            wide = max(1.0, 0.6 * WIDTH * wait.seconds / longest)
            parts.append(_text(LEFT - 6, y + 10, when, anchor="end"))
            parts.append(_box(LEFT, y + 2, wide, 9, QUEUED if wait.over else STARTING))
            said = f"{clock(wait.seconds)}{'' if wait.over else ' so far'}  {_clipped(wait.name)}"
            parts.append(_text(LEFT + wide + 6, y + 10, said))
            y += 14
        return y + 6


class Axis:
    """Where moments lie from left to right; a long wait at the beginning is shortened.

    Parameters
    ----------
    begin, end : float
    split : float, optional
        The end of that wait.
    """

    def __init__(self, begin: float, end: float, split: float | None) -> None:
        self._begin, self._end = begin, end
        long = split is not None and split - begin > QUEUE_SHARE * (end - begin) and split < end
        self._split = split if long and split is not None else begin
        self._queue = QUEUE_SHARE * WIDTH if long else 0.0
        self.slack = 2 * (end - self._split) / (WIDTH - self._queue)

    def x(self, moment: float) -> float:
        """The place of a moment."""
        moment = min(max(moment, self._begin), self._end)
        if moment < self._split:
            return LEFT + self._queue * (moment - self._begin) / (self._split - self._begin)
        return LEFT + self._queue + (WIDTH - self._queue) * (moment - self._split) / max(1e-9, self._end - self._split)

    def box(self, start: float, stop: float, y: float, high: float, colour: str, title: str) -> str:
        """A rectangle from one moment to another."""
        x = self.x(start)
        return _box(x, y, max(0.5, self.x(stop) - x), high, colour, title)

    def path(self, start: float, stop: float, y: float, high: float) -> str:
        """The same as a piece of a path."""
        x = self.x(start)
        wide = max(0.6, self.x(stop) - x - 0.3)
        return f"M{x:.1f} {y}h{wide:.1f}v{high}h-{wide:.1f}z"

    def draw(self, parts: list[str], y: int) -> int:
        """Put the times below a plot; where the next one may begin."""
        for place in range(TICKS):
            moment = self._split + (self._end - self._split) * place / (TICKS - 1)
            x = self.x(moment)
            anchor = "start" if place == 0 else "end" if place == TICKS - 1 else "middle"
            parts.append(f'<path d="M{x:.1f} {y}v4" style="stroke: {PALE}"/>')
            parts.append(_text(x, y + 15, time.strftime("%H:%M:%S", time.localtime(moment)), anchor=anchor))
        if self._queue:
            parts.append(_text(LEFT, y + 15, time.strftime("%H:%M", time.localtime(self._begin))))
        return y + 20


class Lanes:
    """Rows for tasks, so that none lies upon another: as many for each worker as it runs at once.

    Parameters
    ----------
    slack : float
        Seconds by which one may begin before the end of another: clocks are not that good, and nobody sees it.
    """

    def __init__(self, slack: float = 0.0) -> None:
        self.number = 0
        self._slack = slack
        self.first: dict[str, int] = {}
        self._free: list[tuple[str, float]] = []

    def of(self, worker: str, start: float, stop: float) -> int:
        """The row of a task; those of one worker come one after the other, by their beginning."""
        self.first.setdefault(worker, self.number)
        for lane in range(self.first[worker], self.number):
            if self._free[lane][1] <= start + self._slack:
                self._free[lane] = (worker, stop)
                return lane
        self._free.append((worker, stop))
        self.number += 1
        return self.number - 1


def _coloured(names: Iterable[str]) -> dict[str, str]:
    """A colour for each of the most frequent names; the others share one."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return {name: COLOURS[place] if place < len(COLOURS) else OTHERS for place, name in enumerate(ranked)}


def _clipped(text: str, most: int = 18) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _title(parts: list[str], y: int, text: str) -> int:
    parts.append(f'<text x="0" y="{y + 11}" style="fill: {PALE}" font-weight="600">{escaped(text)}</text>')
    return y + 18


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 0, title: str = "") -> str:
    sized = f' font-size="{size}"' if size else ""
    told = f"<title>{escaped(title)}</title>" if title and title != text else ""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}"{sized} style="fill: {PALE}">{escaped(text)}{told}</text>'


def _box(x: float, y: float, wide: float, high: float, colour: str, title: str = "") -> str:
    told = f"<title>{escaped(title)}</title>" if title else ""
    return f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{high}" style="fill: {colour}">{told}</rect>'
