"""What a user sees of a cluster, from `%hpc up` to `%hpc down`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.site.account import slurm

pytestmark = pytest.mark.slow

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"
UP, CLUSTER, PLOT, DOWN = 1, 5, 7, 9
"""Which of its code cells are which."""


def states(sights):
    """The state of a cluster in each sight of its line."""
    return [re.match(r"\S [\w ]+? (requested|queued|starting|ready|ended)\b", sight["text"])[1] for sight in sights]


@pytest.mark.timeout(180)
def test_the_quickstart(notebook, tmp_path):
    """Run All Cells: the status is true from the start, the thresholds tighten, the plot is there, and no error."""
    page = notebook(path=QUICKSTART)
    page[UP].record()
    page[CLUSTER].record()
    page.run_all()
    page[DOWN].wait(120)

    status = page[UP].history()
    seen = states(status)  # a state may pass before the page is drawn
    assert seen == sorted(seen, key=["requested", "queued", "starting", "ready"].index)
    assert seen[0] != "ready"
    assert seen.index("ready") == len(seen) - 1
    assert len({sight["height"] for sight in status}) == 1

    thresholds = r"([\d,]+) of 1,000 permutations +67 %: \d\.\d\d +95 %: \d\.\d\d$"
    found = [re.search(thresholds, sight["text"]) for sight in page[CLUSTER].history()]
    counts = [int(match[1].replace(",", "")) for match in found if match]
    assert len(counts) > 2
    assert counts == sorted(counts)
    assert counts[-1] == 1000

    expect(page[PLOT].outputs(" img")).to_have_count(1)
    page[DOWN].shows("○ quickstart on local ended: closed")
    assert [page[i].errors for i in range(len(page))] == [[]] * len(page)
    page.theme("JupyterLab Dark")
    page.picture(tmp_path / "dark.png")


@pytest.mark.site
def test_the_queue(site, notebook):
    """While others have the nodes, the line says what is waited for; then the cluster is ready, and not before."""
    job = slurm(site, "sbatch", "--parsable", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 600")
    page = notebook("%load_ext hpcnb", "%hpc up box --nodes 2")
    page[1].record()
    page[0].run()
    page[1].run().wait_for(re.compile(r"queued \d+:(0[2-9]|[1-5]\d), job ")).wait_for(
        "next in main; waits for nodes to become free"
    )
    slurm(site, "scancel", job)
    page[1].wait().wait_for(" ready")
    seen = states(page[1].history())
    assert list(dict.fromkeys(seen)) == ["requested", "queued", "starting", "ready"]
    assert seen.count("ready") == 1
    assert page[1].errors == []


@pytest.mark.site
def test_giving_up(site, notebook):
    """The stop button takes a job that waits out of the queue, and says so without a traceback."""
    page = notebook("%load_ext hpcnb", "%hpc up box --name later --option=--begin=now+1hour")
    page[0].run()
    page[1].run().wait_for("is not to start yet")
    page.interrupt()
    page[1].wait().wait_for(re.compile(r"KeyboardInterrupt\s*$"))
    assert slurm(site, "squeue", "--noheader", "--name=later") == ""
    assert "".join(page[1].errors).split("\n") == ["later was given up; no job of it is left", "", "KeyboardInterrupt"]
