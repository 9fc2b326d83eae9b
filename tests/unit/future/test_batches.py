"""Many short calls as one task: how many, and that each of them is still itself."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import queue
import threading
import time
from types import SimpleNamespace

import pytest

import hpcnb as hpc
from hpcnb.future import batches, verbs
from hpcnb.future.batches import size_for
from hpcnb.future.future import Future
from hpcnb.kept import NotebookClient
from hpcnb.pilot.worker.batch import Outcomes
from tests.isolation import until
from tests.unit.future.tasks import DEADLINE, CannotBeRead, fails, gate, waits
from tests.unit.pilot.tiny import wait_for


@pytest.fixture
def send(client):
    """`hpc.map`, to that client."""

    def send(fn, *iterables, **options):
        return batches.send_all(client, fn, list(zip(*iterables, strict=False)), **options)

    return send


def keys(futures):
    """The tasks of Dask's that futures stand on."""
    return {future.batch.key for future in futures}


def picky(number):
    """A task that fails for some."""
    if number % 3 == 0:
        raise KeyError(number)
    return number


_tried: dict[int, int] = {}


def second_time_lucky(number):
    """A task that fails once."""
    _tried[number] = _tried.get(number, 0) + 1
    if _tried[number] < 2:
        raise OSError("not yet")
    return _tried[number]


def unreadable(number):
    """A task whose value nobody can read, for one number."""
    return CannotBeRead() if number == 1 else threading.Lock() if number == 2 else number


@pytest.mark.parametrize(
    ("calls", "cores", "seconds", "nbytes", "size"),
    [
        (10, 2, 0.2, 10, 1),  # long ones go alone
        (1_000, 2, 0.01, 10, 15),  # short ones for some 0.15 s
        (100, 2, 0.00001, 10, 12),  # so many that each core has several
        (1_000_000, 2, 0.00001, 10, 10_000),  # with bounds
        (1_000_000, 2, 3.0, 10, 100),  # a scheduler does not hold a million
        (1_000, 2, 0.001, 1 << 20, 8),  # nor one message all bytes
        (1_000, 2, 0.001, 1 << 30, 1),
        (10, 2, -1.0, 10, 1),  # nothing is known
        (100_000, 2, -1.0, 10, 100),
        (0, 0, -1.0, 0, 1),
    ],
)
def test_how_many_calls_are_a_batch(calls, cores, seconds, nbytes, size):
    """As many as are worth a task, as few as keep each core busy, and never more than a message or a scheduler holds."""
    assert size_for(calls, cores=cores, seconds=seconds, nbytes=nbytes) == size


def test_short_calls_are_batched_by_themselves(send, client, monkeypatch):
    """A few are sent ahead, and the rest as few tasks; what is known of the function then serves the next time."""
    monkeypatch.setattr(batches, "PATIENCE", DEADLINE)  # a busy machine may be slow with the first ones

    def short(number):
        return number + 1

    futures = send(short, range(2000))
    assert len(keys(futures)) < 200  # thirteen, where none of the first ones was held up by others
    assert hpc.gather(futures) == list(range(1, 2001))
    again = send(short, range(2000))
    assert len(keys(again)) < 200
    assert hpc.gather(again) == list(range(1, 2001))
    assert len({future.key for future in again}) == 2000


def test_calls_that_are_slow_at_first_are_not_taken_for_long(send):
    """What a function imports may take long the first time: of short calls some thousand tasks are made, not one each."""
    gate.clear()
    futures = send(waits, range(5000))
    gate.set()
    assert 500 < len(keys(futures)) < 1500
    assert hpc.gather(futures) == list(range(5000))


def test_long_calls_go_one_by_one(send):
    """Who is not back after a moment is long, and so are the others; the call has not waited for longer."""
    gate.clear()
    start = time.monotonic()
    futures = send(waits, range(12))
    assert time.monotonic() - start < DEADLINE / 2
    assert len(keys(futures)) == 12
    gate.set()
    assert hpc.gather(futures) == list(range(12))


