"""Tasks that kill their workers: they are named after three, and what ran beside them knows how its worker died."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

import hpcnb as hpc
from tests.acceptance.conftest import own_cluster
from tests.unit.pilot.tiny import wait_for

pytestmark = pytest.mark.slow

LONG = 120.0
LIMIT = "400MiB"


@pytest.fixture(scope="module")
def cluster():
    """One worker with two threads, which nothing else has killed."""
    with own_cluster(workers_per_node=1, cores_per_worker=2, memory_per_worker=LIMIT, walltime="30m") as cluster:
        yield cluster


def deadly(folder):
    """It kills its worker, from whichever process it runs in: the worker leads the group of all of them."""
    with open(folder / "runs", "a") as file:
        file.write("x")
    os.kill(os.getpgid(0), signal.SIGKILL)
    signal.pause()


def undermining():
    """It kills the process that forked its own."""
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def test_what_kills_the_process_that_forks_is_named(run):
    """A worker that cannot fork any more is replaced; the task is named, and the next one runs."""
    with pytest.raises(hpc.TaskLost, match="undermining is poison"):
        run(undermining, isolate=True).result(timeout=LONG)
    assert run(os.getpid, isolate=True).result(timeout=LONG)


def spared(number, folder):
    """One of several that run together; the second one kills their worker."""
    return deadly(folder) if number == 1 else -number


def test_what_kills_its_workers_again_and_again_is_poison(cluster, run, tmp_path):
    """A task that kills its worker from its own process, too, is named after three workers; what ran beside it is not."""
    beside = [run(lambda: time.sleep(0.5) or "unharmed") for _ in range(3)]
    task = run(deadly, tmp_path, isolate=True)
    with pytest.raises(hpc.TaskLost, match=r"deadly is poison: the workers that run it die of it") as caught:
        task.result(timeout=LONG)
    assert str(caught.value).count("was killed by SIGKILL") == 3
    assert (tmp_path / "runs").read_text() == "xxx"
    assert [one.result(timeout=LONG) for one in beside] == ["unharmed"] * 3


def test_poison_in_a_batch_is_one_call(cluster, tmp_path):
    """Of calls that are sent together the one that kills their workers is named; the others have their values."""
    futures = hpc.map(spared, range(3), [tmp_path] * 3, batch_size=3)
    with pytest.raises(hpc.TaskLost, match="spared is poison"):
        futures[1].result(timeout=LONG)
    assert [futures[0].result(timeout=LONG), futures[2].result(timeout=LONG)] == [0, -2]
    assert (tmp_path / "runs").read_text() == "xxx"


def survivor(folder):
    """It kills its first worker, and waits on the second one."""
    if not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpgid(0), signal.SIGKILL)
    (folder / "again").touch()
    while not (folder / "stop").exists():
        time.sleep(0.01)
    return "survived"


def test_a_future_knows_how_its_worker_died(cluster, tmp_path):
    """What the node's supervisor says of a dead worker is in the words of the futures that it ran."""
    future = hpc.submit(survivor, tmp_path)
    wait_for((tmp_path / "again").exists)
    said = wait_for(lambda: "was killed" in (why := future.why()) and why)  # the node's word comes by another way
    (tmp_path / "stop").touch()
    assert re.fullmatch(r"survivor .* worker \S+.*, attempt \d; its worker \S+ on .* was killed by SIGKILL", said)
    assert future.result(timeout=LONG) == "survived"


def mean(folder):
    """It has its worker ended for its memory."""
    first = not (folder / "again").exists()
    (folder / "again").touch()
    had = bytearray(2 * int(LIMIT[:3]) << 20) if first else b""
    while had and not (folder / "stop").exists():
        time.sleep(0.01)
    return survivor(folder)


def test_a_future_knows_that_its_worker_had_too_much(cluster, tmp_path):
    """A worker that is ended for its memory: its futures say so, with the figures."""
    (tmp_path / "killed").touch()
    future = hpc.submit(mean, tmp_path)
    wait_for(lambda: "was ended at" in future.why())
    said = future.why()
    (tmp_path / "stop").touch()
    assert re.search(r"its worker \S+ on .* was ended at \d+ MiB: more than 95% of its limit of 400 MiB", said)
    assert future.result(timeout=LONG) == "survived"
