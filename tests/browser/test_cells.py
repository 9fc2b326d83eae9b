"""`%%hpc` cells in JupyterLab: the stop button, output in its place, questions, errors, floods, a reload."""

from __future__ import annotations

import re
import time

import pytest

pytestmark = pytest.mark.slow

LOAD = "%load_ext hpcnb"
PROMPT = 2.0
"""Seconds within which an interrupted cell has ended."""
SLACK = 1.5
"""Seconds until a busy browser shows what has happened."""


@pytest.fixture(scope="module", autouse=True)
def cluster(lab):
    """A cluster that the notebooks find."""
    lab.command("up")


def test_the_stop_button(notebook):
    """A cell that is busy, and one that sleeps, end at once with KeyboardInterrupt; the session has its variables."""
    page = notebook(
        LOAD,
        "%%hpc -s stop\nkept = 'kept'",
        "%%hpc -s stop\nprint('begun')\nwhile True: pass",
        "%%hpc -s stop\nprint(kept)",
        "%%hpc -s stop\nimport time\nprint('begun')\ntime.sleep(1000)",
        "%%hpc -s stop\nprint(kept, 'again')",
    )
    page[0].run().wait()
    page[1].run().wait()
    for busy, after in ((2, "kept\n"), (4, "kept again\n")):
        page[busy].run().wait_for("begun")
        began = time.monotonic()
        page.interrupt()
        page[busy].wait_for("KeyboardInterrupt", PROMPT + SLACK).wait(SLACK)
        print("stopped in", time.monotonic() - began)
        print(page[busy]._found.locator(".jp-OutputArea").inner_html())
        page[busy + 1].run().wait()
        assert page[busy + 1].text == after


def test_output_lands_in_its_own_cell(notebook):
    """Three detached cells and a local one print in turns, each into its own output."""
    code = "import time\nfor i in range(20):\n    print('{0}', i, flush=True)\n    time.sleep(0.1)"
    remote = [f"%%hpc --detach -s {name}\n" + code.format(name) for name in "abc"]
    page = notebook(LOAD, *remote, code.format("local"))
    page[0].run()
    for i in range(1, 5):
        page[i].record()
        page[i].run()
    for i, name in enumerate(("a", "b", "c", "local"), 1):
        page[i].wait_for(f"{name} 19").wait()
        print(page[i].outputs().all_inner_texts())
        print(page[i].history()[0], page[i].history()[-1], len(page[i].history()))


def test_a_question(notebook):
    """input() asks under the cell, and the answer arrives."""
    page = notebook(LOAD, "%%hpc -s ask\nprint('hello', input('name? '))")
    page[0].run()
    page[1].run().answer("name? ", "Ada")
    page[1].wait()
    print(repr(page[1].text))


def test_an_error(notebook):
    """The traceback's arrows point at the lines as they are numbered in the cell."""
    page = notebook(LOAD, "%%hpc -s error\ndef inner():\n    return 1 / 0\n\ninner()")
    page[0].run()
    page[1].run().wait()
    print(page[1].text)
    print(page[1]._found.locator(".jp-OutputArea").inner_html())


def test_a_display_is_updated_in_place(notebook):
    """One output, changed by the cell that made it, and by a later one."""
    page = notebook(
        LOAD,
        "%%hpc -s update\nshown = display('one', display_id=True)\nfor word in 'two', 'three': shown.update(word)",
        "%%hpc -s update\nshown.update('four')",
    )
    page[0].run()
    page[1].run().wait_for("three").wait()
    page[2].run().wait()
    page[1].wait_for("four")
    print(page[1].outputs().all_inner_texts(), page[2].outputs().all_inner_texts())


def test_a_flood(notebook):
    """Of 100,000 lines a part is shown, with a note; the page answers meanwhile."""
    page = notebook(LOAD, "%%hpc -s flood\nfor i in range(10**5): print('line', i)", "1 + 1")
    page[0].run().wait()
    page[1].record()
    page[1].run()
    page[2].run()
    slowest = 0
    began = time.monotonic()
    while page[1]._prompt.inner_text() == "[*]:":
        t = time.monotonic()
        page.page.evaluate("() => new Promise(requestAnimationFrame)")
        slowest = max(slowest, time.monotonic() - t)
    print("took", time.monotonic() - began, "slowest frame", slowest)
    page[1].wait_for("line 99999")
    page[2].wait()
    print(page[1].outputs().count(), page[1].text[:200], page[1].text[-900:])


def test_a_reload(notebook):
    """The kernel goes on."""
    page = notebook(
        LOAD,
        "%%hpc -s reload\nimport time\nfor i in range(80):\n    print('line', i, flush=True)\n    time.sleep(0.1)\nkept = i",
        "%%hpc -s reload\nprint(kept)",
    )
    page[0].run().wait()
    page[1].run().wait_for("line 2")
    page.page.reload()
    page.page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'")
    for _ in range(10):
        t = page[1]._found.locator(".jp-OutputArea")
        print(page[1]._prompt.inner_text(), repr(t.inner_text()[-100:]) if t.count() else None, page.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"))
        page.page.wait_for_timeout(1000)
    page[2].run().wait()
    print(page[1].text, page[2].text)
