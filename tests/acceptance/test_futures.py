"""Futures on a whole cluster: before it is ready, while it runs, and when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


def note_and_crash(folder, number):
    """One of these ends its process."""
    note(folder / "ran", number)
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number


def forever(path, number):
    """What only a cancellation ends."""
    note(path, number)
    while True:
        number += 1


def test_a_batch_is_no_more_than_its_calls(cluster, tmp_path):
    """One that crashes is named, and the others have their results; cancelling all of them frees the core."""
    futures = hpc.map(note_and_crash, [tmp_path] * 6, range(6), batch_size=6)
    crashed = futures[3].exception(START)
    assert isinstance(crashed, hpc.TaskFailed)
    assert "SIGSEGV" in str(crashed)
    assert [futures[number].result() for number in (0, 1, 2, 4, 5)] == [0, 1, 2, 4, 5]

    futures = hpc.map(forever, [tmp_path / "begun"] * 4, range(4), batch_size=4)
    wait_for((tmp_path / "begun").exists)
    assert all(future.cancel() for future in futures)
    start = time.monotonic()
    assert hpc.submit(abs, -1).result(START) == 1
    assert time.monotonic() - start < 10
    assert (tmp_path / "begun").read_text() == "0\n"


LEFT = """
import sys
import hpcnb as hpc
cluster = hpc.Cluster(name="left", workers_per_node=1, cores_per_worker=1)
executor = hpc.Executor(cluster)
cluster.wait_until_ready()
mine = [executor.submit(pow, 2, 5), executor.submit(divmod, 3, 2)]
results = executor.map(abs, range(1000))
"""


def test_the_end_of_python_loses_nothing(isolated, tmp_path):
    """An executor that is left is no reason to hang, what it was given comes back; a script waits for its cluster, unless told not to."""
    script = tmp_path / "script.py"
    script.write_text(LEFT)
    subprocess.run([sys.executable, script], check=True, timeout=START)
    script.write_text("import hpcnb as hpc\nhpc.use(hpc.Cluster(name='late'))\ntaken = hpc.submit(abs, -1)")
    said = subprocess.run([sys.executable, script], check=True, timeout=START, capture_output=True, text=True)
    assert said.stderr == "hpcnb: the end of Python waits for the cluster to take 1 calls; Ctrl-C gives them up\n"
    script.write_text(IMPATIENT)
    with subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True) as impatient:
        assert "waits for the cluster" in impatient.stderr.readline()
        impatient.send_signal(signal.SIGINT)
        assert "1 submitted calls are lost" in impatient.stderr.read()
    script.write_text(BACK)
    said = subprocess.run([sys.executable, script], check=True, timeout=START, capture_output=True, text=True)
    assert said.stdout == "[32, (1, 1)]\n"


IMPATIENT = """
import hpcnb as hpc
cluster = hpc.Cluster(name="never")
cluster.become_ready = lambda: __import__("asyncio").sleep(1000)
hpc.use(cluster)
lost = hpc.submit(abs, -1)
"""
BACK = """
import hpcnb as hpc
late = hpc.attach("late")
assert hpc.gather(hpc.futures()) == [1]
late.close()
cluster = hpc.attach("left")
print(hpc.gather(hpc.futures()[:2]))
cluster.close()
"""


def test_joblib_and_scikit_learn_use_the_cluster(isolated):
    """By joblib's own backend for Dask: `n_jobs` are the workers'."""
    import joblib
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    cluster = hpc.Cluster("local", workers_per_node=2, cores_per_worker=1)
    with cluster, joblib.parallel_config("dask", client=cluster.client):
        cluster.client.wait_for_workers(2, START)
        pids = joblib.Parallel(n_jobs=-1)(joblib.delayed(os.getpid)() for _ in range(20))
        search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=2, n_jobs=-1)
        search.fit([[float(x)] for x in range(20)], [2.0 * x for x in range(20)])
    assert os.getpid() not in pids
    assert search.best_params_ == {"alpha": 0.1}
