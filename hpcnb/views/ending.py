"""How a cluster, and what belonged to it, died: as text and as HTML, pure, from one snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from hpcnb.model import ClusterStatus, Ending, Reason
from hpcnb.views.visible import visible

LINES = 12
"""Of the log that are shown."""

__all__ = ["deaths_html", "deaths_text", "facts", "numbered"]


def deaths_text(status: ClusterStatus) -> str:
    """What was lost, and how the cluster ended: of each the cause, the place, the end of the log, and what to do.

    Examples
    --------
    ::

        ✗ out of memory: the batch job used more memory than it had asked for: 9.8 of 8 GiB on n1 (job 117, node n1, signal 9)
          | MemoryError
        → Ask for 12 GiB (--memory-per-node 12GiB): the peak was 9.8 of 8 GiB.
    """
    return "\n".join(_text(ending) for ending in _deaths(status))


def deaths_html(status: ClusterStatus) -> str:
    """The same."""
    return "".join(_html(ending) for ending in _deaths(status))


def _deaths(status: ClusterStatus) -> Iterator[Ending]:
    yield from status.losses
    if status.ending and status.ending.reason is not Reason.COMPLETED:
        yield status.ending


def numbered(job_id: str) -> str:
    """``job 117``; empty for the name of a job on a machine without a batch system, which says nothing to anybody."""
    return f"job {job_id}" if 0 < len(job_id) < 32 else ""


def facts(ending: Ending) -> str:
    """``job 117, node n1, signal 9``."""
    found = [number] if (number := numbered(ending.job_id)) else []
    found += [f"node {ending.node}"] if ending.node else []
    found += [f"signal {ending.signal}"] if ending.signal else []
    found += [f"exit status {ending.exit_code}"] if ending.exit_code else []
    return ", ".join(found)


def _parts(ending: Ending) -> tuple[str, str, str, str]:
    place = facts(ending)
    head = ending.reason.replace("_", " ")
    tail = ending.tail.splitlines()[-LINES:]
    return (
        head,
        _line(ending.message) + (f" ({_line(place)})" if place else ""),
        "\n".join(map(_line, tail)),
        ending.suggestion,
    )


def _line(text: str) -> str:
    return visible(text.replace("\t", " "))


def _text(ending: Ending) -> str:
    head, sentence, tail, suggestion = _parts(ending)
    lines = [f"✗ {head}: {sentence}", *(f"  | {line}" for line in tail.splitlines())]
    return "\n".join([*lines, f"→ {_line(suggestion)}"] if suggestion else lines)


def _html(ending: Ending) -> str:
    head, sentence, tail, suggestion = map(escape, _parts(ending))
    log = (
        '<pre style="margin:2px 0 2px 1.4em;padding:2px 6px;white-space:pre-wrap;'
        f'border-left:3px solid var(--jp-border-color2,#bdbdbd)">{tail}</pre>'
    )
    return (
        '<div style="font-size:0.9em">'
        f'<span style="color:var(--jp-error-color1,#e53935)">✗</span> <b>{head}</b>: {sentence}'
        f"{log if tail else ''}{f'<div>→ {_line(suggestion)}</div>' if suggestion else ''}</div>"
    )
