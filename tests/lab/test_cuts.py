"""Test line 1 of "nothing is lost": what a cut, a sleeping laptop or a dying sshd does to futures and a running cell."""

from __future__ import annotations

import random

import pytest

from tests.lab import faults
from tests.lab.lab import LONG

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(1200 if LONG else 180)]

GOAL = 3.0
"""Seconds, in the mean, from "the path is back" to "the first byte is through"."""
ONCE = 4 * GOAL
"""A single time may be longer: TCP itself waits up to 8 s between its attempts to connect."""


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
