"""Test line 1 of "nothing is lost": what a cut, a sleeping laptop or a dying sshd does to futures and a running cell."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from tests.lab import faults
from tests.lab.conftest import LONG
from tests.lab.lab import ADA

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(1200 if LONG else 180)]

GOAL = 3.0
"""Seconds, in the mean, from "the path is back" to "the first byte is through"."""
ONCE = 4 * GOAL
"""A single time may be longer: TCP itself waits up to 8 s between its attempts to connect."""

TASKS = """
def work(number):
    import pathlib, time
    home = pathlib.Path.home()
    with open(home / "ran", "a") as log:
        print("began", number, file=log, flush=True)
        while not (home / f"go-{number}").exists():
            time.sleep(0.02)
        print("ended", number, file=log, flush=True)
    return number * number

first = hpc.submit(work, 0)
assert first.result() == 0
futures = [hpc.submit(work, number) for number in range(1, 7)]
"""
PAUSE = 1.0 if LONG else 0.1
"""Seconds between two lines: of more than a thousand the notebook would show the last ones only."""
COUNTER = f"""%%hpc
import pathlib, time
count = 0
while not (pathlib.Path.home() / "stop").exists():
    print(count, time.time(), flush=True)
    count += 1
    time.sleep({PAUSE})
"""


class Work:
    """One finished, one running and five queued futures, and a cell that counts."""

    def __init__(self, lab, notebook):
        self._lab, self._notebook = lab, notebook
        self.gaps: list[float] = []
        self.let(0)
        notebook.do(TASKS)
        self.counter = notebook.send(COUNTER)
        notebook.hear_until(lambda: len(self.lines) > 1)
        assert self.ran == ["began 0", "ended 0", "began 1"]

    def _home(self, name):
        return self._lab.login.path(f"{ADA.home}/{name}")

    @property
    def lines(self):
        """What the counter has printed: its number, and when that was."""
        text = self.counter.text
        return [(int(line.split()[0]), float(line.split()[1])) for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def ran(self):
        return self._home("ran").read_text().splitlines()

    def let(self, *numbers):
        """Have these tasks end."""
        for number in numbers:
            self._home(f"go-{number}").touch()

    def passes(self, seconds):
        """Let time pass, and take what comes."""
        until = time.monotonic() + seconds
        self._notebook.hear_until(lambda: time.monotonic() > until, seconds + 10)

    def back(self):
        """The path is back: wait for the first line that was printed since."""
        began = time.time()
        self._notebook.hear_until(lambda: self.lines[-1][1] > began, 60)
        self.gaps.append(time.time() - began)

    def check(self):
        """All that was asked for has happened once, and is here; nobody saw an error."""
        self.let(*range(7))
        self.passes(0.3)
        self._home("stop").touch()
        self._notebook.wait(self.counter, 30)
        assert self.counter.reply["status"] == "ok", self.counter.outputs
        others = [content for kind, content in self.counter.outputs if kind != "stream" or content["name"] != "stdout"]
        assert others == []
        assert [number for number, _ in self.lines] == list(range(len(self.lines)))
        gathered = self._notebook.do("print(hpc.gather([first, *futures]))")
        assert gathered.text == "[0, 1, 4, 9, 16, 25, 36]\n"
        assert sorted(self.ran) == sorted(f"{word} {number}" for word in ("began", "ended") for number in range(7))
        assert self._notebook.do("%hpc").outputs


@pytest.fixture
def work(lab, notebook):
    for name in ("ran", "stop", *(f"go-{number}" for number in range(7))):
        with contextlib.suppress(FileNotFoundError):
            lab.login.path(f"{ADA.home}/{name}").unlink()
    return Work(lab, notebook)


def report(figure, work, what):
    mean = sum(work.gaps) / len(work.gaps)
    figure(
        f"{what}: path is back to first byte through: mean {mean:.2f} s, worst {max(work.gaps):.2f} s (goal {GOAL} s)"
    )
    return mean


CUTS = [(faults.cut, 5), (faults.unplugged, 5), (faults.cut, 60)]
CUTS += [(faults.cut, 600)] if LONG else []


@pytest.mark.parametrize(("fault", "seconds"), CUTS, ids=[f"{fault.__name__}-{s}s" for fault, s in CUTS])
def test_a_cut_path(lab, work, figure, fault, seconds):
    """The path is gone for a while, and tasks end meanwhile: nothing is lost, repeated or complained about."""
    with fault(lab):
        work.passes(seconds / 2)
        work.let(1, 2, 3)
        work.passes(seconds / 2)
    work.back()
    work.check()
    assert report(figure, work, f"cut for {seconds} s") < ONCE


def test_a_laptop_that_sleeps(lab, work, figure):
    """The agent stands still for a minute: as after any cut, all is there."""
    with faults.suspended(faults.agents(lab)):
        work.let(1, 2, 3)
        work.passes(60 if LONG else 20)
    work.back()
    work.check()
    assert report(figure, work, "agent suspended") < ONCE


def test_connections_that_are_killed_at_random(lab, work, figure):
    """The sshd that serves the connection is killed again and again, at any moment, the making of a new one included."""
    times = 20 if LONG else 5
    dice = random.Random(3)
    for number in range(times):
        assert faults.kill_connections(lab)
        work.back()
        if number < 4:
            work.let(number + 1)
        work.passes(dice.uniform(0, 2))
    work.check()
    assert report(figure, work, f"sshd killed {times} times") < GOAL


def test_a_server_that_is_restarted(lab, work, figure):
    """The login node's sshd is away for some seconds, as at a reboot."""
    with faults.without_sshd(lab):
        work.let(1)
        work.passes(8)
    work.back()
    work.check()
    assert report(figure, work, "sshd away for 8 s") < ONCE
