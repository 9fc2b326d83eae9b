"""What was printed, as text and as HTML: pure, from what the site has found."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["runs_text"]


def runs_text(runs: Sequence[Mapping[str, Any]]) -> str:
    """All that a task has printed; its attempts are marked where there are several.

    Examples
    --------
    >>> runs_text([{"worker": "0-node1-0", "host": "node1", "attempt": 1, "time": 0.0, "text": "hello\\n"}])
    'hello\\n'
    """
    if len(runs) == 1 and runs[0]["attempt"] == 1:
        return str(runs[0]["text"])
    return "".join(f"── {_run(run)} ──\n{_ended(run['text'])}" for run in runs)


def _run(run: Mapping[str, Any]) -> str:
    return f"attempt {run['attempt']}, worker {run['worker']} on {run['host']}, {_clock(run['time'])}"


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))
