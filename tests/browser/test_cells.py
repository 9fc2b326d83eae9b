"""`%%hpc` cells in JupyterLab: the stop button, output in its own cell, questions, errors, floods."""

from __future__ import annotations

import re
import time

import pytest

from tests.figures import patient
from tests.site.account import until

pytestmark = pytest.mark.slow

LOAD = "%load_ext hpcnb"
PROMPT = 2.0
"""Seconds within which an interrupted cell has ended."""
SLACK = 2.0
"""Seconds until a busy browser shows what has happened."""


@pytest.fixture(scope="module", autouse=True)
def cluster(lab):
    """One that the notebooks find."""
    lab.command("up")


@pytest.mark.alone
def test_the_stop_button(notebook):
    """A cell that is busy, and one that sleeps, end at once with KeyboardInterrupt; the session has its variables."""
    page = notebook(
        LOAD,
        "%%hpc -s stop\nkept = 'kept'",
        "%%hpc -s stop\nprint('begun')\nwhile True: pass",
        "%%hpc -s stop\nprint(kept)",
        "%%hpc -s stop\nimport time\nprint('begun')\ntime.sleep(1000)",
        "%%hpc -s stop\nprint(kept)",
    )
    page[0].run()
    page[1].run()
    for busy, line in ((2, "----> 3 while True: pass"), (4, "----> 4 time.sleep(1000)")):
        page[busy].run().wait_for("begun")
        began = time.monotonic()
        page.interrupt()
        page[busy].wait()
        assert time.monotonic() - began < patient(PROMPT + SLACK)
        page[busy].wait_for(line).wait_for(re.compile(r"KeyboardInterrupt: \s*$"))
        page[busy + 1].run().wait().shows("kept")


def test_output_lands_in_its_own_cell(notebook, tmp_path):
    """Three detached cells and a local one print in turns, each into its own output."""
    go = tmp_path / "go"
    code = "import os, time\nfor i in range(20):\n    print('{0}', i, flush=True)\n    time.sleep(0.1)\n"
    code += f"    while i == 10 and not os.path.exists({str(go)!r}): time.sleep(0.05)"
    names = ("a", "b", "c", "local")
    detached = [f"%%hpc --detach -s {name}\n" + code.format(name) for name in names[:3]]
    page = notebook(LOAD, *detached, code.format("local"))
    page[0].run()
    for i in range(1, 5):
        page[i].record()
        page[i].run()
    for i, name in enumerate(names, 1):
        page[i].wait_for(f"{name} 10")
    go.touch()
    for i, name in enumerate(names, 1):
        page[i].wait_for(f"{name} 19").wait()
        printed = page[i].outputs('[data-mime-type="application/vnd.jupyter.stdout"]')
        until(lambda: printed.all_inner_texts() == ["".join(f"{name} {j}\n" for j in range(20))])  # noqa: B023
    times = [[sight["at"] for sight in page[i].history() if re.search(r"[a-z] \d", sight["text"])] for i in range(1, 5)]
    assert max(first for first, *_ in times) < min(last for *_, last in times), "they did not print at the same time"


def test_a_question(notebook):
    """input() asks under the cell, and the answer arrives."""
    page = notebook(LOAD, "%%hpc -s ask\nprint('hello', input('name? '))")
    page[0].run()
    page[1].run().answer("name? ", "Ada")
    page[1].wait()
    page[1].shows("name?  Ada", "hello Ada")


def test_an_error(notebook):
    """The traceback's arrows point at the lines as they are numbered in the cell."""
    page = notebook(LOAD, "%%hpc -s error\ndef inner():\n    return 1 / 0\n\ninner()")
    page[0].run()
    page[1].run().wait().wait_for("ZeroDivisionError: division by zero")
    [shown] = page[1].errors
    assert re.findall("-> .*", shown) == ["-> 5 inner()", "-> 3     return 1 / 0"]
    assert shown.endswith("ZeroDivisionError: division by zero")


def test_a_display_is_updated_in_place(notebook):
    """One output, changed by the cell that made it, and by a later one."""
    page = notebook(
        LOAD,
        "%%hpc -s update\nshown = display('one', display_id=True)\nfor word in 'two', 'three': shown.update(word)",
        "%%hpc -s update\nshown.update('four')",
    )
    page[0].run()
    page[1].run().wait_for("three")
    page[2].run().wait()
    page[1].shows("'four'")
    page[2].shows()


@pytest.mark.alone
def test_a_flood(notebook):
    """Of 100,000 lines the first and the last are shown, with a note; the page answers meanwhile; the log has all."""
    page = notebook(LOAD, "%%hpc -s flood\nfor i in range(10**5): print('line', i)", "%hpc logs flood -n 2")
    page[0].run()
    page[1].run().wait_for("line 100\n")
    began = time.monotonic()
    page.page.evaluate("() => new Promise(requestAnimationFrame)")
    assert time.monotonic() - began < patient(SLACK)
    page[1].wait().wait_for("line 99999")
    first, last = page[1].outputs().all_inner_texts()
    assert first == "".join(f"line {i}\n" for i in range(1000))
    assert last.startswith("… 99,000 lines more, all of them: `%hpc logs flood`\n")
    page[2].run().wait().wait_for("line 99998\nline 99999")
