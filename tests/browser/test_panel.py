"""The panel in JupyterLab, from the form to the end of a cluster, below a base URL as a hub has them."""

from __future__ import annotations

import json
import os
import re
import secrets
import statistics
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from hpcnb.queue.desk import Here
from hpcnb.queue.queue import Queue
from hpcnb.sandbox.ground import free_ports
from tests.browser.lab import Lab
from tests.site.account import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(__file__, "../../../labextension/dist").resolve().exists(),
        reason="the panel was not built: apt-get install npm",
    ),
]


@pytest.fixture(scope="module")
def lab(browser, short_path):
    """JupyterLab below a base URL."""
    (port,) = free_ports(1)
    with Lab(short_path(), "--ServerApp.base_url=/user/x/", port=port) as running:
        yield running


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
    expect(mine.locator(".hpcnb-work")).to_contain_text("0 of 1 done, 1 running")
    page.page.screenshot(path=tmp_path / "work.png")
    assert "paneled on local: ready" in lab.command("status")

    with page.page.context.expect_page() as opened:
        press(page, "Dashboard", mine)
    expect(opened.value.locator("body")).to_contain_text("Task Stream")
    opened.value.close()
    press(page, "Logs", mine)
    logs = page.page.locator(".hpcnb-logs")
    logs.get_by_label("Log").select_option("logs/scheduler.log")
    expect(logs.locator("pre")).to_contain_text("Scheduler at")
    log = next((lab.folder / "home").glob("runs/*/logs/scheduler.log"))
    for piece, shown in (b"half \xe2\x88", "half"), (b"\x91 <b>\x1b[1m\n", "half ∑ <b>␛[1m"):
        with log.open("ab") as file:
            file.write(piece)
        expect(logs.locator("pre")).to_contain_text(shown)
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
def test_the_server_restarted_while_a_cluster_runs(lab, browser, figure):
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
    began = time.monotonic()
    expect(page.locator(".hpcnb-trouble")).to_have_count(0)
    expect(mine).to_contain_text("2 nodes")
    took = time.monotonic() - began
    figure(f"all is shown {took:.1f} s after the server has come back")
    assert took < (3 if os.environ.get("HPCNB_LAB_LONG") else 60)
    lab.command("down", "outliving")
    expect(page.locator(".hpcnb-status")).not_to_contain_text("outliving")
    page.close()


@pytest.mark.timeout(180)
def test_queues_in_the_panel(page, lab, tmp_path):
    """Queues with counts and a bar; pause, resume, launch a job that drains one, its tasks by the page, their logs, what failed again."""
    here = Here("local", lab.folder / "home")
    here("create", name="extract")
    Queue(here, "extract").add_multiple(["true"] * 60 + ["echo '<b>bold</b>'; false"])
    panel = page.page.locator(".hpcnb-panel")
    mine = panel.locator(".hpcnb-queue[data-name='extract']")
    expect(mine).to_contain_text("61 pending")
    press(page, "Pause", mine)
    expect(mine).to_have_attribute("data-state", "Paused")
    press(page, "Resume", mine)
    expect(mine).to_have_attribute("data-state", "Active")
    press(page, "Launch …", mine)
    mine.get_by_label("Submit").select_option("one job of several workers")
    mine.locator("[name=jobs]").fill("2")
    mine.get_by_label("Walltime").fill("30 parsecs")
    press(page, "Launch", mine)
    expect(mine.locator(".hpcnb-trouble")).to_contain_text("'30 parsecs' is not a duration")
    page.page.screenshot(path=tmp_path / "launch.png")
    mine.get_by_label("Walltime").fill("20m")
    press(page, "Launch", mine)
    expect(mine).to_contain_text("Submitted: ")
    expect(mine.get_by_label("Walltime")).to_have_count(0)
    page.complaints.remove("Failed to load resource: the server responded with a status of 400 (Bad Request)")
    expect(mine).to_contain_text("60 succeeded, 1 failed")
    (run,) = (lab.folder / "home" / "queues" / "extract" / "runs").iterdir()
    asked = json.loads((run / "run.json").read_text())
    assert (asked["workers"], asked["walltime"]) == (2, 1200)
    mine.get_by_text("extract", exact=True).click()
    tasks = page.page.locator(".hpcnb-tasks")
    expect(tasks.locator("tr")).to_have_count(50)
    press(page, "Next", tasks)
    expect(tasks.locator("tr").last).to_contain_text("echo '<b>bold</b>'; false")
    tasks.get_by_label("State").select_option("Failed")
    expect(tasks.locator("tr")).to_have_count(1)
    page.page.screenshot(path=tmp_path / "queues.png")
    tasks.get_by_text("61", exact=True).click()
    log = page.page.locator(".hpcnb-logs")
    expect(log.locator("pre")).to_have_text("<b>bold</b>\n")
    expect(log.get_by_label("Log")).to_have_value("attempt 1")
    page.page.screenshot(path=tmp_path / "log.png")
    press(page, "Retry failed", mine)
    expect(mine).to_contain_text("1 pending")


