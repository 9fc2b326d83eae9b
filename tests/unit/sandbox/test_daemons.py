"""The daemons' command lines, and how they are recognized."""

from __future__ import annotations

from hpcnb.sandbox import programs
from hpcnb.sandbox.daemons import daemons
from hpcnb.sandbox.processes import Process


def test_they_come_in_order(plan):
    """Munge first, for all others ask it."""
    assert [daemon.name for daemon in daemons(plan, programs.NAMES)] == ["munged", "slurmctld", "n1", "n2", "sshd"]


def test_each_is_recognized_as_itself_only(plan):
    """The process of one daemon is not taken for another's, though two run the same program."""
    every = daemons(plan, programs.NAMES)
    running = [
        Process(pid=number, ppid=1, started=1, name=daemon.argv[0], command=" ".join(daemon.argv))
        for number, daemon in enumerate(every)
    ]
    assert [daemon.find(running).pid for daemon in every] == [0, 1, 2, 3, 4]
    assert every[2].find([]) is None


def test_a_fresh_controller_is_recognized_later(plan):
    """How the controller was started the first time does not matter to who looks for it."""
    fresh, later = (daemons(plan, programs.NAMES, fresh=fresh)[1] for fresh in (True, False))
    running = Process(pid=7, ppid=1, started=1, name="slurmctld", command=" ".join(fresh.argv))
    assert "-c" in fresh.argv
    assert "-c" not in later.argv
    assert later.find([running]) == running
