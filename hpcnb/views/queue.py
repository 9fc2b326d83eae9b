"""Queues and their tasks as text: pure."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from hpcnb.units import format_duration
from hpcnb.views.visible import visible

COLUMNS = ("Waiting", "Pending", "Running", "Succeeded", "Failed")
HEADER = ("QueueName", "State", *COLUMNS)
UNLIKELY = 0.05
"""A difference that is more probable than this by chance is not shown."""
WIDEST = 80
"""Characters of a task in a table."""


def queues_text(queues: Sequence[dict[str, Any]]) -> str:
    """A table of queues, as `Queue.status` describes each."""
    rows = [(one["name"], one["state"], *(str(one["ntasks"][state]) for state in COLUMNS)) for one in queues]
    return _table([HEADER, *rows])


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
