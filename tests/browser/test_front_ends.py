"""Where else notebooks are at home: Notebook 7, Voilà and a terminal with IPython, each for real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from tests.browser.lab import CONNECTED
from tests.server.jupyter import START, Jupyter

pytestmark = pytest.mark.slow

CELLS = ("%load_ext hpcnb", "%hpc up", "%%hpc -s front\nprint('there', 6 * 7)", "import hpcnb\nhpcnb.current()")


@pytest.fixture(scope="module")
def server(short_path):
    """A server with Notebook 7 and Voilà, a notebook, and a cluster that all of them find."""
    option = "--JupyterNotebookApp.expose_app_in_browser=True"
    with Jupyter(short_path(), "notebook", [option], beside=["notebook", "voila"]) as running:
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        (running.notebooks / "cells.ipynb").write_text(nbformat.writes(made))
        running.command("up", "--workers-per-node", "1", "--cores-per-worker", "1")
        yield running


def test_notebook_7(server, browser, tmp_path):
    """Cells run, the cluster's view has its buttons, the panel shows the same cluster, a reload loses nothing."""
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{server.url}notebooks/cells.ipynb?token={server.token}")
    page.wait_for_function(CONNECTED, arg="idle", timeout=START * 1000)
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    shown = page.locator(".jp-CodeCell .jp-OutputArea")
    expect(shown.nth(2)).to_have_text("there 42")
    expect(shown.nth(3).get_by_role("button", name="Keep alive")).to_be_visible()
    if (Path(__file__).parents[2] / "labextension" / "dist").exists():
        page.get_by_text("View", exact=True).click()
        page.get_by_text("Left Sidebar", exact=True).hover()
        page.get_by_text("HPC clusters").click()
        expect(page.locator(".hpcnb-card[data-name='local']")).to_have_attribute("data-state", "ready")
        assert "there 42" not in (server.notebooks / "cells.ipynb").read_text()
        page.reload()  # what was not saved comes from the kernel
        expect(shown.nth(2)).to_have_text("there 42")
    page.screenshot(path=tmp_path / "notebook.png")
    page.close()
    assert complaints == []


def test_voila(server, browser, tmp_path):
    """A page that Voilà makes shows what the cells have said, and how the cluster was in that moment."""
    page = browser.new_page()
    page.goto(f"{server.url}voila/render/cells.ipynb?token={server.token}")
    expect(page.get_by_text("there 42")).to_be_visible()
    expect(page.locator("body")).to_contain_text(re.compile(r"local.* ready"))
    page.screenshot(path=tmp_path / "voila.png")
    page.close()


def test_ipython_in_a_terminal(server):
    """Magics and cells as in a notebook, in text; a question of a cell is asked there."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"]
    environ = os.environ | server.environ | {"IPYTHONDIR": str(server.folder / "terminal")}
    running = subprocess.Popen(command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        for typed, answer in (
            ("%load_ext hpcnb\n%hpc\n", r"local +ready"),
            ("%%hpc -s terminal\nname = input('name? ')\nprint('hello', name)\n\n\n", "name\\? $"),
            ("Ada\n", "hello Ada"),
        ):
            os.write(ours, typed.encode())
            seen = ""
            while not re.search(answer, seen):
                seen += os.read(ours, 4096).decode()
    finally:
        running.kill()
        running.wait()
        os.close(ours)
