"""How much memory the processes of a node have, and whom the kernel has killed for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hpcnb.pilot import memory
from hpcnb.pilot.memory import Gauge

MIB = 2**20

GROWS = """
import subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", "x = bytearray(100 << 20); print(1, flush=True); input()"], stdin=0)
grandchild.wait()
"""


@pytest.fixture
def grown():
    """A process whose own child has 100 MiB."""
    with subprocess.Popen([sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def test_a_peak_is_kept(grown, tmp_path, monkeypatch):
    """The most that a node's processes had is in a file, with whose it was; their own children count."""
    monkeypatch.setattr(memory, "EVERY", 0.0)
    gauge = Gauge(tmp_path / "memory-n1.json", "n1", 64 * MIB)
    gauge.look({"sessions": grown, "gone": 2**22 - 1})
    peak = json.loads((tmp_path / "memory-n1.json").read_text())
    assert (peak["node"], peak["limit"], peak["largest"]) == ("n1", 64 * MIB, "sessions")
    assert 100 * MIB < peak["used"] == gauge.used < 200 * MIB
    gauge.look({})
    assert json.loads((tmp_path / "memory-n1.json").read_text()) == peak


def test_what_is_far_from_the_limit_is_not_written(tmp_path):
    """A node with memory to spare writes nothing; a full disk, or no such place, ends nothing."""
    path = tmp_path / "memory-n1.json"
    Gauge(path, "n1", 1 << 50).look({"me": os.getpid()})
    assert not path.exists()
    Gauge(tmp_path / "nowhere" / "m.json", "n1", 1).look({"me": os.getpid()})


@pytest.mark.parametrize("name", memory.KILLS)
def test_the_kernel_kills(name, tmp_path, monkeypatch):
    """A process that the kernel killed for want of memory is told once, in either hierarchy of cgroups."""
    count = tmp_path / name
    count.write_text("low 0\noom_kill 3\nmax 7\n")
    monkeypatch.setattr(memory, "_counter", lambda: count)
    gauge = Gauge(tmp_path / "peak", "n1", 1)
    assert not gauge.has_killed()
    count.write_text("low 0\noom_kill 4\nmax 7\n")
    assert (gauge.has_killed(), gauge.has_killed()) == (True, False)
    count.unlink()
    assert not gauge.has_killed()
