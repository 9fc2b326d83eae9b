"""A kernel, the agent or both are killed in the middle of everything: `hpc.attach()` in a new kernel brings all of it back."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from tests.acceptance.conftest import Kernel
from tests.isolation import Isolation
from tests.unit.pilot.host import environment, wait_for

pytestmark = pytest.mark.slow

START = 60.0
"""Seconds that a cluster may take on a busy machine."""

WORK = """
import os, time
from pathlib import Path
def task(number):
    with open({folder!r} + "/ran", "a") as ran:
        print(number, file=ran, flush=True)
    while number and not os.path.exists({folder!r} + "/go"):
        time.sleep(0.05)
    if number == 6:
        raise ValueError("the sixth")
    return number * 10
done = hpc.submit(task, 0, tag="first")
done.result()
rest = hpc.map(task, range(1, 7), tag="rest")
dropped = hpc.submit(task, 7)
gone = dropped.key
del dropped
"""


class Notebook(Kernel):
    """A kernel of a notebook, with a cluster on this machine."""

    def __init__(self, place: Isolation) -> None:
        self._cells = {}
        # Each is a new front end, as a page is that was opened anew.
        env = environment() | place.environ | {"JPY_SESSION_NAME": str(place.folder / "work.ipynb")}
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=env)
        self.run("%load_ext hpcnb\nimport hpcnb as hpc")

    @property
    def pid(self) -> int:
        return self.manager.provisioner.pid

    def kill(self) -> None:
        """End it by SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self.close()

    def value(self, expression: str, timeout: float = START) -> object:
        """The value of an expression there."""
        cell = self.wait(self.send(f"print(repr({expression}))"), timeout)
        assert cell.reply["status"] == "ok", cell.outputs
        return eval(cell.text)


@pytest.fixture(scope="module")
def place():
    """Directories, agent and cluster of one user."""
    own = Isolation(Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp")))
    yield own
    own.end()
    shutil.rmtree(own.folder)


@pytest.fixture
def notebook(place):
    """Start a kernel of the notebook; all of them have ended afterwards."""
    started = []

    def start():
        started.append(Notebook(place))
        return started[-1]

    yield start
    for kernel in started:
        if kernel.manager.has_kernel:
            kernel.close()


@pytest.fixture
def begun(place, notebook, tmp_path):
    """A kernel with one finished, one running and five queued futures; and one that it has dropped."""
    kernel = notebook()
    up = kernel.wait(kernel.send("%hpc up --workers-per-node 1 --cores-per-worker 1"), START)
    assert up.reply["status"] == "ok", up.outputs
    work = kernel.wait(kernel.send(WORK.format(folder=str(tmp_path))), START)
    assert work.reply["status"] == "ok", work.outputs
    return kernel


def agent_pid(place):
    [agent] = [p for p in place.processes() if "hpcnb.agent" in p.cmdline()]
    return agent.pid


def test_futures(begun, notebook, tmp_path):
    """Finished, running and queued futures are there after SIGKILL of the kernel."""
    wait_for(lambda: (tmp_path / "ran").read_text() == "0\n1\n")
    begun.kill()
    again = notebook()
    assert again.value("hpc.attach().name") == "local"
    assert again.value("[(f.name, f.tag, f.status) for f in hpc.futures()]") == [
        ("task", "first", "finished"),
        *[("task", "rest", "pending")] * 6,
    ]
    (tmp_path / "go").touch()
    assert again.value("hpc.gather(hpc.futures()[:6])") == [0, 10, 20, 30, 40, 50]
