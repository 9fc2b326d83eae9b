"""Queues and their tasks as text: pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hpcnb.views.visible import visible

COLUMNS = ("Waiting", "Pending", "Running", "Succeeded", "Failed")
HEADER = ("QueueName", "State", *COLUMNS)
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


def _cell(task: Any) -> str:
    text = task if isinstance(task, str) else json.dumps(task)
    text = visible(text[: WIDEST + 1])
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
