"""The cluster view in JupyterLab: what a person who waits sees, and what the buttons do while a cell runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from tests.site.account import slurm

pytestmark = [pytest.mark.slow, pytest.mark.site]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

POLL = 6.0
"""Seconds within which the batch system is asked again, and the answer is on the page."""


def submit(site, *options):
    """Somebody's job."""
    return slurm(site, "sbatch", "--parsable", "--exclusive", "--output=/dev/null", *options, "--wrap=sleep 600")


def seen(cell):
    """What of a cell's output can be seen: the text of the view."""
    return cell.outputs(" .hpcnb-live:visible, .jp-OutputArea-output .hpcnb-static:visible")


def test_from_the_queue_to_the_end(site, notebook, lab, browser, tmp_path):
    """The view walks through all states by itself; who is ahead and why is shown, and drops when one of them is gone."""
    running, ahead = submit(site, "--nodes=2"), submit(site, "--nodes=2")
    page = notebook(
        "%load_ext hpcnb\nimport hpcnb as hpc\ncluster = hpc.Cluster('box', nodes=2, asynchronous=True)\ncluster",
        "await cluster\nprint('ready at last')",
        "import time\nfor i in range(10**4):\n    print('busy', i)\n    time.sleep(0.5)",
    )
    page[0].run().wait()
    view = seen(page[0])
    expect(view).to_have_count(1)
    expect(view).to_contain_text("requested")
    page[0].record()
    page[1].run()
    expect(view).to_contain_text("2 nodes for 1h; 1 ahead in main")
    expect(view).to_contain_text(re.compile(r"waits because.*\((Priority|Resources)\)"))
    page.picture(tmp_path / "queued.png")
    slurm(site, "scancel", ahead)
    expect(view).to_contain_text("next in main", timeout=POLL * 1000)
    slurm(site, "scancel", running)
    page[1].wait().wait_for("ready at last")
    expect(view).to_contain_text(re.compile("n1.*n2.*link.*up", re.DOTALL))
    page.picture(tmp_path / "ready.png")
    states = [re.search(r"(requested|queued|starting|ready)", sight["text"])[1] for sight in page[0].history()]
    assert list(dict.fromkeys(states)) == ["requested", "queued", "starting", "ready"]

    # The buttons while a cell runs.
    page[2].run().wait_for("busy 1\n")
    button = page[0].outputs(" button")
    button.filter(has_text="Keep alive").click()
    expect(page[0].outputs()).to_contain_text(["", "its idle time begins anew"])
    button.filter(has_text="Dashboard").click()
    expect(page[0].outputs(" a")).to_have_text("open the dashboard")
    button.filter(has_text="Logs").click()
    expect(page[0].outputs(" pre")).to_contain_text("hpcnb.pilot.lead")
    page.picture(tmp_path / "logs.png")
    assert page[2].text.count("busy") > 1
    page.interrupt()
    page[2].wait()

    # The page is loaded anew.
    page.save()
    page.reload()
    expect(seen(page[0])).to_have_count(1)
    expect(seen(page[0])).to_contain_text("ready")
    page.theme("JupyterLab Dark")
    page.picture(tmp_path / "dark.png")
    button.filter(has_text="Cancel").click()
    button.filter(has_text="Really cancel").click()
    expect(seen(page[0])).to_contain_text("ended")
    page.picture(tmp_path / "ended.png")


def test_after_the_kernel_has_gone(site, notebook, lab):
    """A page that is loaded anew shows the last state that was saved; `%hpc attach` makes the view anew."""
    page = notebook("%load_ext hpcnb", "%hpc up box --name lasts", "%hpc", "%load_ext hpcnb\n%hpc attach")
    page[0].run()
    page[1].run().wait().wait_for(" ready")
    page[2].run().wait()
    expect(seen(page[2])).to_contain_text(re.compile("lasts on box ready.*link.*up", re.DOTALL))
    page.save()
    page.restart()
    page.reload()
    expect(seen(page[2])).to_have_count(1)
    expect(seen(page[2])).to_contain_text(re.compile("lasts on box ready.*at .*link.*up", re.DOTALL))
    expect(page[2].outputs(" button:visible")).to_have_count(0)
    page[3].run().wait()
    expect(seen(page[3])).to_contain_text("lasts on box ready")
    expect(page[3].outputs(" button")).to_have_count(6)
    page[3].outputs(" button").filter(has_text="Cancel").click()
    page[3].outputs(" button").filter(has_text="Really cancel").click()
    expect(seen(page[3])).to_contain_text("ended")
    page.complaints.clear()  # JupyterLab's, of the widgets that were the old kernel's


EXPORTED = """
%load_ext hpcnb
import hpcnb as hpc
cluster = hpc.Cluster("box", name="kept")
cluster
---
cluster.wait_until_ready()
---
%hpc
---
cluster.close()
"""


def test_the_exported_page(site, lab, browser, tmp_path):
    """Run without a page, and exported: the views say how it ended, with JavaScript off, too."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in EXPORTED.split("---")])
    nbformat.write(made, tmp_path / "kept.ipynb")
    shutil.copy(NOTEBOOKS / "run.py", tmp_path)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path / "kept.ipynb"],
        env=os.environ | lab.environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    bare = browser.browser.new_context(java_script_enabled=False)
    page = bare.new_page()
    page.goto(f"file://{tmp_path}/_output/kept.html")
    views = page.locator(".hpcnb-static:visible")
    expect(views).to_contain_text(
        [re.compile(r"kept on box ended.*closed.*job \d+.*ran on n\d in main", re.DOTALL)] * 2
    )
    page.screenshot(path=tmp_path / "kept.png", full_page=True)
    bare.close()
