"""What runs in this process's threads is stopped, politely or not; nothing is raised in what a thread does afterwards."""

from __future__ import annotations

import threading
import time

import pytest

from hpcnb.pilot.worker.pool import ForsakingThreadPoolExecutor
from hpcnb.pilot.worker.running import Running
from tests.unit.pilot.tiny import cut_name, gone, wait_for

PATIENCE = 20.0


@pytest.fixture
def pool():
    """A pool of one thread."""
    pool = ForsakingThreadPoolExecutor(1, "test")
    yield pool
    pool.shutdown()


@pytest.fixture
def running(pool):
    """What runs in it."""
    return Running(pool.forsake)


def begun(running, pool, work, **more):
    """Have work begin in the pool."""
    started = threading.Event()

    def begin(job):
        started.set()
        return work()

    future = pool.submit(running.run, "one", begin, **more)
    assert started.wait(PATIENCE)
    return future


def test_a_stuck_thread_is_given_up_and_replaced(running, pool):
    """What waits in C is over for whoever waits for it; the pool works on with another thread, and the old one ends quietly."""
    gate = threading.Event()
    future = begun(running, pool, lambda: gate.wait(PATIENCE))
    running.stop("one", ValueError("enough"))
    with pytest.raises(ValueError, match="enough"):
        future.result(PATIENCE)
    assert pool.submit(lambda: 7).result(PATIENCE) == 7
    before = threading.active_count()
    gate.set()
    end = time.monotonic() + PATIENCE
    while threading.active_count() >= before:
        assert time.monotonic() < end
        threading.Event().wait(0.01)
    assert pool.submit(lambda: 8).result(PATIENCE) == 8


def test_what_is_caught_is_raised_again(running, pool):
    """Code that catches the exception ends with the reason for which it was stopped, whatever it returns."""

    def deaf():
        for _ in range(2):
            try:
                while True:
                    pass
            except BaseException:
                continue
        return "done"

    future = begun(running, pool, deaf)
    running.stop("one", ValueError("enough"))
    with pytest.raises(ValueError, match="enough"):
        future.result(PATIENCE)


def test_what_is_over_cannot_be_stopped(running, pool):
    """Neither by its name nor by its limit of time."""
    future = begun(running, pool, lambda: 5, limit=0.05, late=lambda job: ValueError("late"))
    assert future.result(PATIENCE) == 5
    running.stop("one", ValueError("enough"))
    assert pool.submit(time.sleep, 0.1).result(PATIENCE) is None


def test_a_limit_of_time(running, pool):
    """Whoever takes longer ends with what is said of the late."""
    future = begun(
        running, pool, lambda: [None for _ in iter(int, 1)], limit=0.05, late=lambda job: ValueError(job.name)
    )
    with pytest.raises(ValueError, match="one"):
        future.result(PATIENCE)


def test_what_a_call_started_is_ended_whatever_its_name(running, pool):
    """A name that Linux has cut in the middle of a letter keeps nobody from ending the call."""
    pids = []

    def work():
        with cut_name() as pid:
            pids.append(pid)
            threading.Event().wait(PATIENCE)

    future = begun(running, pool, work)
    wait_for(lambda: pids)
    running.stop("one", ValueError("enough"))
    with pytest.raises(ValueError, match="enough"):
        future.result(PATIENCE)
    gone(*pids)
