"""What was printed, as text and as HTML: pure, from what the site has found."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hpcnb.views.visible import escaped, visible

__all__ = ["LEVELS", "Line", "lines_html", "lines_text", "runs_text"]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
COLOURS = {30: "#b86e00", 40: "#e53935", 50: "#e53935"}
"""Of lines that are at least so serious; each is legible on white as on the black of dark themes."""
_BOX = (
    "font-family: var(--jp-code-font-family, monospace); font-size: var(--jp-code-font-size, 13px); line-height: 1.4; "
    "color: var(--jp-content-font-color1, inherit); white-space: pre-wrap; overflow-wrap: anywhere"
)
_QUIET = "color: var(--jp-ui-font-color2, #616161)"
_COLOURED = re.compile(r"\x1b\[[0-9;]*m")
_UUID = re.compile(r"-([0-9a-f]{6})[0-9a-f]{2}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Line(NamedTuple):
    """A line of a log (see `hpcnb.pilot.output.search.Query.search`)."""

    time: float
    worker: str
    host: str
    key: str
    member: int | None
    attempt: int
    level: int
    text: str

    @property
    def source(self) -> str:
        """Whose it is, in a few words."""
        if not self.key:
            return visible(f"{self.worker} on {self.host}" if self.host else self.worker)
        key = _UUID.sub(r"-\1", self.key)
        member = "" if self.member is None else f"[{self.member}]"
        again = f", attempt {self.attempt}" if self.attempt > 1 else ""
        return visible(f"{key}{member} on {self.host}{again}")

    @property
    def words(self) -> str:
        """What it says, harmless; colours that a terminal would show are left out."""
        return visible(_COLOURED.sub("", self.text).expandtabs())


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


def lines_text(lines: Sequence[Line]) -> str:
    """Lines of one source below its name; of several each with its own.

    Examples
    --------
    >>> print(lines_text([Line(0.0, "job", "", "", None, 0, 0, "hello")]))
    ── job ──
    hello
    """
    sources = {line.source for line in lines}
    if not sources:
        return ""
    if len(sources) == 1:
        return "\n".join([f"── {lines[0].source} ──", *(line.words for line in lines)])
    return "\n".join(f"{_clock(line.time)} {line.source} │ {line.words}" for line in lines)


def lines_html(lines: Sequence[Line]) -> str:
    """The same for a page, coloured by level."""
    return f'<div style="{_BOX}">{"".join(map(_line_html, lines)) or "nothing"}</div>'


def _line_html(line: Line) -> str:
    colour = next((COLOURS[level] for level in sorted(COLOURS, reverse=True) if line.level >= level), "")
    words = escaped(line.words)
    said = f'<span style="color:{colour}">{words}</span>' if colour else words
    return f'<div><span style="{_QUIET}">{_clock(line.time)} {escaped(line.source)} │ </span>{said}</div>'


def _run(run: Mapping[str, Any]) -> str:
    return f"attempt {run['attempt']}, worker {run['worker']} on {run['host']}, {_clock(run['time'])}"


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when)) if when else "--:--:--"
