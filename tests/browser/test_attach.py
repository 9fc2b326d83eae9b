"""Without our extension, a page is closed while cells run: after it is opened anew, `%hpc attach` shows their output, whole."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.slow

COUNT = """%%hpc {options}
import os, time
number = 0
while not os.path.exists({file!r}):
    print({name!r}, number, flush=True)
    number += 1
    time.sleep(0.05)
print({name!r}, "ends")
"""


@pytest.fixture(scope="module", autouse=True)
def cluster(lab):
    """One that the notebooks find, in pages that do not go on by themselves (`test_reload.py`)."""
    lab.leave_panel_out()
    lab.command("up")


def counted(text, name):
    """The numbers that a counter has printed."""
    return [int(number) for number in re.findall(rf"^{name} (\d+)$", text, re.MULTILINE)]


def test_a_closed_page(notebook, lab, browser, tmp_path):
    """A cell that ended unseen, and one that still runs: a block for each, without a gap, and the user is told of them."""
    one, other = tmp_path / "one", tmp_path / "other"
    page = notebook(
        "%load_ext hpcnb",
        COUNT.format(options="--detach -s other", name="other", file=str(other)),
        COUNT.format(options="-s one", name="one", file=str(one)),
        "%hpc",
        "%hpc attach",
        "%%hpc -s one\nprint('after', number)",
        "%hpc attach",
    )
    page[0].run()
    page[1].run().wait_for("other 3\n")
    page[2].run().wait_for("one 3\n")
    page.save()
    page.page.close()
    one.touch()
    page.open(lab, browser.new_page())

    page[3].run().wait_for("cell [2], [3] printed what this page may not show: see `%hpc attach`")
    page[5].run().wait().wait_for(re.compile(r"after \d+\n"))
    number = int(re.search(r"after (\d+)", page[5].text)[1])
    page[4].run().wait().wait_for("other 3\n")
    other.touch()
    page[4].wait_for("other ends\n").wait_for("cell [2] in session other, ended ok just now")
    text = page[4].text
    assert text.index("cell [3] in session one, ended ok just now") < text.index("cell [2] in session other, runs")
    assert counted(text, "one") == list(range(number))
    assert len(counted(text, "other")) > number
    assert counted(text, "other") == list(range(len(counted(text, "other"))))
    page[6].run().wait()
    assert "cell [" not in page[6].text


@pytest.mark.timeout(180)
def test_work_in_a_closed_page(notebook, lab, browser, tmp_path):
    """Work that goes on is shown anew, where it was asked for, and followed to its end; not twice, and not what has ended."""
    page = notebook(
        "%load_ext hpcnb\nimport hpcnb as hpc, os, time",
        f"""def wait(number):
    while not os.path.exists({str(tmp_path)!r} + f"/{{number}}"): time.sleep(0.05)""",
        "shorter = hpc.map(wait, [1, 1])",
        "longer = hpc.map(wait, [2, 2, 2])",
        "%hpc attach",
        "%hpc attach",
    )
    for number in range(4):
        page[number].run().wait()
    page[2].wait_for("0 of 2 done")
    page[3].wait_for("0 of 3 done")
    (tmp_path / "1").touch()
    page[2].wait_for("wait 2 done in")
    page.save()
    page.page.close()
    page.open(lab, browser.new_page())
    page[4].run().wait().wait_for("0 of 3 done")
    assert "wait 2 done" not in page[4].text
    page.picture(tmp_path / "attached.png")
    (tmp_path / "2").touch()
    page[4].wait_for("wait 3 done in")
    page[5].run().wait().wait_for("session")
    assert "wait 3 done" not in page[5].text