def test_each_member_has_its_own_outcome(send):
    """Values, errors with their remote tracebacks, values that cannot travel or be read: each on its own future."""
    futures = send(picky, range(9), batch_size=5)
    assert len(keys(futures)) == 2
    assert [f.exception(DEADLINE) is None for f in futures] == [bool(n % 3) for n in range(9)]
    for _ in range(2):
        with pytest.raises(KeyError, match="3") as caught:
            futures[3].result()
        assert ", in picky" in str(caught.value.__cause__)
        assert len(caught.traceback) < 6
    assert [f.result() for f in futures if f.state == "finished"] == [1, 2, 4, 5, 7, 8]
    with pytest.raises(KeyError):
        hpc.gather(futures)
    odd = send(unreadable, range(4), batch_size=4)
    assert (odd[0].result(DEADLINE), odd[3].result()) == (0, 3)
    with pytest.raises(ValueError, match="not here"):
        odd[1].result()
    with pytest.raises(hpc.CannotSerialize, match="what unreadable returned"):
        odd[2].result()
    assert send(list, [[1], [2]], batch_size=2)[0].result(DEADLINE) == [1]
    assert futures[1].result() is futures[1].result()


def test_retries_are_the_members_own(send):
    """One that fails is tried again, and the others are not."""
    _tried.clear()
    _tried[0] = 5
    assert hpc.gather(send(second_time_lucky, range(3), batch_size=3, retries=1)) == [6, 2, 2]


def test_members_as_arguments(send, submit):
    """They are dependencies: of single calls, of batches, and in containers; their errors are those of their callers."""
    one = send(picky, range(6), batch_size=3)
    alone = submit(abs, -1)
    total = submit(lambda numbers, more: sum(numbers) + more["five"], [one[1], one[2], alone], {"five": one[5]})
    assert total.result(DEADLINE) == 1 + 2 + 1 + 5
    two = send(lambda n: n * 10, one, batch_size=2)
    assert len(keys(two)) == 3
    assert [f.result(DEADLINE) if i % 3 else None for i, f in enumerate(two)] == [None, 10, 20, None, 40, 50]
    for failed in (two[0], submit(abs, one[0])):
        with pytest.raises(KeyError, match="0"):
            failed.result(DEADLINE)
    mixed = send(lambda a, b: a + b, [one[1], one[2]], [alone, alone], batch_size=2)
    assert hpc.gather(mixed) == [2, 3]
    assert len(keys(mixed)) == 2  # Dask would fail both with `alone`
    assert one[1].dask.result(DEADLINE) == 1
    with pytest.raises(KeyError):
        one[0].dask.result(DEADLINE)


def test_members_in_every_kind_of_waiting(send):
    """`wait`, `as_completed`, callbacks and cancellation know members, too."""
    gate.clear()
    held, quick = send(waits, range(3), batch_size=3), send(picky, range(1, 4), batch_size=3)
    assert cf.wait([*held, *quick], DEADLINE, cf.FIRST_EXCEPTION).done == set(quick)
    assert hpc.wait([*held, *quick], DEADLINE, "FIRST_COMPLETED").done == set(quick)
    assert hpc.wait([held[0]], 0).not_done == {held[0]}
    called: queue.Queue[Future] = queue.Queue()
    held[1].add_done_callback(called.put)
    assert held[1].cancel()
    assert [f.cancelled() for f in held] == [False, True, False]
    with pytest.raises(cf.CancelledError):
        held[1].result()
    ended = hpc.as_completed([*held, *quick], timeout=DEADLINE)
    assert {next(ended) for _ in range(4)} == {held[1], *quick}
    gate.set()
    assert list(ended) == [held[0], held[2]]
    assert [f.result() for f in cf.as_completed([held[0], held[2]], DEADLINE)]
    assert called.get(timeout=DEADLINE) is held[1]
    assert called.empty()
    gate.clear()
    held = send(waits, range(2), batch_size=2)
    assert all(f.cancel() for f in held)
    assert hpc.wait(held, DEADLINE).not_done == set()
    gate.set()


async def test_members_can_be_awaited(send):
    """One by one, like any other future."""
    futures = send(picky, range(4), batch_size=4)
    assert [await futures[1], await futures[2]] == [1, 2]
    with pytest.raises(KeyError):
        await futures[3]


def test_each_batch_is_fetched_once(send, client, monkeypatch):
    """However its members are asked for."""
    asked = []
    collect = client.collect

    def spy(keys):
        asked.extend(keys)
        return collect(keys)

    monkeypatch.setattr(client, "collect", spy)
    futures = send(abs, range(100), batch_size=10)
    assert sorted(f.result(DEADLINE) for f in hpc.as_completed(futures)) == list(range(100))
    assert hpc.gather(futures) == list(range(100))
    assert sorted(asked) == sorted(keys(futures))


