"""Calls on the workers of a real cluster: cancelled, late, crashing, alone; each has a precise error, and harms nobody."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from distributed import Lock, get_worker, rejoin, secede, worker_client

import hpcnb as hpc
from tests.acceptance.conftest import own_cluster
from tests.figures import patient
from tests.unit.pilot.tiny import wait_for

SOON = 2.0
LONG = 60.0
LIMIT = "400MiB"


@pytest.fixture(scope="module")
def cluster():
    """One worker with two threads."""
    with own_cluster(workers_per_node=1, cores_per_worker=2, memory_per_worker=LIMIT, walltime="30m") as cluster:
        yield cluster


def endless(begun):
    """A loop of Python's."""
    begun.touch()
    while True:
        pass


def stubborn(begun):
    """A loop that catches all it can."""
    begun.touch()
    while True:
        try:
            while True:
                pass
        except BaseException:  # as users do
            pass


def asleep(begun):
    """A sleep in C."""
    begun.touch()
    time.sleep(LONG)


def parent(begun):
    """One that waits for a process that has started one itself."""
    command = f"sleep {LONG} & echo $! > {begun}.pid; touch {begun}; wait"
    subprocess.run(["sh", "-c", command], check=True)


async def coroutine(begun):
    """One that waits on the event loop."""
    begun.touch()
    await asyncio.sleep(LONG)


def steady(begun, stop):
    """Another task, which must not notice anything."""
    begun.touch()
    while not stop.exists():
        time.sleep(0.01)
    return "unharmed"


@pytest.mark.alone
@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("fn", [endless, asleep, parent, coroutine])
def test_cancel_frees_the_core(cluster, run, tmp_path, figure, fn, isolate):
    """Cancelled in a loop, in C, in a child process or in a coroutine: the next task starts soon, and others go on."""
    other = run(steady, tmp_path / "other", tmp_path / "stop")
    task = run(fn, tmp_path / "begun", isolate=isolate)
    wait_for(lambda: (tmp_path / "begun").exists() and (tmp_path / "other").exists())
    following = run(os.getpid)
    begun = time.monotonic()
    task.cancel()
    following.result(timeout=LONG)
    freed = time.monotonic() - begun
    figure(f"core free after {freed:.2f} s")
    assert freed < patient(SOON)
    (tmp_path / "stop").touch()
    assert other.result(timeout=LONG) == "unharmed"
    if fn is parent:
        child = int((tmp_path / "begun.pid").read_text())
        wait_for(lambda: not psutil.pid_exists(child))


@pytest.mark.alone
@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("fn", [endless, stubborn, asleep, parent, coroutine])
def test_a_limit_of_time_is_kept(run, tmp_path, fn, isolate):
    """A call that takes too long ends in time with an error that says how long it had, and where it ran."""
    begun = time.monotonic()
    task = run(fn, tmp_path / "begun", timeout=0.7, isolate=isolate)
    with pytest.raises(hpc.TaskTimeout, match=rf"{fn.__name__} took longer than its 0.7 s \(task {fn.__name__}-.*, "):
        task.result(timeout=LONG)
    assert 0.7 < time.monotonic() - begun < 0.7 + patient(SOON)
    assert run(os.getpid).result(timeout=LONG)


def test_what_stops_a_call_does_not_leak_into_the_next(run, tmp_path):
    """Calls that end just when their time is over are over or late, and nothing is raised in what the thread does then."""

    def short():
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass

    tasks = [run(short, timeout=0.02) for _ in range(100)]
    for task in tasks:
        assert isinstance(task.exception(timeout=LONG), hpc.TaskTimeout | None)
    assert len({run(os.getpid).result(timeout=LONG) for _ in range(20)}) == 1


def deep(n=0):
    """Without an end."""
    return deep(n + 1)


def hoard():
    """More than there is, bit by bit."""
    had = []
    while True:
        had.append(os.urandom(16 << 20))


def opened():
    """Nothing that can travel."""
    return {"names": ["a"], "state": [1, Holder()]}


class Holder:
    """It has what cannot travel."""

    def __init__(self):
        self.guard = threading.Lock()


class Odd(Exception):
    """Its class makes pickle fail, and has more to say of it than its message."""

    def __init__(self, number, text):
        super().__init__(f"{number}: {text}")
        self.guard = threading.Lock()


def odd():
    """Raise one that cannot travel."""
    raise Odd(7, "seven")


PRECISE = [
    (lambda: sys.exit(3), hpc.TaskFailed, r"lambda called sys.exit\(3\)"),
    (os.abort, hpc.TaskFailed, r"(?s)abort was killed by SIGABRT \(task abort-.*Fatal Python error: Aborted"),
    (lambda: ctypes.string_at(0), hpc.TaskFailed, r"(?s)lambda was killed by SIGSEGV .*test_calls.py"),
    (lambda: os._exit(4), hpc.TaskFailed, r"lambda exited with status 4"),
    (
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        hpc.TaskLost,
        r"(?s)poison.*its process on .* was killed by SIGKILL",
    ),
    (hoard, hpc.TaskFailed, r"hoard needed more memory than its worker has: \d+ MiB .* the limit is 400 MiB, of which"),
    (deep, RecursionError, "maximum recursion depth exceeded"),
    (opened, hpc.CannotSerialize, r"what opened returned\['state'\]\[1\].guard \(.*lock\) cannot be pickled"),
    (odd, hpc.TaskFailed, "odd raised Odd, which cannot be pickled: 7: seven"),
]


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize(("fn", "error", "message"), PRECISE, ids=[message[:30] for _, _, message in PRECISE])
def test_each_end_is_a_precise_error_on_its_own_future(cluster, run, tmp_path, fn, error, message, isolate):
    """Exits, crashes, endless recursion and memory, values and errors that cannot travel: named, and the worker works on."""
    other = run(steady, tmp_path / "other", tmp_path / "stop")
    wait_for((tmp_path / "other").exists)
    task = run(fn, isolate=isolate)
    with pytest.raises(error, match=message):
        task.result(timeout=LONG)
    (tmp_path / "stop").touch()
    assert other.result(timeout=LONG) == "unharmed"


