"""Work in JupyterLab: it is drawn under the cell that submitted it, also after that has ended; its buttons work meanwhile."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

FIRST = """
%load_ext hpcnb
import os, time
import hpcnb as hpc
def score(number):
    time.sleep(0.15)
    if number % 25 == 7 and not os.path.exists({mended!r}):
        raise ValueError(f"<b>plate {{number}}</b> is missing")
    return number
"""


@pytest.fixture(scope="module", autouse=True)
def cluster(lab):
    """One that the notebooks find."""
    lab.command("up", "--workers-per-node", "2", "--cores-per-worker", "1")


@pytest.mark.timeout(180)
def test_the_work_view(notebook, tmp_path):
    """Counts grow under the cell that has ended, what failed is named and run again by a button while another cell runs."""
    mended = tmp_path / "mended"
    page = notebook(
        FIRST.format(mended=str(mended)),
        "futures = hpc.map(score, range(100))",
        "hpc.wait(futures)\nwhile any(future.exception() for future in futures): time.sleep(0.1)\nsum(hpc.gather(futures))",
        "long = hpc.map(time.sleep, [600] * 20)",
        "hpc.wait(long);",
    )
    page[0].run().wait()
    page[1].record()
    page[1].run().wait().wait_for(re.compile(r"score [1-9]\d* of 100 done"))
    page[2].run()
    page[1].wait_for("96 of 100 done").wait_for("<b>plate 7</b> is missing")
    page.picture(tmp_path / "failed.png")
    mended.touch()
    page[1].outputs().get_by_role("button", name="Retry failed").click()
    page[1].wait_for("100 done in")
    page[2].wait().wait_for(str(sum(range(100))))
    expect(page[1].outputs().get_by_role("button")).to_have_count(0)
    seen = [
        int(match[1])
        for sight in page[1].history()
        if (match := re.search(r"score (\d+)(?: of 100)? done", sight["text"]))
    ]
    assert seen == sorted(seen)

    page[3].run().wait().wait_for("2 running")
    page[4].run()
    page.picture(tmp_path / "running.png")
    page[3].outputs().get_by_role("button", name="Cancel").click()
    page[3].wait_for("20 cancelled")
    page[4].wait()
    page.theme("JupyterLab Dark")
    page.picture(tmp_path / "dark.png")
    page.save()
    page.reload()
    page[1].wait_for("100 done in")
    assert [page[number].errors for number in range(5)] == [[]] * 5
