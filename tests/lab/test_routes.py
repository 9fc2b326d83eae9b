"""Test line 4 of "nothing is lost": the same notebook over each of the five routes, with hosts that let through only so much."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.lab import faults
from tests.lab.lab import NODES, until
from tests.lab.notebook import Notebook

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(180)]

SLURM = "{ 6817, 6818 }"
CLOSED_NODE = f"""
table inet closed {{
  chain incoming {{ type filter hook input priority 0; policy accept;
    iifname "eth0" tcp flags & (syn | ack) == syn tcp dport != {SLURM} drop
  }}
}}
"""
"""On a node: nobody from another host connects to anything but Slurm."""
CLOSED_WAYS = f"""
table inet shut {{
  chain outgoing {{ type filter hook output priority 0; policy accept;
    oifname "eth0" tcp flags & (syn | ack) == syn tcp dport != {SLURM} drop
  }}
}}
"""
"""On a node: nothing from there connects to anything but Slurm, either."""


@contextlib.contextmanager
def closed_nodes(lab, *, ways=False):
    """Nodes without open ports; with `ways`, they cannot reach the login node either."""
    tables = {"closed": CLOSED_NODE} | ({"shut": CLOSED_WAYS} if ways else {})
    for node in NODES:
        for text in tables.values():
            lab.hosts[node].run("nft", text)
    try:
        yield
    finally:
        for node in NODES:
            for name in tables:
                lab.hosts[node].run("nft", f"delete table inet {name}")


@contextlib.contextmanager
def without_srun(lab):
    """On the login node, `srun` does nothing for anybody."""
    lab.login.run("mount", "--bind", "/bin/false", "/usr/bin/srun")
    try:
        yield
    finally:
        lab.login.run("umount", "/usr/bin/srun")


@contextlib.contextmanager
def notebook(lab, **entry):
    """A notebook with a cluster of a site that has this entry."""
    lab.configure(**entry)
    notebook = Notebook(lab)
    try:
        notebook.up()
        yield notebook
    finally:
        notebook.close()


def carries(lab, notebook, route):
    """The same for all, before a cut and after it; and the status names the route."""
    works(notebook)
    shows(notebook, route)
    with faults.cut(lab):
        time.sleep(3)  # the length of the cut
    works(notebook)
    shows(notebook, route)


def shows(notebook, route, within=60):
    """The status may come a moment after the first byte."""
    until(lambda: notebook.value("hpc.current().snapshot.link") == route, within=within, why=f"the status says {route}")


def works(notebook):
    """A cell, a future, an array of 5 MB there and back."""
    notebook.do("%%hpc\nimport socket; here = socket.gethostname()")
    assert notebook.do("%hpc pull here\nprint(here)").text.strip().endswith("node1")
    assert notebook.do("print(hpc.submit(sum, [1, 2]).result())").text == "3\n"
    big = "import os; data = os.urandom(5_000_000); print(hpc.submit(bytes.swapcase, data).result() == data.swapcase())"
    assert notebook.do(big, 60).text == "True\n"


@pytest.mark.parametrize(("face", "route"), [("login", "direct"), ("login-nofwd", "exec")])
def test_a_route_is_found_by_itself(lab, face, route):
    """The best route that the login node allows is taken."""
    with notebook(lab, host=face) as work:
        carries(lab, work, route)


def test_nodes_without_open_ports(lab):
    """Where nodes accept no connections the link goes through `srun`; without that, the pilot comes out to the login node."""
    with closed_nodes(lab):
        with notebook(lab) as work:
            carries(lab, work, "srun")
            work.do("%hpc down --all", 60)
        with without_srun(lab), notebook(lab) as work:
            carries(lab, work, "reverse")


def test_nothing_but_sftp(lab):
    """Where no connection is possible at all files carry the link, also through a server that offers SFTP and nothing else."""
    with closed_nodes(lab, ways=True), notebook(lab, link="mailbox") as work:
        carries(lab, work, "mailbox")
        lab.configure(host="login-sftp", link="mailbox")
        faults.kill(faults.agents(lab))
        work.do("print(hpc.clusters())")
        assert work.do("print(hpc.submit(sum, [1, 2]).result())", 60).text == "3\n"
        shows(work, "mailbox")


def test_a_fault_that_has_passed_keeps_no_link_from_its_best_route(lab, figure):
    """While nothing can connect to the node files carry the link; when it can again, the link returns to the best route by itself."""
    with notebook(lab) as work:
        shows(work, "direct")
        with faults.refused(lab, NODES[0]):
            shows(work, "mailbox", within=120)
            assert work.do("print(hpc.submit(sum, [1, 2]).result())", 60).text == "3\n"
        began = time.monotonic()
        shows(work, "direct")
        figure(f"by the best route again {time.monotonic() - began:.0f} s after the fault")
        works(work)
        assert faults.pipes(lab, NODES[0])
