"""Test line 2 of "nothing is lost": the kernel, the agent or both are killed, and the path is cut meanwhile; all comes back."""

from __future__ import annotations

import time

import pytest

from tests.lab import faults
from tests.lab.notebook import Notebook

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def again(lab):
    """Open the same notebook with another kernel."""
    opened = []

    def again():
        opened.append(Notebook(lab))
        return opened[-1]

    yield again
    for notebook in opened:
        notebook.close()


@pytest.mark.parametrize("killed", ["kernel", "agent", "both"])
def test_whoever_comes_back_gets_all_of_it(lab, notebook, work, again, killed):
    """Killed in the middle of everything, with a cut path besides: who comes back finds all of it, once."""
    if killed in ("agent", "both"):
        assert faults.kill(faults.agents(lab)) == 1
    if killed in ("kernel", "both"):
        notebook.close()
    with faults.cut(lab):
        work.let(1, 2, 3)
        time.sleep(3)  # the length of the cut
    if killed == "agent":
        work.back()
        work.check()
        return
    work.returns(again())
    assert "7 futures" in work.counter.text
    work.back()
    work.end()
    work.check_futures("hpc.futures()")
    work.hears("ended ok just now")
    work.check_lines()
