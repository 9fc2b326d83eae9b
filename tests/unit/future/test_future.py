"""`hpc.Future` on a real scheduler: a `concurrent.futures.Future` in every respect, and awaitable."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import gc
import pickle
import queue
import threading
import weakref

import pytest

import hpcnb as hpc
from hpcnb.errors import JobTimeout
from hpcnb.future import batches
from hpcnb.future.batch import Batch
from hpcnb.kept import NotebookClient
from tests.unit.future.tasks import DEADLINE, CannotBeRead, fails, gate, ran, tells, waits


def test_a_result_an_error_and_their_words(submit):
    """Value, the task's own exception with the remote traceback each time, and how the future describes itself."""
    future, failed = submit(pow, 2, 10, tag="a"), submit(fails)
    assert isinstance(future, cf.Future)
    assert isinstance(future, hpc.Future)
    assert (future.result(), future.exception(), future.state, future.tag) == (1024, None, "finished", "a")
    for _ in range(2):
        with pytest.raises(ValueError, match="as it should") as caught:
            failed.result(DEADLINE)
        assert ", in fails" in str(caught.value.__cause__)
        assert len(caught.traceback) < 6
    assert isinstance(failed.exception(), ValueError)
    assert (failed.state, failed.name, failed.done(), failed.cancelled()) == ("failed", "fails", True, False)
    assert repr(failed).startswith("<Future fails ")
    assert future.dask.key == future.key


def test_a_timeout_is_the_standard_one(submit):
    """`result` and `exception` give up after the time, and the task goes on."""
    future = submit(waits, 3)
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(timeout=0.01)
    assert (future.state, future.done(), future.running()) == ("pending", False, False)
    gate.set()
    assert future.result(DEADLINE) == 3


def test_arguments_may_have_any_name(submit):
    """What Dask's own submit calls `key` or `workers` and Python calls `self` are the function's arguments."""
    assert submit(dict, workers=1, self=2, func=3, pure=4).result(DEADLINE) == {
        "workers": 1,
        "self": 2,
        "func": 3,
        "pure": 4,
    }


def test_futures_as_arguments_are_dependencies(submit):
    """Alone and in lists, tuples and dictionaries, deep in each other; their errors are the caller's."""
    one, two = submit(abs, -1), submit(abs, -2)
    nested = [one, (two, {"two": two}), 3]
    assert submit(lambda *a, **k: (a, k), nested, one=one).result(DEADLINE) == (([1, (2, {"two": 2}), 3],), {"one": 1})
    assert nested[0] is one
    with pytest.raises(ValueError, match="as it should"):
        submit(abs, submit(fails)).result(DEADLINE)


def test_cancel(submit, client):
    """What waits is cancelled, and so is what runs or depends on it; what has ended is not."""
    runs, waits_too = submit(waits), submit(waits)
    queued = submit(abs, -1)
    after = submit(abs, runs)
    done = queue.Queue()
    queued.add_done_callback(done.put)
    assert queued.cancel()
    assert queued.cancel()
    assert (queued.cancelled(), queued.done(), queued.state) == (True, True, "cancelled")
    assert runs.cancel()
    for future in (runs, queued, after):
        with pytest.raises(cf.CancelledError):
            future.result(DEADLINE)
        with pytest.raises(cf.CancelledError):
            future.exception()
    gate.set()
    assert waits_too.result(DEADLINE) == 0
    assert not waits_too.cancel()
    assert submit(abs, -4).result(DEADLINE) == 4
    assert done.get(timeout=DEADLINE) is queued
    assert done.empty()


def test_dasks_own_cancel_is_heard(submit, client):
    """Cancelling the future of Dask's that it stands on cancels it."""
    future = submit(waits)
    future.dask.cancel()
    with pytest.raises(cf.CancelledError):
        future.result(DEADLINE)