@pytest.fixture
def far(site, lab):
    """A queue of the site, which it has in the user's own home."""
    name = f"far-{secrets.token_hex(4)}"
    lab.command("queue", "create", name, "--site", "box")
    yield name
    lab.command("queue", "delete", name, "--site", "box")


@pytest.mark.site
@pytest.mark.timeout(240)
def test_the_form_knows_what_the_site_allows(far, page, tmp_path):
    """Partitions and walltimes of a real Slurm to choose from; what is above its limits is said before anything is submitted; its queues."""
    panel = page.page.locator(".hpcnb-panel")
    panel.get_by_label("Site", exact=True).select_option("box")
    partition = panel.locator("[name=partition]")
    expect(partition.locator("option")).to_have_count(3)
    partition.select_option("debug")
    panel.locator("[name=nodes]").fill("99")
    expect(panel.locator(".hpcnb-trouble")).to_contain_text("Partition debug gives one job")
    expect(panel.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    page.page.screenshot(path=tmp_path / "limits.png")
    panel.locator("[name=nodes]").fill("1")
    panel.get_by_label("Walltime").fill("10m")
    press(page, "Start", panel)
    mine = card(page, "box")
    expect(mine).to_have_attribute("data-state", "ready")
    panel.get_by_label("Site of the queues").select_option("box")
    expect(panel.locator(f".hpcnb-queue[data-name='{far}']")).to_contain_text("0 tasks")
    press(page, "End", mine)
    press(page, "End", page.page.locator(".jp-Dialog"))
    expect(panel.get_by_text("Ended lately")).to_be_visible()


MANY = """async ([label, clicks]) => {
    const took = [];
    const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    const field = document.querySelector(`.hpcnb-form input[placeholder="${label}"]`);
    const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
    for (let n = 0; n < clicks; n++) {
        await frame();
        const began = performance.now();
        set.call(field, 'x'.repeat(n + 1));
        field.dispatchEvent(new Event('input', {bubbles: true}));
        document.querySelector('.hpcnb-ended summary').click();
        await frame();
        took.push(performance.now() - began);
    }
    return took.sort((a, b) => a - b);
}"""


def many_clusters(turn):
    """What the websocket says of 200 clusters."""
    resources = {"nodes": 1, "walltime": 3600}
    counts = {"workers": 4, "cores": 16, "tasks": {"processing": turn, "waiting": 100_000}, "nodes": []}
    return [
        {
            "id": f"{n:016x}",
            "spec": {"site": "local", "name": f"many-{n}", "resources": resources},
            "state": "ended" if n >= 190 else "ready",
            "detail": "",
            "jobs": [{"job_id": str(n)}],
            "walltime_left": 1800,
            "counts": counts,
            "error": None,
            "notices": {},
            "created": 0,
            "changed": 0,
        }
        for n in range(200)
    ]


@pytest.mark.timeout(240)
def test_many_clusters_and_queues(lab, browser, tmp_path, figure):
    """With 200 clusters, all of which change, and 50 queues an interaction is answered within 100 ms."""
    here = Here("local", lab.folder / "home")
    for n in range(50):
        here("create", name=f"many-{n}")
    opened = []
    page = browser.new_page()
    # So many real clusters this machine cannot have. (Of a built-in method Playwright cannot find the arguments.)
    page.route_web_socket(re.compile("hpcnb/api/news"), lambda socket: opened.append(socket))  # noqa: PLW0108
    page.goto(f"{lab.url}lab/workspaces/many?token={lab.token}")
    page.get_by_title("HPC clusters").first.click()
    expect(page.locator(".hpcnb-trouble")).to_be_visible()
    until(lambda: page.wait_for_timeout(50) or opened)
    opened[0].send(json.dumps({"type": "clusters", "clusters": many_clusters(0)}))
    expect(page.locator(".hpcnb-card")).to_have_count(200)
    expect(page.locator(".hpcnb-queue[data-name^='many-']")).to_have_count(50)
    page.screenshot(path=tmp_path / "many.png")
    times = []
    for turn in range(1, 6):
        for cluster in many_clusters(turn)[:80]:  # a second's worth, at most (`hpcnb.server.news.RATE`)
            opened[0].send(json.dumps({"type": "cluster", "cluster": cluster}))
        times += page.evaluate(MANY, ["local", 8])
    page.close()
    middle = statistics.median(times)
    figure(f"an interaction with 200 clusters and 50 queues: {middle:.0f} ms, at worst {max(times):.0f} ms")
    # How much else this machine does is not the panel's affair.
    assert middle < (100 if os.environ.get("HPCNB_LAB_LONG") else 1000)
