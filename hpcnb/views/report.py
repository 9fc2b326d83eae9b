"""What was found out about a site, as lines of text and as a small table of HTML: pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from hpcnb.model import State
from hpcnb.site.finding import Finding, Verdict
from hpcnb.views.cluster import COLOURS, FAILED
from hpcnb.views.overview import QUIET, STYLE, TABLE, WARNING
from hpcnb.views.visible import escaped, visible

MARKS = {Verdict.OK: "✓", Verdict.NOTE: "!", Verdict.FAILED: "✗", Verdict.SKIPPED: "-"}
COLOUR = {
    Verdict.OK: COLOURS[State.READY],
    Verdict.NOTE: WARNING,
    Verdict.FAILED: FAILED,
    Verdict.SKIPPED: COLOURS[State.ENDED],
}
DEFAULT = "the default site"
WIDTH = len("batch system")
"""Letters of the longest name."""
LINES = 12
"""Lines of evidence that are shown."""


def finding_text(finding: Finding, width: int = 0) -> str:
    """One finding: a line with mark, name and what was found, then evidence and remedy as an error has them.

    Parameters
    ----------
    finding : Finding
    width : int
        Letters of a line, where what was found is to be folded; evidence and commands stay whole, to be copied.

    Examples
    --------
    ``✓ login shell   bash on login1 (Linux x86_64) runs a command in 0.05 s``
    """
    head, text = f"{MARKS[finding.verdict]} {visible(finding.name):<{WIDTH}}  ", visible(finding.text)
    lines = [head + text]
    if width > 2 * len(head):
        indent = " " * len(head)
        lines = textwrap.wrap(text, width, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)
    lines += [f"    | {line}" for line in _evidence(finding)]
    lines += [f"    → {visible(finding.remedy)}"] if finding.remedy else []
    return "\n".join(lines)


def _evidence(finding: Finding) -> list[str]:
    return [visible(line) for line in finding.evidence.splitlines() if line.strip()][-LINES:]


def summary(site: str, findings: Sequence[Finding]) -> str:
    """How it stands with the site, in one line; its name is empty where a wrong configuration does not tell the default site's.

    Examples
    --------
    ``octopus is ready: `%hpc up octopus` starts a cluster``
    """
    failed = [finding.name for finding in findings if finding.verdict is Verdict.FAILED]
    notes = sum(finding.verdict is Verdict.NOTE for finding in findings)
    if failed:
        command = f"%hpc doctor {site}".rstrip()
        again = f"mend {'it' if len(failed) == 1 else 'the first'}, and `{command}` looks again"
        return visible(f"{site or DEFAULT} cannot be used yet: {', '.join(failed)} failed; {again}")
    noted = f", with {notes} note{'s' * (notes != 1)} above" if notes else ""
    return visible(f"{site} is ready{noted}: `%hpc up {site}` starts a cluster")


def report_text(site: str, findings: Sequence[Finding], *, unfinished: str = "") -> str:
    """All findings, and how it stands; `unfinished` as in `report_html`."""
    return "\n".join([*map(finding_text, findings), visible(unfinished) or summary(site, findings)])


def report_html(site: str, findings: Sequence[Finding], *, unfinished: str = "") -> str:
    """One box of HTML, whole without anything from elsewhere; `unfinished` stands for the last line as long as not all is known."""
    rows = "".join(map(_row, findings))
    end = escaped(unfinished or summary(site, findings))
    bold = QUIET if unfinished else "font-weight:bold"
    return (
        f'<div class="hpcnb-report" style="{STYLE}"><div><b>{escaped(site or DEFAULT)}</b></div><table style="{TABLE}">{rows}</table>'
        f'<div style="{bold};margin-top:4px">{end}</div></div>'
    )


def _row(finding: Finding) -> str:
    cell = "font:inherit;border:none;white-space:normal;padding:0 0 0 1em;text-align:left;vertical-align:top;background:none"
    colour = COLOUR[finding.verdict]
    found = escaped(finding.text)
    if evidence := "\n".join(_evidence(finding)):
        found += f'<pre style="margin:2px 0;white-space:pre-wrap;{QUIET}">{escaped_lines(evidence)}</pre>'
    if finding.remedy:
        found += f"<div>→ {escaped(finding.remedy)}</div>"
    return (
        f'<tr style="background:none"><td style="{cell};padding:0;color:{colour}">{MARKS[finding.verdict]}</td>'
        f'<td style="{cell};white-space:nowrap;{QUIET}">{escaped(finding.name)}</td><td style="{cell}">{found}</td></tr>'
    )


def escaped_lines(text: str) -> str:
    """Some lines for HTML."""
    return "\n".join(map(escaped, text.splitlines()))
