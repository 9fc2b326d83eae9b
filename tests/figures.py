"""Figures that tests measure, in a section of their own at the end of pytest's report, and what is asked of them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

FIGURE = "figure"

Figure = Callable[[str], None]


def patient(seconds: float) -> float:
    """The seconds of a promise, and more of them while the machine is busy with other things besides."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Put a line into the report; a property of the test, since those travel from pytest-xdist's workers."""
    return lambda line: record_property(FIGURE, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the section."""
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {line}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, line in report.user_properties
        if name == FIGURE
    ]
    if lines:
        terminalreporter.section("figures")
        for line in sorted(lines):
            terminalreporter.line(line)