@pytest.mark.parametrize("isolate", [False, True])
def test_a_large_value_comes_back_or_is_a_precise_error(run, isolate):
    """What a worker has the memory for, it can return; a gigabyte in a worker of 400 MiB is named, and breaks nothing."""
    workers = run(os.getppid).result(timeout=LONG)
    with pytest.raises(
        hpc.TaskFailed,
        match=r"(returned 954 MiB, more than its worker can hold; its|bytes needed more memory.* the) limit is 400 MiB",
    ):
        run(bytes, 1_000_000_000, isolate=isolate).result(timeout=LONG)
    assert len(run(bytes, 100_000_000, isolate=isolate).result(timeout=LONG)) == 100_000_000
    assert run(os.getppid).result(timeout=LONG) == workers


def family():
    """What a task asks of Dask."""
    with worker_client() as client:
        below = client.gather(client.map(abs, [-1, -2]))
    with Lock("one"):
        pass
    secede()
    rejoin()
    return below, get_worker().address == get_worker().address, get_worker().get_current_task()


@pytest.mark.parametrize("isolate", [False, True])
def test_what_dask_offers_a_task_works(run, isolate):
    """Nested tasks, locks, seceding and the worker itself are there as in any task of Dask's."""
    tasks = [run(family, isolate=isolate) for _ in range(4)]
    for task in tasks:
        assert task.result(timeout=LONG) == ([1, 2], True, task.key)
    assert tasks[0].key.startswith("family-")


async def gently(number):
    """A coroutine function."""
    await asyncio.sleep(0)
    return -number


def test_coroutine_functions_run(run):
    """A coroutine function is awaited, here or in a process of its own."""
    assert [run(gently, 4).result(timeout=LONG), run(gently, 5, isolate=True).result(timeout=LONG)] == [-4, -5]


def test_isolated_arrays_come_back_whole_and_writable(run):
    """An array goes into a process of its own and back."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1_000_000.0)
    back = run(lambda: numpy.negative(array), isolate=True).result(timeout=LONG)
    back[0] = 1.0
    assert back[-1] == -999_999.0


def broken(value):
    """It fails in the middle of a line."""
    return 1 + (2 / value)


@pytest.mark.parametrize("isolate", [False, True])
def test_a_script_sees_the_line_that_failed(run, isolate):
    """Without IPython, too, what is printed names the task, its host and the place in the line; nothing of ours is in it."""
    error = run(broken, 0, isolate=isolate).exception(timeout=LONG)
    shown = str(error.__cause__)
    assert re.search(rf"in task broken-\S+, {socket.gethostname()}", shown)
    assert "    return 1 + (2 / value)\n                ~~^~~~~~~\n" in shown
    assert "hpcnb/" not in shown
    assert "call.py" not in shown


def member(number, folder, how):
    """One of several that run one after the other; the second one does not end."""
    with open(folder / f"ran-{number}", "a") as file:
        file.write("x")
    if number == 1:
        how(folder / "begun")
    return -number


@pytest.mark.parametrize("how", [endless, asleep, parent])
def test_one_call_of_a_batch_is_cancelled_by_itself(cluster, tmp_path, how):
    """Cancelled in a loop, in C or in a child process, before its turn or in it: it ends, and the others have their values."""
    hpc.use(cluster)
    futures = hpc.map(member, range(5), [tmp_path] * 5, [how] * 5, batch_size=5)
    wait_for((tmp_path / "begun").exists)
    assert futures[3].cancel()  # before the other one, whose end makes room for it
    assert futures[1].cancel()
    assert [futures[number].result(timeout=LONG) for number in (0, 2, 4)] == [0, -2, -4]
    assert [futures[number].cancelled() for number in range(5)] == [False, True, False, True, False]
    ran = {path.name: path.read_text() for path in tmp_path.glob("ran-*")}
    assert ran.pop("ran-0") in ("x", "xx")  # what does not end in C makes the others run elsewhere
    assert ran == {"ran-1": "x", "ran-2": "x", "ran-4": "x"}
    if how is not asleep:
        assert (tmp_path / "ran-0").read_text() == "x"
    if how is parent:
        child = int((tmp_path / "begun.pid").read_text())
        wait_for(lambda: not psutil.pid_exists(child))


def test_a_task_that_would_start_a_cluster(cluster):
    """It is told where that is done, and what it can do."""

    def within():
        import hpcnb

        return hpcnb.submit(abs, -1).result()

    def by_dask():
        with worker_client() as client:
            return client.submit(abs, -1).result()

    with pytest.raises(hpc.NotReady, match="this runs on a cluster, where hpcnb knows no sites") as caught:
        hpc.submit(within).result()
    assert "distributed.worker_client()" in str(caught.value)
    assert hpc.submit(by_dask).result() == 1
