"""Queues and their tasks as text, and one queue as HTML: pure."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcnb.units import format_duration
from hpcnb.views.overview import QUIET, STYLE
from hpcnb.views.visible import escaped, visible

if TYPE_CHECKING:
    from hpcnb.queue.task import QueuedTask

COLUMNS = ("Waiting", "Pending", "Running", "Succeeded", "Failed")
UNLIKELY = 0.05
"""A difference that is more probable than this by chance is not shown."""
COLOURS = {
    "Succeeded": "#43a047",
    "Running": "#1976d2",
    "Pending": "#90a4ae",
    "Waiting": "#cfd8dc",
    "Failed": "#e53935",
    "Killed": "#8e24aa",
}
BAR = "height:0.6em;border-radius:0.3em;overflow:hidden;margin:6px 0;background:var(--jp-border-color2,#bdbdbd)"
WIDEST = 80
"""Characters of a task in a table."""


def queues_text(queues: Sequence[dict[str, Any]]) -> str:
    """A table of queues, as `Queue.status` describes each; killed tasks have a column where there are any."""
    states = (*COLUMNS, *["Killed"] * any(one["ntasks"]["Killed"] for one in queues))
    rows = [(one["name"], one["state"], *(str(one["ntasks"][state]) for state in states)) for one in queues]
    return _table([("QueueName", "State", *states), *rows])


def tasks_text(tasks: Sequence[dict[str, Any]]) -> str:
    """A table of tasks, as `QueuedTask.to_json` describes each."""
    rows = [(str(t["id"]), t["state"], str(t["priority"]), str(t["attempts"]), _cell(t["task"])) for t in tasks]
    return _table([("Id", "State", "Priority", "Attempts", "Task"), *rows])


def pace_text(status: dict[str, Any], now: float) -> str:
    """How fast a queue's tasks end, and when the last one will have; empty when that is not known."""
    if not status["rate"]:
        return ""
    rate, left = status["rate"], status["ends_in"]
    each = f"{rate:,.1f} tasks a second" if rate >= 1 else f"{rate * 60:,.1f} tasks a minute"
    end = time.strftime("%H:%M" if left < 86400 else "%a %d %b, %H:%M", time.localtime(now + left))
    return f"{each}; the end in about {format_duration(_rounded(left))}, at {end}" if left else each


def advice_text(status: dict[str, Any]) -> str:
    """What there is to do about a queue in which nothing happens; empty when there is nothing."""
    name, tasks = status["name"], status["ntasks"]
    if tasks["Running"]:
        return ""
    if status["state"] == "Paused":
        return f"It is paused: `hpcnb queue resume {name}` lets it go on."
    if tasks["Pending"] and not status["rate"]:
        return (
            f"`hpcnb queue launch {name} 1` submits a job that carries out what is pending, unless one is on its way."
        )
    for bad, what, again in (("Failed", "has failed", "retry"), ("Killed", "was killed", "revive")):
        if tasks[bad] and not tasks["Pending"]:
            listed = f"`hpcnb queue tasks {name} --state {bad}` lists what {what}"
            return f"{listed}; `hpcnb queue {again} {name}` and `launch` have it carried out again."
    return ""


def attempts_text(piece: dict[str, Any]) -> str:
    """Which of a task's attempts it is whose output is shown, and how the others ended; empty where there is only one."""
    if len(piece["attempts"]) < 2:
        return ""
    return "\n".join(_attempt_text(one, shown=one["number"] == piece["attempt"]) for one in piece["attempts"])


def _attempt_text(attempt: dict[str, Any], *, shown: bool) -> str:
    last = (attempt["error"] or "").strip().rpartition("\n")[2]
    why = f": {visible(last)}" if last else ""
    return f"attempt {attempt['number']}{' (this is its output)' * shown}: {attempt['state']}{why}"


def _rounded(seconds: float) -> float:
    """Seconds as exactly as anybody wants to know them."""
    grain = 1 if seconds < 120 else 60 if seconds < 7200 else 3600
    return max(grain, round(seconds / grain) * grain)


def introspection_text(succeeded: int, failed: int, findings: Sequence[dict[str, Any]], most: int = 10) -> str:
    """A table of the parameters with which failure goes along."""
    said = f"{failed:,} of {failed + succeeded:,} tasks have failed"
    likely = [one for one in findings if one["p"] < UNLIKELY][:most]
    if not likely:
        return f"{said}; no parameter goes along with that"
    rows = [
        (
            f"{one['failed']:,} of {one['tasks']:,}",
            f"{one['other_failed']:,} of {one['other_tasks']:,}",
            f"{one['phi']:.2f}",
            f"{one['p']:.0e}",
            _cell(f"{one['parameter']} {one['value']}"),
        )
        for one in likely
    ]
    return f"{said}\n{_table([('Failed', 'Otherwise', 'Phi', 'Chance', 'Parameter'), *rows])}"


def _cell(task: Any) -> str:
    text = task if isinstance(task, str) else json.dumps(task)
    text = visible(text[: WIDEST + 1])
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def queue_text(status: dict[str, Any], now: float) -> str:
    """One queue: its table, and how fast its tasks end."""
    return "\n".join(filter(None, (queues_text([status]), pace_text(status, now))))


def queue_html(status: dict[str, Any], now: float) -> str:
    """The same as one box of HTML, whole without script or anything else from elsewhere."""
    tasks = status["ntasks"]
    number = max(1, sum(tasks.values()))
    shares = "".join(
        f'<span style="float:left;height:100%;width:{100 * tasks[state] / number:.2f}%;background:{colour}"></span>'
        for state, colour in COLOURS.items()
    )
    counts = " · ".join(
        f'<span style="color:{colour}">■</span> {tasks[state]:,} {state.lower()}'
        for state, colour in COLOURS.items()
        if tasks[state]
    )
    head = f"<b>{escaped(status['name'])}</b> <span style='{QUIET}'>{escaped(status['state'].lower())}</span>"
    pace = f'<div style="{QUIET}">{escaped(said)}</div>' if (said := pace_text(status, now)) else ""
    return f'<div style="{STYLE}">{head}<div style="{BAR}">{shares}</div><div>{counts or "no tasks"}</div>{pace}</div>'


def label(task: QueuedTask) -> str:
    """A task in one line of a list."""
    begun = f" · {task.attempts} attempts" if task.attempts > 1 else ""
    return f"{task.id}{begun} · {_cell(task.task)}"