def test_the_functions_of_concurrent_futures(submit):
    """`wait` with each of its conditions, and `as_completed`, beside futures of another executor."""
    held, quick, failed = submit(waits), submit(abs, -1), submit(fails)
    with cf.ThreadPoolExecutor(1) as pool:
        other = pool.submit(abs, -2)
        assert cf.wait([held, quick], timeout=DEADLINE, return_when=cf.FIRST_COMPLETED).done == {quick}
        assert failed in cf.wait([held, failed], DEADLINE, return_when=cf.FIRST_EXCEPTION).done
        assert cf.wait([held, other], timeout=0.01).not_done >= {held}
        ended = cf.as_completed([held, quick, other, failed, held], timeout=DEADLINE)
        assert {next(ended) for _ in range(3)} == {quick, other, failed}
        gate.set()
        assert list(ended) == [held]
    assert cf.wait([held, quick, failed], DEADLINE) == ({held, quick, failed}, set())


def test_it_ends_while_somebody_begins_to_wait():
    """The end that another thread tells in that moment is not taken back by what was seen before it."""
    ended = []

    class Ends(Batch):
        def state_of(self, index):
            state = super().state_of(index)
            if not ended:
                ended.append(threading.Thread(target=self.settle, args=(5,)))
                ended[0].start()
                ended[0].join(0.2)
            return state

    future = hpc.Future(Ends(ledger=None, key="ends"))
    assert cf.wait([future], DEADLINE).done == {future}


def test_our_own_words(submit):
    """`hpc.wait`, `hpc.as_completed` and `hpc.gather` do the same, with Dask's futures, too."""
    held, quick, failed = submit(waits), submit(abs, -1), submit(fails)
    assert hpc.wait([held, quick], DEADLINE, "FIRST_COMPLETED").done == {quick}
    assert failed in hpc.wait([held, failed], DEADLINE, "FIRST_EXCEPTION").done
    assert hpc.wait([held, failed], 0.01) == ({failed}, {held})
    ended = hpc.as_completed([held, quick, quick.dask, failed], timeout=DEADLINE)
    assert {next(ended).key for _ in range(3)} == {quick.key, failed.key}
    with pytest.raises(TimeoutError):
        next(hpc.as_completed([held], timeout=0.01))
    gate.set()
    assert list(ended) == [held]
    assert hpc.gather([held, quick.dask, quick]) == [0, 1, 1]
    assert hpc.gather([]) == []
    with pytest.raises(ValueError, match="as it should"):
        hpc.gather([quick, failed])
    with pytest.raises(TypeError, match="not int"):
        hpc.gather([1])
    with pytest.raises(ValueError, match="FIRST_EXCEPTION"):
        hpc.wait([held], return_when="SOON")


async def test_it_can_be_awaited(submit):
    """In any loop, together with others; the end of a wait cancels the call, as with every such future."""
    held, failed = submit(waits, 5), submit(fails)
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, gate.set)
    assert await asyncio.gather(held, asyncio.wrap_future(submit(abs, -1))) == [5, 1]
    assert await held == 5  # it is here already
    with pytest.raises(ValueError, match="as it should"):
        await failed
    gate.clear()
    held = submit(waits)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(held._awaited(), 0.05)
    assert held.cancelled()


def test_callbacks(submit, caplog):
    """They run once each, in order, with the value there, may wait for other futures, and their errors harm nobody."""
    heard = []
    told = threading.Event()
    held = submit(waits, 7)
    held.add_done_callback(lambda future: heard.append(future.result(0)))
    held.add_done_callback(lambda future: 1 / 0)
    held.add_done_callback(lambda future: heard.append(submit(abs, -8).result(DEADLINE)))
    held.add_done_callback(lambda future: told.set())
    gate.set()
    assert told.wait(DEADLINE)
    assert heard == [7, 8]
    held.add_done_callback(lambda future: heard.append(9))  # at once
    assert heard == [7, 8, 9]
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_on_what_is_done_but_not_here(submit, client):
    """It is called when the value is here, so that a loop that wraps the future never waits for it."""
    future = submit(abs, -3)
    hpc.wait([future])
    told = threading.Event()
    future.add_done_callback(lambda future: told.set())
    assert told.wait(DEADLINE)
    assert future.settled()


