"""Work is shown under the cell that submitted it: as `nbclient` and a terminal see it, and what stays."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

import hpcnb as hpc
from hpcnb.future.work import PATIENCE
from tests.unit.pilot.host import environment

pytestmark = pytest.mark.slow

UP = """
%load_ext hpcnb
import time
import hpcnb as hpc
%hpc up local --workers-per-node 2 --cores-per-worker 1
def odd(x):
    time.sleep(0.1)
    if x == 7:
        raise ValueError(f"<b>no</b> {x}")
    return x
"""
CELLS = [
    UP,
    "futures = hpc.map(odd, range(60))",
    "hpc.wait(futures);",
    "began = time.monotonic()\nhpc.gather(hpc.map(abs, range(1000)))\ntime.monotonic() - began",
    "waits = [hpc.submit(time.sleep, 2.5), hpc.submit(abs, -1)]\nhpc.wait(waits);",
    "@hpc.task\ndef nap():\n    time.sleep(2.5)\nwith hpc.group('naps'):\n    nap(), nap()",
    "hpc.current().timeline()",
]
SCRIPT = """
import time
import hpcnb as hpc
if __name__ == "__main__":
    with hpc.Cluster("local", workers_per_node=1, cores_per_worker=1) as cluster:
        hpc.use(cluster)
        cluster.wait_until_ready()
        hpc.gather(hpc.map(abs, range(10)))
        hpc.gather(hpc.map(time.sleep, [0.3] * 10))
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """One that was run by a program."""
    from tests.isolation import isolation

    with pytest.MonkeyPatch.context() as monkeypatch, isolation(monkeypatch) as place:
        for name, value in (environment() | place.environ).items():
            monkeypatch.setenv(name, value)
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
        NotebookClient(made, timeout=90, kernel_name="python3").execute()
        yield made


def shown(notebook, cell):
    """The texts under a cell."""
    return [o.data["text/plain"] for o in notebook.cells[cell].outputs if o.output_type == "display_data"]


def test_the_final_state_stays(notebook):
    """Under the cell that submitted a map stands how it ended, though that cell had ended long before; once."""
    (text,) = shown(notebook, 1)
    assert re.match(r"odd: 59 of 60 done, 1 failed, in 0:\d\d\n  odd-\w+\S* failed on 0-\S+: .*<b>no</b> 7", text)
    assert shown(notebook, 2) == []


def test_quick_work_shows_nothing(notebook):
    """A map of a moment leaves nothing but the cell's own value."""
    *more, took = notebook.cells[3].outputs
    assert took.output_type == "execute_result"
    assert more == [] or float(took.data["text/plain"]) > PATIENCE  # on a machine that was held up it was not quick


def test_submits_of_a_cell_and_a_group_are_shown_together(notebook):
    """What a cell submits one by one has one view, and so have the tasks of a group, under its name."""
    assert re.match(r"cell \[5\]: 2 done, in 0:\d\d\n", *shown(notebook, 4))
    assert re.match(r"naps: 2 done, in 0:\d\d\n", *shown(notebook, 5))


def test_an_exported_page_has_it(notebook):
    """The page that `nbconvert` makes has it without a script: the bar, what failed, and markup of others as text."""
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "59 of 60 done" in page
    assert "&lt;b&gt;no&lt;/b&gt; 7" in page
    assert "<b>no</b>" not in page


def test_the_timeline_is_a_picture(notebook):
    """A cluster's life is a picture of what its node did, a light one, and text where there are no pictures."""
    data = notebook.cells[6].outputs[0].data
    assert re.search(
        r"local: ready .*\n  \S+: .*there 0:\d\d, busy [1-9]\d*% of 2 cores\n\d+ tasks have", data["text/plain"]
    )
    assert "<svg" in data["text/html"]
    assert len(data["text/html"]) < 50_000
    assert {"odd", "sleep", "nap"} <= set(re.findall(r">([a-z]+)</text>", data["image/svg+xml"]))


def run_script(tmp_path, isolated, stderr):
    """Start the script with this stderr."""
    (tmp_path / "script.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment() | isolated.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )


def test_a_terminal_has_a_line(tmp_path, isolated):
    """In a terminal, work that takes long is a line on stderr that ends with how it ended; quick work is none."""
    ours, theirs = pty.openpty()
    process = run_script(tmp_path, isolated, theirs)
    os.close(theirs)
    text = b""
    try:
        while more := os.read(ours, 4096):
            text += more
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 0
    lines = re.split(r"[\r\n]+", text.decode().strip())
    assert [line for line in lines if not line.startswith("\x1b[Ksleep [")] == []
    assert re.search(r"\]: 10 done, in 0:\d\d$", lines[-1])
    assert sum("]: 10 done" in line for line in lines) == 1
    assert len(lines) > 1


def test_a_pipe_has_nothing(tmp_path, isolated):
    """A script whose stderr is no terminal says nothing there."""
    process = run_script(tmp_path, isolated, subprocess.PIPE)
    _, said = process.communicate(timeout=90)
    assert (process.returncode, said) == (0, b"")


def test_a_killed_worker_counts_nothing_twice(isolated, tmp_path, monkeypatch):
    """A batch whose worker is killed in the middle is counted once, as tried again, and its calls that had ended, too."""
    seen = []
    view = SimpleNamespace(draw=lambda summary, note: seen.append(summary))
    monkeypatch.setitem(hpc._SHOWN, "hpcnb.future.work", lambda look: view)

    def nap(x):
        time.sleep(0.15)
        if x == 20 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with hpc.Cluster("local", workers_per_node=1, cores_per_worker=1, name="kills") as cluster:
        hpc.use(cluster)
        cluster.wait_until_ready()
        futures = hpc.map(nap, range(30), batch_size=30)
        assert hpc.gather(futures) == list(range(30))
        cluster.client.looks.settle(30)
    assert all(summary.total == 30 for summary in seen)
    assert all(summary.done < 30 for summary in seen if not summary.retried)
    assert (seen[-1].done, seen[-1].left, seen[-1].retried) == (30, 0, 30)
