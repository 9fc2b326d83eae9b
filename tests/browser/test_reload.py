"""A page is loaded anew, or closed and opened elsewhere, in the middle of work: its cells go on showing what they do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.test_attach import COUNT, counted
from tests.site.account import slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not Path(__file__, "../../../labextension/dist").resolve().exists(),
        reason="the panel was not built: apt-get install npm",
    ),
]

LOAD = """
%load_ext hpcnb
import os, time
import hpcnb as hpc
def one(number):
    while not os.path.exists(f"{folder}/{{number}}"): time.sleep(0.05)
    return number
"""
WORK = "print('before')\nfutures = hpc.map(one, range(4))\nprint('after')"


@pytest.fixture(scope="module", autouse=True)
def cluster(lab):
    """One that the notebooks find."""
    lab.command("up", "--workers-per-node", "1", "--cores-per-worker", "4")
    yield
    assert "UNKNOWN" not in (lab.folder / "jupyter.log").read_text()  # no kernel was asked that does not know us


WIDGETS = re.compile("Comm not found for comm id|widget model not found")
"""What JupyterLab complains of when a widget changes, or is closed, before a page that is loaded anew has got it."""
DIRTY = "() => window.jupyterapp.shell.currentWidget.context.model.dirty"


def whole(text):
    """The numbers that the counter has printed: from the first, without a gap, and none twice."""
    numbers = counted(text, "line")
    assert numbers == list(range(len(numbers)))
    return numbers


@pytest.fixture
def begun(notebook, tmp_path):
    """A notebook with work, a cell that counts, and one that waits for its turn; saved when they have begun."""
    page = notebook(
        LOAD.format(folder=tmp_path),
        WORK,
        COUNT.format(options="-s reload", name="line", file=str(tmp_path / "stop")),
        "print('the next one')",
        "%hpc",
        "%hpc attach",
    )
    page[0].run().wait()
    page[1].run().wait().wait_for("0 of 4 done")
    page[2].run().wait_for("line 3\n")
    page[3].run()
    page.save()
    page[2].wait_for("line 20\n")
    page.expected = WIDGETS
    return page


def finish(page, folder):
    """Let all end, and look at it."""
    for name in ("stop", *range(4)):
        (folder / f"{name}").touch()
    page[2].wait().wait_for("line ends\n")
    page[3].wait().shows("the next one")
    page[1].wait_for("one 4 done in")
    assert page[1].printed == "before\nafter\n"
    expect(page[1].outputs().get_by_text("4 done")).to_have_count(2)  # the headline and the legend
    whole(page[2].printed)


def test_reloaded_while_it_runs(begun, tmp_path):
    """Work and a cell go on in the page as if nothing had been, and what runs has its star."""
    page = begun
    page.reload()
    page[2].wait_for("line 30\n")
    page.picture(tmp_path / "reloaded.png")
    expect(page[2].prompt).to_have_text("[*]:")
    expect(page.page.locator(".jp-StatusBar-Widget")).to_contain_text("Busy")
    (tmp_path / "1").touch()
    page[1].wait_for("1 of 4 done")
    finish(page, tmp_path)
    expect(page[2].prompt).to_have_text("[3]:")
    page.picture(tmp_path / "ended.png")


def test_ended_while_closed(begun, lab, browser, tmp_path):
    """In another browser, after the end of all, it is there; once, also when it was saved, and nobody is reminded of it."""
    page = begun
    page.page.close()
    for name in ("stop", *range(4)):
        (tmp_path / f"{name}").touch()
    other = browser.browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page.open(lab, other.new_page())
        finish(page, tmp_path)
        expect(page[2].prompt).to_have_text("[3]:")
        page[4].run().wait().wait_for(" ready")
        assert "may not show" not in page[4].text
        page.picture(tmp_path / "ended.png")
        page.save()
        before = [page[number].text for number in (1, 2, 3)]
        page.reload()
        page[5].run().wait().wait_for("session")
        assert [page[number].text for number in (1, 2, 3)] == before
        assert "may not" not in page[5].text
    finally:
        page.open(lab, browser.new_page())  # who closes the notebook does so there
        other.close()


def test_two_pages(begun, lab, browser, tmp_path):
    """A second page of the notebook leaves a cell to the one that has run it, until that is closed."""
    first, page = begun.page, begun
    page.open(lab, browser.new_page(), "busy")
    page[1].wait_for("0 of 4 done")
    shown = len(whole(page[2].printed))
    printed = first.locator(".jp-NotebookPanel .jp-CodeCell .jp-OutputArea").nth(2)
    expect(printed).to_contain_text(f"line {shown + 50}\n")
    assert len(whole(page[2].printed)) == shown
    assert not page.page.evaluate(DIRTY)
    first.close()
    page[2].wait_for(f"line {shown + 60}\n")
    finish(page, tmp_path)


def test_the_tab_is_closed_and_the_kernel_restarted(begun, tmp_path):
    """A notebook that is closed and opened within JupyterLab goes on, too; a restart takes the star away."""
    page = begun
    page.page.evaluate("() => window.jupyterapp.shell.currentWidget.close()")
    page.page.locator(".jp-Dialog").get_by_role("button", name="Discard").click()
    expect(page.page.locator(".jp-NotebookPanel")).to_have_count(0)
    page.page.evaluate("path => window.jupyterapp.commands.execute('docmanager:open', {path})", page.path.name)
    page[2].wait_for("line 60\n")
    expect(page[2].prompt).to_have_text("[*]:")
    page.restart()
    expect(page[2].prompt).to_have_text("[ ]:")
    printed = len(whole(page[2].printed))
    page[0].run().wait()
    page[3].run().wait().shows("the next one")
    assert len(whole(page[2].printed)) == printed


@pytest.mark.site
def test_reloaded_in_the_queue(site, notebook, tmp_path):
    """What a cell waits for is told on, until it need not wait any more."""
    job = slurm(site, "sbatch", "--parsable", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 600")
    page = notebook("%load_ext hpcnb", "%hpc up box --nodes 2", "%%hpc\nprint('there')")
    page[0].run().wait()
    page[1].run().wait_for("next in main")
    page[2].run()
    page.reload()
    page[1].record()
    page[1].wait_for("next in main")
    page.picture(tmp_path / "queued.png")
    slurm(site, "scancel", job)
    page[1].wait().wait_for(" ready")
    page[2].wait().shows("there")
    assert len({sight["text"] for sight in page[1].history()}) > 3
    assert page[1].outputs().count() == 1
    assert [page[number].prompt.inner_text() for number in range(3)] == ["[1]:", "[2]:", "[3]:"]


def test_stopped_after_a_reload(notebook):
    """The stop button ends a cell that an earlier page has run; what it has printed is there to the last line."""
    page = notebook(
        "%load_ext hpcnb",
        "%%hpc -s stop\nimport itertools, time\nfor i in itertools.count():\n    print('line', i)\n    time.sleep(0.1)",
        "%%hpc -s stop\nprint(i)",
        "%hpc logs stop -n 1000",
    )
    page[0].run()
    page[1].run().wait_for("line 2\n")
    page.save()
    page.reload()
    page[1].wait_for("line 20\n")
    page.interrupt()
    page[1].wait().wait_for(re.compile(r"KeyboardInterrupt: \s*$"))
    page[2].run().wait().wait_for(re.compile(r"\d"))
    last = int(page[2].printed)
    page[3].run().wait().wait_for(f"line {last}")
    assert page[1].printed == "".join(f"line {number}\n" for number in range(last + 1))
    assert page[1].printed in page[3].printed
