"""`hpc.Executor` by CPython's own tests of executors, from the `test` package of the Python that runs this, and by ours.

What of them is left out, and why:

* Tests of how threads and processes are started, counted, named, re-used, given an initializer, killed or joined
  (`InitializerMixin`, `FailingInitializerMixin`, most of `ThreadPool…Test` and `ProcessPool…Test`, `max_workers`): a
  cluster's workers are the cluster's.
* `test_interpreter_shutdown`, `test_submit_after_interpreter_shutdown`, `test_hang_gh83386`: programs that name a class of
  `concurrent.futures`. How ours behaves at the end of Python is tested in `tests/acceptance/test_futures.py`.
* `test_map_submits_without_iteration`, `test_pending_calls_race`, `test_executor_map_current_future_cancel`: they share a list,
  or an event, with what they run, which takes threads of one process; the first two have counterparts here.
* `test_cancel_futures`: it believes that one of fifty calls runs as soon as they are submitted. Its counterpart is here.
* `test_traceback`: `concurrent.futures` puts the remote traceback into a cause; ours is the exception's own (see
  `test_future.py`).
* `ExecutorDeadlockTest`: crashes while arguments or results travel, and a pool that is broken by them. One worker's end
  breaks no cluster.
* `FutureTests`: of futures that a test makes itself; ours are made by submitting. Their protocol is tested in
  `test_future.py`.
"""

from __future__ import annotations

import concurrent.futures as cf
import importlib
import itertools
import sys
import unittest
from types import SimpleNamespace

import pytest
import test

import hpcnb as hpc
from hpcnb.future import executor as executor_module
from tests.unit.future.tasks import DEADLINE, fails, gate, waits
from tests.unit.pilot.host import wait_for

pytestmark = pytest.mark.slow

DEBIAN = f"/usr/lib/python3.{sys.version_info.minor}/test"
"""Where Debian has the tests, whoever made this Python."""


def cpython(*places):
    """A class of CPython's tests, from the first module that has it; or one whose test is skipped."""
    if DEBIAN not in test.__path__:
        test.__path__.append(DEBIAN)
    for place in places:
        module, name = place.split(":")
        try:
            return getattr(importlib.import_module(f"test.test_concurrent_futures{module}"), name)
        except (ImportError, AttributeError):
            continue
    return unittest.skip("this Python comes without its own tests (Debian: libpython3-testsuite)")(
        type("Nothing", (), {})
    )


@pytest.fixture
def executor(client):
    """An executor on the cluster of these tests."""
    gate.clear()
    return hpc.Executor(SimpleNamespace(early_client=client))


class Ours:
    """What CPython's mixins ask for."""

    worker_count = 2

    @pytest.fixture(autouse=True)
    def _executor(self, executor):
        self.executor = executor
        yield
        self.executor.shutdown()


class TestExecutor(Ours, cpython(":ExecutorTest", ".executor:ExecutorTest"), unittest.TestCase):
    """Submit and map."""

    test_max_workers_negative = None
    test_map_chunksize = getattr(
        cpython(":ProcessPoolExecutorTest", ".test_process_pool:ProcessPoolExecutorTest"), "test_map_chunksize", None
    )


class TestWait(Ours, cpython(":WaitTests", ".test_wait:WaitTests"), unittest.TestCase):
    """`concurrent.futures.wait`."""


class TestAsCompleted(Ours, cpython(":AsCompletedTests", ".test_as_completed:AsCompletedTests"), unittest.TestCase):
    """`concurrent.futures.as_completed`."""


class TestShutdown(Ours, cpython(":ExecutorShutdownTest", ".test_shutdown:ExecutorShutdownTest"), unittest.TestCase):
    """The end of an executor."""

    test_interpreter_shutdown = None
    test_submit_after_interpreter_shutdown = None
    test_hang_gh83386 = None
    test_cancel_futures = None


def test_what_runs_is_not_cancelled(executor, client):
    """At the end of an executor what runs comes to its end, and what waits is cancelled."""
    running = [executor.submit(waits) for _ in range(2)]
    wait_for(lambda: client.executing() == {one.key for one in running})
    waiting = [executor.submit(abs, -number) for number in range(50)]
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    assert [future.result(DEADLINE) for future in running] == [0, 0]
    assert all(future.cancelled() for future in waiting)


def test_a_map_is_sent_without_being_read(executor, client):
    """All of it, before `map` returns; the end of the executor waits for it."""
    with executor:
        results = executor.map(waits, range(4), chunksize=2)
        assert len(client.ledger._open) == 2
        gate.set()
    assert not client.ledger._open
    assert list(results) == list(range(4))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(abs, [-1])


def test_a_map_with_a_buffer_is_read_as_it_is_taken(executor):
    """Endless elements are taken as far ahead as was said."""
    taken = []
    numbers = (taken.append(number) or number for number in itertools.count())
    results = executor.map(abs, numbers, buffersize=3)
    assert taken == [0, 1, 2]
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert taken == list(range(8))
    results.close()
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(abs, [], buffersize=0)


def test_what_is_left_of_a_map_is_cancelled(executor, client):
    """When its time is over, when a call fails, and when nobody reads on."""
    results = executor.map(waits, range(5), timeout=0, chunksize=1)
    with pytest.raises(TimeoutError):
        next(results)
    gate.set()
    results = executor.map(fails, ["a", "b"], chunksize=1)
    with pytest.raises(ValueError, match="a"):
        next(results)
    results = executor.map(abs, range(5), chunksize=2)
    assert next(results) == 0
    results.close()
    executor.shutdown()
    assert not client.ledger._open


def test_one_that_is_shut_down_may_leave_its_calls(executor):
    """Without waiting, and with what does not run yet cancelled."""
    futures = [executor.submit(waits, number) for number in range(6)]
    while len(executor._cluster.early_client.executing()) < 2:
        assert not futures[0].done()
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False, False, True, True, True, True]
    gate.set()
    assert [future.result(DEADLINE) for future in futures[:2]] == [0, 1]


async def test_asyncio_runs_functions_in_it(executor):
    """As in any executor."""
    import asyncio

    gate.set()
    assert await asyncio.get_running_loop().run_in_executor(executor, waits, 5) == 5
    assert isinstance(executor, cf.Executor)


def test_without_a_cluster_it_takes_the_one_in_use(monkeypatch):
    """Which is started, if there is none."""
    monkeypatch.setattr(executor_module, "current", lambda: "the one")
    assert hpc.Executor()._cluster == "the one"
