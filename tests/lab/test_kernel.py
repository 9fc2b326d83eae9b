"""A kernel in an allocation behind a path that is cut in the middle of a cell."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from jupyter_client import BlockingKernelClient

from tests.acceptance.conftest import Executed, Kernel
from tests.lab import faults
from tests.lab.lab import ADA, LONG, NB, until

pytestmark = [pytest.mark.site, pytest.mark.slow]

MANAGE = """
import json, sys
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name="centre")
manager.start_kernel()
print(json.dumps({**manager.get_connection_info(), "key": manager.session.key.decode()}), flush=True)
sys.stdin.read()
manager.shutdown_kernel()
"""
COUNT = """
import pathlib, time
count = 0
while not (pathlib.Path.home() / "stop").exists():
    print(count, flush=True)
    count += 1
    time.sleep(0.02)
"""


class Distant(Kernel):
    """A kernel whose front end is on the laptop, driven from here."""

    def __init__(self, lab):
        self._cells: dict[str, Executed] = {}
        self.server = lab.laptop.start(sys.executable, "-c", MANAGE, user=NB, stdin=subprocess.PIPE)
        known = json.loads(self.server.stdout.readline() or self.server.communicate()[1])
        # The sockets have no network: from here they are the same files, under another name.
        self.client = BlockingKernelClient()
        self.client.load_connection_info({**known, "ip": str(lab.laptop.path(known["ip"]))})
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def close(self):
        self.client.stop_channels()
        self.client.context.destroy()
        _, said = self.server.communicate("")
        assert self.server.returncode == 0, said


@pytest.fixture
def distant(lab):
    """A kernel that has begun; with its shutdown the job is gone."""
    kernel = ("kernel", "install", "centre", "--name", "centre", "--cores-per-node", "1")
    lab.laptop.run(sys.executable, "-m", "hpcnb.cli", *kernel, user=NB)
    kernel = Distant(lab)
    yield kernel
    kernel.close()
    until(lambda: not lab.jobs(), why="the job has ended with the kernel")


@pytest.mark.timeout(240)
def test_a_cut_in_the_middle_of_a_cell(lab, distant):
    """The cell's lines are all there afterwards, once each, and a cell that was sent meanwhile has run."""
    stop = lab.login.path(f"{ADA.home}/stop")
    stop.unlink(missing_ok=True)
    counting = distant.send(COUNT)
    distant.hear_until(lambda: counting.text.count("\n") > 5)
    with faults.cut(lab):
        waiting = distant.send("print(count)")
        over = time.monotonic() + (60 if LONG else 5)
        distant.hear_until(lambda: time.monotonic() > over, 90)
        during = counting.text.count("\n")
        assert distant.server.poll() is None
    distant.hear_until(lambda: counting.text.count("\n") > during + 100)
    stop.touch()
    assert distant.wait(waiting).reply["status"] == "ok"
    printed = [int(line) for line in counting.text.splitlines()]
    assert printed == list(range(int(waiting.text)))