def test_a_value_is_fetched_when_asked_for_and_once(submit, client, monkeypatch):
    """Waiting brings none; all that are asked for meanwhile come together; each asking gives the same object."""
    asked = []
    collect = client.collect

    def spy(keys):
        asked.append(len(keys))
        return collect(keys)

    monkeypatch.setattr(client, "collect", spy)
    futures = [submit(list, [i]) for i in range(50)]
    hpc.wait(futures)
    assert submit(sum, [f.dask for f in futures], []).result(DEADLINE) == list(range(50))
    assert asked == [1]
    assert hpc.gather(futures) == [[i] for i in range(50)]
    assert sum(asked) == 51
    assert len(asked) < 10
    assert futures[0].result() is futures[0].result()
    assert sum(asked) == 51


def test_a_value_that_cannot_be_read_here_harms_no_other(submit, client):
    """It is the error of its own future alone, also when it came together with others."""
    futures = [submit(abs, -1), submit(CannotBeRead), submit(abs, -2)]
    hpc.wait(futures)
    with pytest.raises(ValueError, match="not here"):
        hpc.gather(futures)
    assert [futures[0].result(), futures[2].result()] == [1, 2]


def test_what_nobody_thinks_of_is_run_and_let_go(submit, client, dask_cluster):
    """A call whose future was dropped runs, and is forgotten when it has ended, as is one that was released."""
    ran.clear()
    released = submit(waits)
    keys = [submit(tells).key, released.key]
    released.release()
    gate.set()
    assert ran.wait(DEADLINE)
    with pytest.raises(cf.CancelledError, match="released"):
        released.result()
    last = submit(abs, -1)
    last.result(DEADLINE)
    gc.collect()
    client.kept()  # what was dropped before is gone before the answer
    assert not any(key in dask_cluster.scheduler.tasks for key in keys)


def test_the_same_key_is_the_same_result(submit):
    """Whether the first future is still there, or done already."""
    first, second = submit(waits, 1, key="the key"), submit(waits, 2, key="the key")
    gate.set()
    assert (first.result(DEADLINE), second.result(DEADLINE)) == (1, 1)
    assert submit(waits, 3, key="the key").result() == 1


def test_what_cannot_be_sent_is_an_error_at_once(submit, client):
    """And leaves nothing behind."""
    with pytest.raises(TypeError, match="callable"):
        submit(3)
    with pytest.raises(hpc.CannotSerialize, match=r"argument 0 of abs \(_thread.lock\) cannot be pickled"):
        submit(abs, threading.Lock())
    assert not client.ledger._open


def test_a_client_that_is_closed_ends_what_waits(dask_cluster):
    """Nobody waits for ever; and the end of a cluster is told with its cause."""
    gate.clear()
    client = NotebookClient(dask_cluster)
    held = batches.send(client, waits, [], {})
    client.wait_until_connected()
    done, over = batches.send(client, abs, [-1], {}), batches.send(client, waits, [], {})
    hpc.wait([done])
    over.cancel()
    client.ledger.close(JobTimeout("the walltime of 1 h is over"))
    with pytest.raises(JobTimeout, match="walltime"):
        held.result(DEADLINE)
    client.close()
    gate.set()
    with pytest.raises(JobTimeout, match="walltime"):
        done.result(DEADLINE)


def test_it_travels_as_dasks(submit):
    """A copy that arrives on a worker is Dask's future of the same key."""
    future = submit(abs, -1)
    assert pickle.loads(pickle.dumps(future)).key == future.key


def test_it_is_small(submit, client):
    """Futures that nobody waits for cost no lock, and are gone with their last name."""
    future = submit(abs, -1)
    future.result(DEADLINE)
    assert future._watch is None
    gone = weakref.ref(future.batch)
    del future
    gc.collect()
    assert gone() is None
