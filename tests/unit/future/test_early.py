"""Small results come with the news that they are there."""

from __future__ import annotations

import pytest

import hpcnb as hpc
from hpcnb.future import batches
from hpcnb.pilot.scheduler.early import Early, pass_on
from tests.unit.future.tasks import DEADLINE, CannotBeRead, fails


@pytest.fixture
def asked(client, dask_cluster, monkeypatch):
    """The keys whose values a client had to ask for."""
    asked = []
    collect = client.collect

    def spy(keys):
        asked.extend(keys)
        return collect(keys)

    monkeypatch.setattr(client, "collect", spy)
    pass_on(dask_cluster.scheduler)
    client.register_plugin(Early())
    yield asked
    client.unregister_worker_plugin(Early.name)


@pytest.mark.parametrize("value", [7, None, "word", (1, "a", None), [1.5], b"\x00"])
def test_small_values_need_no_asking(submit, asked, value):
    """What is made of a few of Python's own values is there with the end of the call."""
    future = submit(type(value) if value is None else lambda: value)
    hpc.wait([future], DEADLINE)
    assert (future.settled(), future.result(), asked) == (True, value, [])


@pytest.mark.parametrize("value", ["x" * 100_000, [[1]], {"a": 1}, list(range(100))])
def test_other_values_are_asked_for(submit, asked, value):
    """What is large, or may be, or is of a type that is not Python's own, comes when it is wanted."""
    future = submit(lambda: value)
    hpc.wait([future], DEADLINE)
    assert not future.settled()
    assert future.result() == value
    assert asked == [future.key]


def test_what_is_read_early_is_no_code_of_the_users(submit, asked):
    """A value that runs something when it is read is left to the one who asks for it."""
    future = submit(CannotBeRead)
    hpc.wait([future], DEADLINE)
    with pytest.raises(ValueError, match="not here"):
        future.result()
    assert isinstance(submit(fails).exception(DEADLINE), ValueError)


def test_so_do_the_outcomes_of_a_small_batch(client, asked):
    """And the function's time is learnt from them."""
    futures = batches.send_all(client, lambda number: 1 / number, [(n,) for n in range(100)])
    assert hpc.gather(futures[1:]) == [1 / n for n in range(1, 100)]
    with pytest.raises(ZeroDivisionError):
        futures[0].result()
    assert asked == []
    assert futures[0].batch.pace.seconds >= 0
