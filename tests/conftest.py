"""What all tests share: hypothesis gives the same examples each time, a noisy machine is no failure, what takes long comes first."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.figures import figure, pytest_terminal_summary
from tests.isolation import isolated, short_path

__all__ = [
    "figure",
    "isolated",
    "pytest_collection_modifyitems",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "pytest_xdist_auto_num_workers",
    "short_path",
]

LONG = ("lab", "browser", "site", "acceptance", "hub", "server")
"""Folders whose files take long, most of them waiting (lab, site) or computing (browser, acceptance)."""
MOST = 8
"""Processes that test beside each other, however many cores there are: each has a Slurm and four hosts of its own in the end."""

settings.register_profile("hpcnb", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hpcnb")

# A thousand processes are started here; where nothing compiled may be kept, each of them would compile hpcnb anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A run that was started in the background, or by nohup, ignores these, and all that it starts would, too.
for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config):
    """One more than there are cores, since half of the time of a test is waiting."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST)


def pytest_collection_modifyitems(items):
    """Put the files that take long first, those that wait beside those that compute; small ones fill the gaps at the end."""
    files = list(dict.fromkeys(item.path for item in items))
    turns = dict.fromkeys(files, (len(files), 0))
    for number, folder in enumerate(LONG):
        inside = [file for file in files if file.is_relative_to(Path(__file__).with_name(folder))]
        turns |= {file: (turn, number) for turn, file in enumerate(inside)}
    items.sort(key=lambda item: turns[item.path])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """What is skipped for want of a package is a failure where everything could be installed: nobody reads what is green."""
    report = (yield).get_result()
    if report.skipped and "apt-get install" in str(report.longrepr) and os.environ.get("CI") and os.geteuid() == 0:
        report.outcome, report.longrepr = "failed", f"add it to .ci/packages: {report.longrepr}"