def test_members_come_back(client, dask_cluster):
    """To another kernel of the notebook, with their tags, in order; the steps between do not."""
    for known in client.all_futures():
        known.release()
    before = NotebookClient(dask_cluster)
    before.wait_until_connected()
    futures = batches.send_all(before, picky, [(number,) for number in range(5)], batch_size=3, tag="mine")
    assert futures[1].dask.result(DEADLINE) == 1
    assert [size for *_, size, _ in before.kept()["futures"]] == [3, 2]
    before.close()
    again = client
    back = again.all_futures()
    assert [(f.key, f.tag, f.name) for f in back] == [(f.key, "mine", "picky") for f in futures]
    assert [f.state for f in back] == ["failed", "finished", "finished", "failed", "finished"]
    assert [back[1].result(), back[4].result()] == [1, 4]
    for known in back[:3]:
        known.release()
    assert [f.key for f in again.all_futures()] == [f.key for f in back[3:]]


def test_what_is_released_while_it_is_asked_for_does_not_come_back(send, client, monkeypatch):
    """What a question about all futures finds, and is let go before the answer is here, is no future of an earlier kernel."""
    futures = send(abs, range(4), batch_size=2)
    hpc.wait(futures)
    kept = client._kept

    async def late(adopt=""):
        answer = await kept(adopt)
        for future in futures:
            future.release()
        await until(lambda: not any(key in client.futures for key in keys(futures)))
        return answer

    monkeypatch.setattr(client, "_kept", late)
    for _ in range(2):
        assert not {future.batch.key for future in client.all_futures()} & keys(futures)
        assert client._let_go == set()
        monkeypatch.setattr(client, "_kept", kept)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_is_not_sent_as_a_whole_is_forgotten(send, client, dask_cluster, monkeypatch, batch_size):
    """Where an argument cannot be sent, or the user interrupts it, nothing of the rest is left to be waited for."""
    before = {*dask_cluster.scheduler.tasks}
    with pytest.raises(hpc.CannotSerialize):
        send(abs, [1, 2, 3, threading.Lock()], batch_size=batch_size)
    hold = client.ledger.hold

    def interrupted(batch, future):
        hold(batch, future)
        raise KeyboardInterrupt

    monkeypatch.setattr(client.ledger, "hold", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:  # which holds on to all that there was
        send(waits, range(4), batch_size=batch_size)
    assert client.ledger.known() == []
    assert not client.ledger._open
    wait_for(lambda: not client.futures and dask_cluster.scheduler.tasks.keys() <= before)
    del caught


def test_what_was_sent_of_a_map_that_cannot_be_is_cancelled(send, client, dask_cluster):
    """Nobody has its futures, and who mends the call sends all of it again."""
    before = {*dask_cluster.scheduler.tasks}
    with pytest.raises(hpc.CannotSerialize):
        send(waits, [*range(batches.TOGETHER + 1), threading.Lock()], batch_size=1)
    wait_for(lambda: not client.futures and dask_cluster.scheduler.tasks.keys() <= before)


def test_the_last_member_lets_go_of_the_batch(send, client, dask_cluster):
    """A batch is kept as long as one of its futures is."""
    futures = send(abs, range(4), batch_size=4)
    hpc.gather(futures)
    key, last = futures[0].batch.key, futures[-1]
    del futures
    gc.collect()
    client.kept()
    assert key in dask_cluster.scheduler.tasks
    del last
    gc.collect()
    client.kept()
    client.sync(client._kept)
    assert key not in dask_cluster.scheduler.tasks


def test_a_function_that_cannot_be_remembered(send):
    """Is measured each time, and so is none that is built in."""

    class Odd:
        __slots__ = ()

        def __call__(self, number):
            return number

    assert hpc.gather(send(Odd(), range(20))) == list(range(20))
    assert hpc.gather(send(fails, [])) == []


@pytest.mark.parametrize("size", [0, -1, 2.5, "many"])
def test_a_batch_size_that_is_none(client, monkeypatch, size):
    """It is refused before anything is sent, in words."""
    monkeypatch.setattr(verbs, "current", lambda: SimpleNamespace(early_client=client))
    with pytest.raises(ValueError, match='batch_size is "auto" or a number of calls from 1'):
        hpc.map(abs, [1, 2], batch_size=size)


def test_an_interrupt_is_no_result(send, monkeypatch):
    """Ctrl-C while the outcomes of a batch are read is raised, and takes nothing away from them."""
    futures = send(abs, [-1, -2], batch_size=2)
    hpc.wait(futures, DEADLINE)
    interrupts = [KeyboardInterrupt()]
    get = Outcomes.get

    def interrupted(outcomes, index):
        if interrupts:
            raise interrupts.pop()
        return get(outcomes, index)

    monkeypatch.setattr(Outcomes, "get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        futures[0].result(DEADLINE)
    assert [future.result(DEADLINE) for future in futures] == [1, 2]
