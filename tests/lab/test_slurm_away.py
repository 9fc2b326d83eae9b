"""Test line 6 of "nothing is lost": a batch system that is away changes nothing, and submits nothing twice."""

from __future__ import annotations

import re
import time

import pytest

from tests.lab import faults
from tests.lab.lab import LONG, until

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(900 if LONG else 120)]

AWAY = 120.0 if LONG else 15.0
"""Seconds."""
LATER = "--option=--begin=now+600"
UNKNOWN = re.compile(r"batch system +has not answered for (\d+):(\d+)")


def status(notebook):
    """What `%hpc` shows of each cluster: a line, and others below it that are indented."""
    outputs = [content for kind, content in notebook.do("%hpc").outputs if kind != "update_display_data"]
    shown = "\n".join(content["data"]["text/plain"] for content in outputs if "data" in content)
    return re.split(r"\n(?=\S)", shown)


def unknown_for(line):
    """Seconds for which a line says that nothing is known."""
    found = UNKNOWN.search(line)
    return int(found[1]) * 60 + int(found[2]) if found else None


def hanging(lab):
    """Slurm's controller takes questions and never answers: squeue times out."""
    return faults.suspended(faults.controllers(lab))


FAULTS = {"hangs": hanging, "is stopped": faults.without_slurmctld}


@pytest.mark.parametrize("what", [*FAULTS] if LONG else ["hangs"])
def test_a_controller_that_is_away(lab, notebook, figure, what):
    """A ready and a queued cluster stay what they are, with how long nothing has been known of them; work goes on."""
    notebook.do("ready = hpc.current()")
    notebook.do(f"%hpc up centre --name waiting --no-wait {LATER}")
    until(lambda: "queued" in " ".join(status(notebook)))
    before = lab.jobs()
    assert len(before) == 2
    with FAULTS[what](lab):
        began = time.monotonic()
        until(lambda: all(map(unknown_for, status(notebook))), within=40, every=0.5, why="both are unknown")
        noticed = time.monotonic() - began
        assert notebook.value("ready.client.submit(sum, [1, 2]).result()") == "3"
        time.sleep(max(0, AWAY - noticed))  # the length of the outage
        ready, waiting = sorted(status(notebook), key=lambda line: "waiting" in line)
        assert "ready" in ready, ready
        assert "queued" in waiting, waiting
        assert unknown_for(ready) >= AWAY - noticed - 1
    until(lambda: not any(map(unknown_for, status(notebook))), within=60, why="both are known again")
    assert lab.jobs() == before
    figure(f"%hpc says that Slurm does not answer {noticed:.0f} s after it has stopped to")


@pytest.mark.parametrize("what", [*FAULTS] if LONG else ["is stopped"])
def test_a_submission_while_the_controller_is_away(lab, notebook, what):
    """What is submitted meanwhile is one job in the end, or an error that says that there is none."""
    before = lab.jobs()
    with FAULTS[what](lab):
        submitting = notebook.send(f"%hpc up centre --name late --no-wait {LATER}")
        notebook.hear_until(lambda: "has not said whether" in str(submitting.outputs), 60)
    notebook.wait(submitting, 60)
    new = set(lab.jobs()) - set(before)
    if submitting.reply["status"] == "ok":
        assert len(new) == 1
    else:
        assert "has no job of it" in submitting.error[1]
        until(lambda: set(lab.jobs()) == set(before), why="a job that comes late ends by itself")
