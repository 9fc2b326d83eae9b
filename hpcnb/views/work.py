"""How it stands with a group of calls, as text and as HTML: pure, from one summary."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from hpcnb.pilot.scheduler.counts import Summary
from hpcnb.views.cluster import clock
from hpcnb.views.visible import escaped, visible

__all__ = ["headline", "short", "time_left", "work_html", "work_line", "work_text"]

COLOURS = {
    "done": "#388e3c",
    "cached": "#8bc34a",
    "failed": "#e53935",
    "cancelled": "#9e9e9e",
    "running": "#1a78d6",
    "queued": "var(--jp-border-color2, #e0e0e0)",
    "waiting": "var(--jp-border-color3, #eeeeee)",
}
"""Of the bar's parts, in their order; each is legible on white as on the black of dark themes."""
ALWAYS = ("running", "queued")
"""States that are named while work goes on, though no call is in them."""
WIDTH, HEIGHT = 220, 44
BAR = 20
"""Characters of a terminal's bar."""
SIGNIFICANT = 20
"""Calls that must have ended of late for their rate to be one."""
RECENT = 10.0
DOUBT = 0.8
"""The most by which a range reaches to each side, as a part of its middle."""

_BOX = (
    "font-family: var(--jp-ui-font-family, system-ui, sans-serif); font-size: var(--jp-ui-font-size1, 13px); "
    "line-height: 1.5; color: var(--jp-ui-font-color1, inherit); max-width: 52em; margin: 2px 0 6px"
)
_QUIET = "color: var(--jp-ui-font-color2, #616161)"
_UUID = re.compile(r"-([0-9a-f]{6})[0-9a-f]{2}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


# -- words -------------------------------------------------------------------------------------------------------------


def headline(summary: Summary) -> str:
    """What matters most, in one line.

    Examples
    --------
    >>> headline(Summary(label="fit", age=12, done=3, running=2, queued=5))
    '3 of 10 done, 2 running, 5 queued, 0:12'
    """
    return ", ".join([_done(summary), *(f"{number:,} {state}" for state, number in _states(summary)), *_pace(summary)])


def _done(summary: Summary) -> str:
    if summary.ended and summary.done == summary.total:
        return f"{summary.done:,} done"
    return f"{summary.done:,} of {summary.total:,} done"


def _states(summary: Summary) -> Iterator[tuple[str, int]]:
    """The other states in which calls are."""
    for state in ("cached", "failed", "cancelled", "running", "queued", "waiting", "retried"):
        number = getattr(summary, state)
        if number or (state in ALWAYS and not summary.ended):
            yield state, number


def _pace(summary: Summary) -> Iterator[str]:
    if summary.ended:
        yield f"in {clock(summary.age)}" if summary.age >= 1 else f"in {seconds(summary.age)}"
        return
    if summary.rate * RECENT >= 1:
        yield f"{summary.rate:,.0f} a second" if summary.rate >= 10 else f"{summary.rate:.1f} a second"
    if left := time_left(summary):
        shortest, longest = map(_coarse, left)
        yield f"{shortest} to {longest} left" if shortest != longest else f"about {longest} left"
    else:
        yield clock(summary.age)


def time_left(summary: Summary) -> tuple[float, float] | None:
    """Seconds until all calls have ended, at least and at most; None where too little is known.

    Where many have ended of late, their rate goes on. Else those that run take as long as others took. How far the
    times of calls differ, and how few are known, makes the range.

    Examples
    --------
    >>> [round(seconds) for seconds in time_left(Summary(done=100, queued=90, running=10, rate=5.0, mean=2.0))]
    [14, 26]
    """
    left, ended = summary.left, summary.done + summary.failed
    if not left or ended < 2 or not summary.running or summary.mean <= 0:
        return None
    varies = max(0.1, summary.deviation / summary.mean)
    if (lately := summary.rate * RECENT) >= SIGNIFICANT:
        middle, doubt = left / summary.rate, 2 * math.sqrt(1 / lately + varies**2 / left)
    else:
        middle, doubt = left * summary.mean / summary.running, 2 * varies * math.sqrt(1 / ended + 1 / left)
    doubt = min(DOUBT, doubt)
    return middle * (1 - doubt), middle * (1 + doubt)


def seconds(value: float) -> str:
    """A short time.

    Examples
    --------
    >>> [seconds(value) for value in (0.00042, 0.25, 3.14159, 90)]
    ['0.4 ms', '250 ms', '3.1 s', '1:30']
    """
    if value >= 60:
        return clock(value)
    if value >= 1:
        return f"{value:.1f} s"
    return f"{value * 1e3:.0f} ms" if value >= 0.01 else f"{value * 1e3:.1f} ms"


def _coarse(value: float) -> str:
    unit = 1 if value < 20 else 5 if value < 60 else 10 if value < 600 else 60
    return clock(max(1, round(value / unit) * unit))


def short(name: str) -> str:
    """The name of a task, with the first of what makes it unique."""
    return _UUID.sub(r"-\1", name)


def _at(worker: str) -> str:
    return f" on {worker}" if worker else ""


# -- text --------------------------------------------------------------------------------------------------------------


def work_line(summary: Summary, note: str = "", *, bar: bool = False) -> str:
    """One line.

    Parameters
    ----------
    summary : Summary
    note : str
        What else there is to know.
    bar : bool
        With a bar, for a terminal.
    """
    ended = summary.total - summary.left
    full = BAR * ended // max(1, summary.total)
    drawn = f" [{'━' * full}{' ' * (BAR - full)}]" if bar else ""
    return visible(f"{summary.label}{drawn}: {headline(summary)}" + (f": {note}" if note else ""))


def work_text(summary: Summary, note: str = "") -> str:
    """All of it: a line, one for each of the first that failed, one for the slowest."""
    lines = [work_line(summary, note)]
    lines += [visible(f"  {short(name)} failed{_at(worker)}: {said}") for name, said, worker in summary.errors]
    lines += [
        visible(f"  {short(name)} took {seconds(took)}{_at(worker)}") for name, took, worker in summary.slowest[:1]
    ]
    return "\n".join(lines)


# -- HTML --------------------------------------------------------------------------------------------------------------


def work_html(summary: Summary, note: str = "") -> str:
    """A bar with counts, the rate and the time left, what failed, what was slow, and how long calls take."""
    parts = [_head(summary), _bar(summary), _legend(summary)]
    parts += [f'<div style="{_QUIET}">{escaped(note)}</div>'] if note else []
    parts += [_failures(summary)] if summary.errors else []
    parts += [_times(summary)] if sum(summary.bins) > 1 else []
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def _head(summary: Summary) -> str:
    mark, colour = "●", COLOURS["running"]
    if summary.ended:
        state = next(state for state in ("failed", "cancelled", "done") if getattr(summary, state))
        mark, colour = {"failed": "✗", "cancelled": "○", "done": "✓"}[state], COLOURS[state]
    return (
        '<div style="display: flex; justify-content: space-between; gap: 1em">'
        f'<span><span style="color: {colour}">{mark}</span> <b>{escaped(summary.label)}</b> {_done(summary)}</span> '
        f'<span style="{_QUIET}">{", ".join(_pace(summary))}</span></div>'
    )


def _bar(summary: Summary) -> str:
    numbers = {state: getattr(summary, state) for state in COLOURS}
    numbers["cached"] = min(numbers["cached"], numbers["done"])
    numbers["done"] -= numbers["cached"]
    parts = "".join(
        f'<div style="flex: {number} 0 0; min-width: 2px; background: {COLOURS[state]}"></div>'
        for state, number in numbers.items()
        if number
    )
    shape = "display: flex; height: 6px; border-radius: 3px; overflow: hidden; margin: 3px 0"
    return f'<div style="{shape}; background: {COLOURS["waiting"]}">{parts}</div>'


def _legend(summary: Summary) -> str:
    dots = (
        f'<span style="margin-right: 1em; white-space: nowrap"><span style="color: {COLOURS[state]}">■</span> '
        f"{number:,} {state}</span>"
        if state in COLOURS
        else f'<span style="white-space: nowrap">{number:,} {state}</span>'
        for state, number in [("done", summary.done), *_states(summary)]
    )
    return f'<div style="{_QUIET}; font-size: 0.9em">{" ".join(dots)}</div>'


def _failures(summary: Summary) -> str:
    rows = (
        _row(name, f'<span style="color: {COLOURS["failed"]}">{escaped(said)}</span>', worker)
        for name, said, worker in summary.errors
    )
    more = summary.failed - len(summary.errors)
    title = f"failed, the first {len(summary.errors)} of {summary.failed:,}" if more > 0 else "failed"
    return _table(title, rows)


def _times(summary: Summary) -> str:
    long = [
        (name, took, worker) for name, took, worker in summary.running_longest if took > 2 * summary.mean and took > 1
    ]
    rows = [_row(name, f"runs since {seconds(took)}", worker) for name, took, worker in long[:2]]
    rows += [_row(name, seconds(took), worker) for name, took, worker in summary.slowest[: 3 - len(rows)]]
    return (
        '<div style="display: flex; flex-wrap: wrap; gap: 0 2.5em; margin-top: 4px">'
        f"<div>{_title('run times')}{_histogram(summary.bins)}</div>"
        f"<div>{_table('slowest', rows)}</div></div>"
    )


def _title(text: str) -> str:
    return f'<div style="{_QUIET}; font-size: 0.85em; margin-top: 4px">{text}</div>'


def _table(title: str, rows: Iterable[str]) -> str:
    return f'{_title(title)}<div style="font-size: 0.9em">{"".join(rows)}</div>'


def _row(name: str, what: str, worker: str) -> str:
    shown = f'<span title="{escaped(name)}">{escaped(short(name))}</span>'
    where = f' <span style="{_QUIET}">{escaped(_at(worker))}</span>'
    return f'<div style="overflow-wrap: anywhere">{shown}: {what}{where}</div>'


def _edge(place: int) -> float:
    """Where a bin of run times begins, in seconds."""
    return 2.0 ** (place - 9) if place else 0.0


def _histogram(bins: tuple[int, ...]) -> str:
    there = [place for place, number in enumerate(bins) if number]
    first, last = there[0], there[-1]
    shown, most = range(first, last + 1), max(bins)
    each = min(24.0, WIDTH / len(shown))
    bars = "".join(
        _bar_of(each * (place - first), each, HEIGHT * bins[place] / most, f"{bins[place]:,} took {_between(place)}")
        for place in shown
        if bins[place]
    )
    width = max(90, round(each * len(shown)))
    text = f'font-size="10" y="{HEIGHT + 12}" style="fill: var(--jp-ui-font-color2, #616161)"'
    return (
        f'<svg width="{width}" height="{HEIGHT + 16}" viewBox="0 0 {width} {HEIGHT + 16}" role="img" '
        f'aria-label="histogram of run times">{bars}<text x="0" {text}>{seconds(_edge(first)) if first else "0"}</text>'
        f'<text x="{width}" text-anchor="end" {text}>{seconds(_edge(last + 1))}</text></svg>'
    )


def _bar_of(left: float, width: float, height: float, title: str) -> str:
    high = max(1.0, height)
    return (
        f'<rect x="{left:.1f}" y="{HEIGHT - high:.1f}" width="{width - 1:.1f}" height="{high:.1f}" rx="1" '
        f'style="fill: {COLOURS["running"]}; opacity: 0.75"><title>{title}</title></rect>'
    )


def _between(place: int) -> str:
    return f"{seconds(_edge(place))} to {seconds(_edge(place + 1))}" if place else f"less than {seconds(_edge(1))}"
