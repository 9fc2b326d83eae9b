"""All that is known of a cluster, as text, in a terminal's colours, and as complete HTML: pure."""

from __future__ import annotations

from hpcnb.model import ClusterStatus
from hpcnb.views.cluster import COLOURS, FAILED, WAITING, mark
from hpcnb.views.facts import Bar, Line, as_of, facts, since, title
from hpcnb.views.visible import escaped, visible

WIDTH = 12
"""Characters of a bar in text."""
WARNING = "#b86e00"

STYLE = (
    "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:var(--jp-ui-font-size1,13px);line-height:1.6;"
    "color:var(--jp-ui-font-color1,inherit);border:1px solid var(--jp-border-color2,#bdbdbd);border-radius:6px;"
    "padding:8px 14px 10px;margin:2px 0;max-width:58em"
)
TABLE = "border:none;border-collapse:collapse;margin:4px 0 0;width:auto;table-layout:auto;font:inherit;color:inherit"
QUIET = "color:var(--jp-ui-font-color2,#757575)"
TRACK = (
    "display:inline-block;vertical-align:middle;width:7em;height:0.5em;border-radius:0.25em;margin-right:0.6em;"
    "overflow:hidden;background:var(--jp-border-color2,#bdbdbd)"
)


def overview_text(status: ClusterStatus, now: float) -> str:
    """Plain text, a line for each thing."""
    return "".join(text for text, _ in overview_styled(status, now)).rstrip("\n")


def overview_styled(status: ClusterStatus, now: float) -> list[tuple[str, str]]:
    """The same for a terminal with colours: pieces of text, each with its style in rich's words."""
    pieces = [
        (f"{mark(status)} ", _colour(status)),
        (visible(title(status)), "bold"),
        (f"  {status.state} {since(status, now)}".rstrip(), _colour(status)),
        (f"  (at {as_of(now)})\n", "dim"),
    ]
    lines = facts(status, now)
    indent = max((len(visible(line.label)) for line in lines), default=0) + 2
    for line in lines:
        colour = WARNING if line.warns else ""
        pieces.append((f"  {visible(line.label):<{indent if line.label else 0}}", "dim"))
        for bar in line.bars:
            full = round(bar.share * WIDTH)
            pieces += [("█" * full, WARNING if bar.warns else WAITING), ("░" * (WIDTH - full), "dim")]
            pieces.append((f" {visible(bar.text)}", WARNING if bar.warns else colour))
            pieces.append(("" if bar is line.bars[-1] and not line.text else "   ", ""))
        pieces.append((f"{visible(line.text)}\n", colour))
    return pieces


def _colour(status: ClusterStatus) -> str:
    return FAILED if status.error else COLOURS.get(status.state, WAITING)


def overview_html(status: ClusterStatus, now: float, *, kind: str = "static", at: bool = True) -> str:
    """One box of HTML, whole without script or anything else from elsewhere, in light and dark themes.

    Parameters
    ----------
    status : ClusterStatus
    now : float
    kind : str
        The box's class is ``hpcnb-KIND``.
    at : bool
        Say at what time this was so: a page that is kept does not go on.
    """
    rows = "".join(map(_row, facts(status, now)))
    head = (
        f'<span style="color:{_colour(status)}">{mark(status)}</span> <b>{escaped(title(status))}</b> '
        f'<span style="color:{_colour(status)}">{status.state} {since(status, now)}</span> '
    )
    head += f'<span style="float:right;{QUIET}">at {as_of(now)}</span>' if at else ""
    table = f'<table style="{TABLE}">{rows}</table>' if rows else ""
    return f'<div class="hpcnb-{kind}" style="{STYLE}"><div>{head}</div>{table}</div>'


def _row(line: Line) -> str:
    cell = "font:inherit;border:none;white-space:normal;padding:0 0 0 1em;text-align:left;vertical-align:top;background:none"
    colour = f";color:{WARNING}" if line.warns else ""
    bars = "".join(map(_bar, line.bars))
    text = f"<span>{escaped(line.text)}</span>" if line.text else ""
    if not line.label:
        return f'<tr style="background:none"><td colspan="2" style="{cell};padding:0{colour}">{bars}{text}</td></tr>'
    return (
        f'<tr style="background:none"><td style="{cell};padding:0;white-space:nowrap;{QUIET}">{escaped(line.label)}</td>'
        f'<td style="{cell}{colour}">{bars}{text}</td></tr>'
    )


def _bar(bar: Bar) -> str:
    colour = WARNING if bar.warns else "var(--jp-brand-color1,#1976d2)"
    fill = f'<span style="display:block;height:100%;width:{bar.share:.0%};background:{colour}"></span>'
    return f'<span style="display:inline-block;white-space:nowrap;min-width:16em"><span style="{TRACK}">{fill}</span>{escaped(bar.text)}</span>'
