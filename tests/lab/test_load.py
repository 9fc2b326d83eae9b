"""Test line 7 of "nothing is lost": cuts and heals under load; memory and descriptors stay bounded."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import psutil
import pytest

from tests.lab import faults
from tests.lab.lab import LONG, NB, PROJECT

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(1800 if LONG else 240)]

CYCLES = 100 if LONG else 20
GOAL = 3.0
MEMORY = 400 << 20
"""Bytes that neither agent nor pilot may ever have; the bulk is a hundred megabytes, and the link holds a bounded part."""


class Watched:
    """A process whose memory and descriptors are looked at from time to time."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.first = self.most = process.memory_info().rss
        self.descriptors = [process.num_fds()]

    def look(self) -> None:
        self.most = max(self.most, self._process.memory_info().rss)
        self.descriptors.append(self._process.num_fds())

    def __str__(self) -> str:
        return (
            f"{self.first >> 20} MiB at first, {self.most >> 20} at most; "
            f"descriptors {self.descriptors[0]} at first, {max(self.descriptors)} at most, {self.descriptors[-1]} at the end"
        )


@pytest.fixture
def load(lab, tmp_path):
    """The program, loaded; ended after the test."""
    program = (sys.executable, "-m", "tests.lab.load")
    options = {"environ": {"PYTHONPATH": str(PROJECT)}, "stdin": subprocess.PIPE}
    with (tmp_path / "err").open("w") as err, lab.laptop.start(*program, user=NB, stderr=err, **options) as process:
        try:
            assert process.stdout.readline() == "loaded\n"
            yield process
        finally:
            faults.kill(lab.laptop.named("tests.lab.load"))
            print((tmp_path / "err").read_text()[-4000:])  # noqa: T201 - shown on failure


def pilot(lab):
    """The process in the allocation that holds the other end of the link."""
    (found,) = lab.hosts["node1"].named("-m hpcnb.pilot --run-dir")
    return found


def test_cuts_under_load(lab, load, figure):
    """Black holes and killed connections, again and again, under bulk data, small tasks and prints: all arrives, once."""
    dice, healed = random.Random(7), []
    (agent,) = faults.agents(lab)
    watched = {"agent": Watched(agent), "pilot": Watched(pilot(lab))}
    for number in range(CYCLES):
        if number % 2:
            faults.kill_connections(lab)
        else:
            with faults.cut(lab):
                time.sleep(dice.uniform(0.5, 4))  # the length of the cut
        healed.append(time.time())
        time.sleep(dice.uniform(1, 2.5))  # until the next one
        for process in watched.values():
            process.look()
    load.stdin.close()
    said = json.loads(load.stdout.read())
    assert said["faults"] == []
    assert sorted(said["ran"]) == list(range(said["tasks"]))
    assert said["tasks"] == 10_000
    for name, process in watched.items():
        figure(f"{name}: {process}")
        assert process.most < MEMORY
    gaps = heard_after(healed, said["heard"])
    mean = sum(gaps) / len(gaps)
    done = f"{said['rounds']} times 100 MB there and back, {said['tasks']} tasks, {said['cells']} cells of 900 lines"
    figure(
        f"{CYCLES} cuts under {done}: path is back to first byte through: mean {mean:.2f} s, worst {max(gaps):.2f} s (goal {GOAL} s)"
    )
    assert mean < GOAL


def heard_after(healed, heard):
    """For each moment how long it took until something was heard that had been printed since."""
    return [next(now - moment for printed, now in heard if printed > moment) for moment in healed]
