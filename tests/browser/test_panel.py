"""The panel in JupyterLab, from the form to the end of a cluster, below a base URL as a hub has them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

from hpcnb.sandbox.ground import free_ports
from tests.browser.lab import Lab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(__file__, "../../../labextension/dist").resolve().exists(), reason="no panel: there was no Node.js"
    ),
]


@pytest.fixture(scope="module")
def lab(browser):
    """JupyterLab below a base URL."""
    folder = Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp"))
    try:
        (port,) = free_ports(1)
        with Lab(folder, "--ServerApp.base_url=/user/x/", port=port) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def page(notebook):
    """A notebook's page beside which the panel is open."""
    opened = notebook("")
    opened.page.get_by_title("HPC clusters", exact=False).first.click()
    return opened


def card(page, name):
    return page.page.locator(f".hpcnb-card[data-name='{name}']")


def press(page, label, within):
    within.get_by_role("button", name=label, exact=True).click()


@pytest.mark.timeout(240)
def test_a_cluster_from_the_form_to_its_end(page, lab, tmp_path):
    """Start from the form, watch it get ready, insert the code, run it, see the task, read logs, reload, end."""
    panel = page.page.locator(".hpcnb-panel")
    expect(panel.get_by_text("None is running.")).to_be_visible()
    panel.get_by_label("Name").fill("paneled")
    panel.get_by_label("Walltime").fill("30 parsecs")
    press(page, "Start", panel)
    expect(panel.locator(".hpcnb-trouble")).to_contain_text("'30 parsecs' is not a duration")
    panel.get_by_label("Walltime").fill("20m")
    press(page, "Start", panel)
    mine = card(page, "paneled")
    expect(mine).to_have_attribute("data-state", "ready")
    expect(mine.locator(".hpcnb-walltime")).to_contain_text("min left")
    page.page.screenshot(path=tmp_path / "ready.png")
    page.complaints.remove("Failed to load resource: the server responded with a status of 400 (Bad Request)")

    press(page, "Insert code", mine)
    page[1].run().wait().wait_for("paneled")
    page.page.keyboard.type("import hpcnb as hpc, time; slow = hpc.submit(time.sleep, 600)")
    page.page.keyboard.press("Shift+Enter")
    expect(mine).to_contain_text("1 processing")
    assert "paneled on local: ready" in lab.command("status")

    with page.page.context.expect_page() as opened:
        press(page, "Dashboard", mine)
    expect(opened.value.locator("body")).to_contain_text("Task Stream")
    opened.value.close()
    press(page, "Logs", mine)
    expect(page.page.locator(".hpcnb-logs")).to_contain_text("scheduler.log")
    page.page.screenshot(path=tmp_path / "logs.png")

    page.reload()
    expect(card(page, "paneled")).to_have_attribute("data-state", "ready")
    press(page, "End", card(page, "paneled"))
    expect(page.page.locator(".jp-Dialog")).to_contain_text("It has tasks")
    page.page.screenshot(path=tmp_path / "end.png")
    press(page, "End", page.page.locator(".jp-Dialog"))
    expect(panel.get_by_text("Ended lately (1)")).to_be_visible()
    assert lab.command("status", "--json").strip() == "[]"


@pytest.mark.timeout(180)
def test_the_server_restarted_while_a_cluster_runs(lab, browser):
    """A cluster that a terminal has started is shown; the server goes and comes back, and all is shown again within seconds."""
    page = browser.new_page()
    page.goto(f"{lab.url}lab?token={lab.token}")
    page.get_by_title("HPC clusters").first.click()
    mine = page.locator(".hpcnb-card[data-name='outliving']")
    lab.command("up", "--name", "outliving")
    expect(mine).to_have_attribute("data-state", "ready")
    expect(page.locator(".hpcnb-status")).to_contain_text("● outliving")
    lab.stop()
    expect(page.locator(".hpcnb-trouble").first).to_contain_text("does not answer")
    lab.command("scale", "2", "outliving")
    lab.start()
    expect(page.locator(".hpcnb-trouble")).to_have_count(0)
    expect(mine).to_contain_text("2 nodes")
    lab.command("down", "outliving")
    expect(page.locator(".hpcnb-status")).not_to_contain_text("outliving")
    page.close()


@pytest.mark.timeout(180)
def test_queues_in_the_panel(page, lab, tmp_path):
    """Queues with counts and a bar; pause, resume, launch a job that drains one, its tasks by the page, what failed again."""
    commands = tmp_path / "commands.txt"
    commands.write_text("true\n" * 60 + "echo '<b>bold</b>'; false\n")
    lab.command("queue", "create", "extract")
    lab.command("queue", "load", "extract", str(commands))
    panel = page.page.locator(".hpcnb-panel")
    mine = panel.locator(".hpcnb-queue[data-name='extract']")
    expect(mine).to_contain_text("61 pending")
    press(page, "Pause", mine)
    expect(mine).to_have_attribute("data-state", "Paused")
    press(page, "Resume", mine)
    expect(mine).to_have_attribute("data-state", "Active")
    press(page, "Launch …", mine)
    press(page, "Launch", page.page.locator(".jp-Dialog"))
    expect(mine).to_contain_text("60 succeeded, 1 failed")
    mine.get_by_text("extract", exact=True).click()
    tasks = page.page.locator(".hpcnb-tasks")
    expect(tasks.locator("tr")).to_have_count(50)
    press(page, "Next", tasks)
    expect(tasks.locator("tr").last).to_contain_text("echo '<b>bold</b>'; false")
    tasks.get_by_label("State").select_option("Failed")
    expect(tasks.locator("tr")).to_have_count(1)
    page.page.screenshot(path=tmp_path / "queues.png")
    press(page, "Retry failed", mine)
    expect(mine).to_contain_text("1 pending")
