"""Fixtures of the lab: the hosts, once for all tests of a worker, and a notebook on the laptop."""

from __future__ import annotations

import pytest

from tests.lab import faults
from tests.lab.lab import Lab, obstacle, until
from tests.lab.notebook import Notebook
from tests.lab.work import Work


@pytest.fixture(scope="session")
def hosts():
    """Four hosts that nothing is wrong with."""
    if why := obstacle():
        pytest.skip(why)
    with Lab() as lab:
        yield lab


@pytest.fixture
def lab(hosts):
    """The lab for one test, without an agent and without jobs; what the agent and the pilots said is shown on failure."""
    hosts.configure()
    yield hosts
    faults.kill([*faults.agents(hosts), *hosts.laptop.named("ipykernel_launcher")])
    for log in hosts.logs():
        print(f"---- {log.name}\n{log.read_text()[-4000:]}")  # noqa: T201
    hosts.forget()
    until(hosts.idle, why="the nodes are idle again")


@pytest.fixture
def notebook(lab):
    """A notebook on the laptop, with a cluster of one core, ready."""
    notebook = Notebook(lab)
    notebook.up()
    yield notebook
    notebook.close()


@pytest.fixture
def work(lab, notebook):
    """Futures and a cell that runs, in a notebook."""
    return Work(lab, notebook)
