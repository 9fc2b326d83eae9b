"""`doctor`: what stands between a user and the first cluster of a site."""

from __future__ import annotations

import queue
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from hpcnb import config, handle
from hpcnb.agent.loop import background
from hpcnb.errors import ConfigError
from hpcnb.site.finding import Finding, Verdict, failed
from hpcnb.views.report import report_html, report_text

__all__ = ["Report", "called", "doctor", "findings"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """What was found out about a site; displayed, it is a table.

    Parameters
    ----------
    site : str
    findings : tuple of Finding
        One for each thing that was looked at, in order: ``name``, ``verdict`` (``ok``, ``note``, ``failed``, ``skipped``), ``text``,
        ``evidence``, ``remedy``, ``seconds``.
    """

    site: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(finding.verdict is not Verdict.FAILED for finding in self.findings)

    def __repr__(self) -> str:
        return report_text(self.site, self.findings)

    def _repr_html_(self) -> str:
        return report_html(self.site, self.findings)


def doctor(site: str | None = None) -> Report:
    """Examine a site: configuration, login, shell, Python, home, batch system, and what its default job would wait for.

    Nothing is submitted, and nothing is left there but what the first cluster would leave. What a login asks is asked here.
    ``%hpc doctor`` and ``hpcnb doctor`` show each finding as soon as it is known.

    Parameters
    ----------
    site : str, optional
        By default the default site.

    Examples
    --------
    >>> hpc.doctor("octopus").ok        # doctest: +SKIP
    True
    """
    return Report(site=called(site or ""), findings=tuple(findings(site or "")))


def called(site: str) -> str:
    """The name of a site, by default of the default site; empty where the configuration does not tell it."""
    try:
        return config.load().site(site).name
    except ConfigError:  # of which its first finding speaks
        return site


def findings(site: str) -> Generator[Finding]:
    """Examine a site, by default the default one; gives each finding as soon as it is known.

    Raises
    ------
    ClusterError
        There is no agent to do it.
    """
    try:
        spec = handle.spec_for(site)
    except ConfigError as exc:
        yield replace(failed(exc, site=site), name="entry")
        return
    # By a queue, since what is shown has to be shown by the thread that waits: a cell's output is that of its own thread.
    heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    asked = handle.agent().call("doctor", part=heard.put, site=spec.site, spec=spec.to_json())
    running = background().start(asked)
    running.add_done_callback(lambda done: heard.put(None))
    told: set[str] = set()
    try:
        while (one := heard.get()) is not None:
            finding = Finding.from_json(one)
            if finding.name not in told:  # else by a second agent, since the first one was ended
                told.add(finding.name)
                yield finding
        running.result()
    finally:
        running.cancel()
