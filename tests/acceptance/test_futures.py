"""Futures on a whole cluster: before it is ready, while it runs, and when it ends."""

from __future__ import annotations

import signal
import threading
import time

import pytest

import hpcnb as hpc
from tests.unit.pilot.host import wait_for

pytestmark = pytest.mark.slow

START = 60.0
"""Seconds that a cluster may take on a busy machine."""


def note(path, number):
    """A task that says that it ran."""
    with open(path, "a") as file:
        print(number, file=file)
    return number


def until(path):
    """A task that ends when a file is there."""
    while not path.exists():
        time.sleep(0.02)
    return "went on"


@pytest.fixture
def cluster(isolated):
    """A cluster of one core that has just been asked for."""
    cluster = hpc.use(hpc.Cluster("local", workers_per_node=1, cores_per_worker=1))
    yield cluster
    cluster.close()


def test_work_is_submitted_before_the_cluster_is_ready(cluster, tmp_path):
    """It waits in order, and depends on each other; Ctrl-C ends a wait, and nothing else; the end has its cause."""
    path, go = str(tmp_path / "ran"), tmp_path / "go"
    futures = [hpc.submit(note, path, number) for number in range(5)]
    futures += hpc.map(note, [path] * 3, [5, 6, futures[4]])
    withdrawn = hpc.submit(note, path, 7)
    assert withdrawn.cancel()
    assert cluster.state != "ready"
    with pytest.raises(TimeoutError):
        futures[0].result(timeout=0)
    assert hpc.gather(futures) == [0, 1, 2, 3, 4, 5, 6, 4]
    assert [int(line) for line in (tmp_path / "ran").read_text().split()] == [0, 1, 2, 3, 4, 5, 6, 4]
    assert withdrawn.cancelled()

    held = hpc.submit(until, go)
    interrupt = threading.Timer(1.0, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        held.result()
    assert not held.done()
    go.touch()
    assert held.result(START) == "went on"

    go.unlink()
    held = hpc.submit(until, go)
    after = hpc.submit(len, held)
    cluster.close()
    for future in (held, after):
        with pytest.raises(hpc.HPCError, match="closed"):
            future.result(START)


def test_a_cluster_that_ends_instead_is_the_cause(cluster):
    """What was submitted to a cluster that never became ready has its end for an error, and nobody waits for ever."""
    future = hpc.submit(abs, -1)
    after = hpc.submit(abs, future)
    cluster.close()
    for one in (future, after):
        assert isinstance(one.exception(START), hpc.HPCError)
    wait_for(lambda: hpc.clusters() == [])
