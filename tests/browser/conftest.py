"""Fixtures of the tests in a browser: Chromium, JupyterLab, and notebooks that are opened there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from hpcnb.sandbox import Sandbox, missing_packages
from tests.browser.lab import START, Lab

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser():
    """Chromium, with a profile of its own."""
    if not CHROMIUM.exists():
        pytest.skip("apt-get install chromium")
    # No longer than a module: its event loop is in the way of asynchronous tests.
    expect.set_options(timeout=START * 1000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running.new_context(viewport={"width": 1280, "height": 900})
        running.close()


@pytest.fixture(scope="module")
def lab(browser, short_path):
    """JupyterLab; neither it nor anything that was started there is left after the module."""
    with Lab(short_path()) as running:
        yield running


@pytest.fixture(scope="module")
def site(lab, short_path):
    """A Slurm site called box."""
    if missing := missing_packages():
        pytest.skip(f"apt-get install {' '.join(missing)}")
    with Sandbox(short_path()) as running:
        lab.configure(json.dumps({"hpcnb": {"sites": {"box": running.site_entry()}}}))
        yield running
        lab.command("down", "--all")


@pytest.fixture
def notebook(lab, browser, tmp_path, request):
    """Open a notebook, given its cells or its file; the browser has had nothing to complain of."""
    opened = []

    def open_(*cells, path=None):
        name = request.node.originalname.removeprefix("test_")
        there = lab.write(name, cells)
        if path:
            there.write_bytes(path.read_bytes())
        opened.append(lab.open(browser.new_page(), there))
        return opened[-1]

    yield open_
    for one in opened:
        one.picture(tmp_path / "page.png")
        complaints = [*one.complaints]  # of what comes when the kernels are gone, nobody has to hear
        one.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
        one.page.close()
        assert complaints == []
