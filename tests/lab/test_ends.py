"""How a cluster ends when nobody here has ended it: the state and the reason in the cell that waits, and nothing left."""

from __future__ import annotations

import contextlib

import psutil
import pytest

from tests.lab.lab import ADA, until

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(180)]

WAIT = "%%hpc\nprint('waits', flush=True)\nimport time\ntime.sleep(600)"
SOON = 60.0
"""Seconds; Slurm itself takes `SlurmdTimeout` (15 s here) to believe that a node is dead."""


@pytest.fixture
def waiting(lab, notebook):
    """A cell that waits in the cluster."""
    notebook.do("cluster = hpc.current()")
    cell = notebook.send(WAIT)
    notebook.hear_until(lambda: "waits" in cell.text)
    return cell


def leftovers(host):
    """What still runs for the user on a node."""
    found = []
    for process in host.processes():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == ADA.uid:
                found.append(" ".join(process.cmdline()))
    return found


def ended(notebook, lab, cell, reason):
    """The cell ends with the cause, the cluster with the reason, and no secret of it is left at the site."""
    notebook.wait(cell, SOON)
    assert cell.reply["status"] == "error"
    until(lambda: notebook.value("cluster.state") == "ended", within=SOON)
    assert notebook.value("cluster.reason") == reason
    until(lambda: lab.jobs() == [], why="Slurm has done with the job")
    runs = lab.login.path(f"{ADA.home}/.hpcnb/runs")
    until(lambda: not [*runs.glob("*/tls")], why="the secrets are gone")
    return cell.error


def test_a_job_that_is_cancelled_by_hand(lab, notebook, waiting):
    """`scancel` is named as what it is, and leaves no process on the node."""
    (job,) = lab.jobs()
    node = lab.hosts[lab.slurm("squeue", "--noheader", "--format=%N")]
    lab.slurm("scancel", job)
    _, why = ended(notebook, lab, waiting, "cancelled")
    assert "the batch job was cancelled, by hand or by the site: by whom is not recorded" in why
    assert job in why
    until(lambda: not leftovers(node), why=f"nothing runs on the node: {leftovers(node)}")


def test_a_node_that_dies(lab, notebook, waiting):
    """A node without power is a failure of the node, named with the job, not silence."""
    (job,) = lab.jobs()
    name = lab.slurm("squeue", "--noheader", "--format=%N")
    lab.hosts[name].power_off()
    try:
        kind, why = ended(notebook, lab, waiting, "node_fail")
        assert kind == "NodeFailed"
        assert job in why
        assert f"→ Start the cluster again; --option=--exclude={name} keeps it away from that node." in why
    finally:
        lab.boot_node(name)
