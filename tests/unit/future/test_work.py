"""What is told of work: calls counted by group, in constant space, to those who look, and to nobody else."""

from __future__ import annotations

import _thread
import json
import threading
import time

import pytest

from hpcnb.future import batches, work
from hpcnb.future.again import retry
from hpcnb.future.work import together, uncounted, work_now
from hpcnb.pilot.scheduler.counts import Counts, from_message, to_message
from hpcnb.pilot.scheduler.work import LOOK, SUMMARY
from hpcnb.pilot.worker import tally
from tests.unit.future.tasks import fails, gate, waits
from tests.unit.pilot.tiny import wait_for

LONG = 30.0


class Recorder:
    """A view that keeps what it was drawn with."""

    def __init__(self):
        self.seen = []
        self.news = threading.Condition()

    def draw(self, summary, note):
        with self.news:
            self.seen.append((time.monotonic(), summary, note))
            self.news.notify_all()

    def wait(self, condition):
        """Wait until something holds of what is shown; what that is."""
        with self.news:
            assert self.news.wait_for(lambda: self.seen and condition(self.seen[-1][1]), LONG), self.seen[-1:]
            return self.seen[-1][1]


@pytest.fixture
def views(monkeypatch):
    """The views of what is submitted, by label; there is one at once, for all that is work, however quick it is."""
    found = {}

    def show(look):
        look.shown = True  # or nothing is drawn of what has ended before anybody looks
        return found.setdefault(look.work.label, Recorder())

    monkeypatch.setattr(work, "_show", show)
    monkeypatch.setattr(work, "PATIENCE", 0.0)
    return found


def odd(x):
    """Half of them fail."""
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def slow(x):
    """They take their time."""
    time.sleep(x)


def test_calls_of_batches_are_counted_as_calls(client, views):
    """Batches and single calls of a group are counted call by call, with those that failed, the slowest, and their times."""
    with together("map"):
        batches.send_all(client, odd, [(x,) for x in range(100)], batch_size=10)
        batches.send_all(client, slow, [(0.2,), (0.0,)], batch_size=2)
        batches.send(client, fails, (), {})
    seen = views["map"].wait(lambda summary: summary.ended and summary.total == 103)
    assert (seen.done, seen.failed) == (52, 51)
    assert sum(seen.bins) == 102  # what fails as a whole has no time
    (name, seconds, worker), *_ = seen.slowest
    assert name.startswith("slow-")
    assert name.endswith("[0]")
    assert seconds >= 0.2
    assert worker == "0"
    messages = [message for _, message, _ in seen.errors]
    assert len(messages) == 5
    assert set(messages) <= {*(f"ValueError: {x} is odd" for x in range(100)), "ValueError('as it should')"}


def test_each_state_is_counted(client, submit, views):
    """What waits for others, what waits for a core, what runs, what was cancelled, and what fails because others have."""
    with together("failed"):
        submit(len, submit(fails))
    seen = views["failed"].wait(lambda summary: summary.failed == 2)
    assert [message for _, message, _ in seen.errors] == ["ValueError('as it should')"]
    with together("states"):
        first = [submit(waits, x) for x in range(2)]
        gone = submit(waits)
        after = submit(waits, first[0])
    seen = views["states"].wait(lambda summary: (summary.running, summary.queued, summary.waiting) == (2, 1, 1))
    assert seen.done == 0
    assert len(seen.running_longest) >= 2
    gone.cancel()
    views["states"].wait(lambda summary: summary.cancelled == 1)
    gate.set()
    assert after.result(LONG) == 0
    seen = views["states"].wait(lambda summary: summary.ended)
    assert (seen.done, seen.cancelled, seen.total) == (3, 1, 4)


def test_what_is_tried_again_is_counted(client, submit, views):
    """Another attempt counts as one, whether of a single call or of one in a batch."""
    with together("again"):
        submit(fails, retries=2)
        batches.send_all(client, odd, [(1,), (2,)], batch_size=2, retries=3)
    seen = views["again"].wait(lambda summary: summary.ended and summary.total == 3)
    assert (seen.done, seen.failed, seen.retried) == (1, 2, 5)


def test_a_long_batch_tells_how_far_it_is(client, views):
    """While a batch runs, its calls that have ended are counted; one of them runs, the others wait."""
    with together("batch"):
        futures = batches.send_all(client, slow, [(0.05,)] * 40, batch_size=40)
    seen = views["batch"].wait(lambda summary: 0 < summary.done < 40)
    assert (seen.running, seen.total) == (1, 40)
    assert seen.queued == 40 - 1 - seen.done
    futures[0].result(LONG)
    assert views["batch"].wait(lambda summary: summary.ended).done == 40


def test_parts_are_no_calls(client, submit, views):
    """What is sent for a reason of ours is counted nowhere."""
    with uncounted():
        submit(pow, 2, 3).result(LONG)
    with together("real"):
        submit(pow, 2, 4)
    assert views["real"].wait(lambda summary: summary.ended).total == 1
    assert list(views) == ["real"]


def test_what_has_failed_is_run_again(client, submit, views, monkeypatch):
    """Failed calls, alone or in a batch, run again and their futures give what comes of that; others are not touched."""
    broken.set()
    with together("retry"):
        alone = submit(mended, 1)
        after = submit(abs, alone)
        members = batches.send_all(client, mended, [(x,) for x in range(6)], batch_size=3)
    views["retry"].wait(lambda summary: summary.failed == 5)
    assert isinstance(members[1].exception(LONG), ValueError)
    broken.clear()
    before = ran_with.copy()
    assert retry([alone, *members]) == 4
    assert [future.result(LONG) for future in [alone, after, *members]] == [1, 1, *range(6)]
    assert sorted(ran_with[len(before) :]) == [1, 1, 3, 5]
    seen = views["retry"].wait(lambda summary: summary.ended and summary.done == 8)
    assert (seen.failed, seen.total, seen.errors) == (0, 8, ())
    assert seen.retried == 5
    assert retry([alone, *members]) == 0


broken = threading.Event()
ran_with = []


def mended(x):
    """Odd numbers fail for some time."""
    ran_with.append(x)
    if x % 2 and broken.is_set():
        raise ValueError(x)
    return x


def test_all_that_is_shown_together_is_cancelled(client, submit, views):
    """What has not ended is cancelled, the rest and other groups are not."""
    with together("here"):
        ended = submit(pow, 2, 3)
        assert ended.result(LONG) == 8
        futures = [submit(waits) for _ in range(5)]
        work = work_now()
    with together("there"):
        other = submit(waits, 3)
    views["here"].wait(lambda summary: summary.total == 6)
    client.ledger.cancel_work(work.id)
    seen = views["here"].wait(lambda summary: summary.ended)
    assert (seen.done, seen.cancelled) == (1, 5)
    assert all(future.cancelled() for future in futures)
    gate.set()
    assert other.result(LONG) == 3


def test_a_second_interrupt_does_not_end_a_cancelling(client, submit, monkeypatch):
    """Who interrupts a cell twice has all of it cancelled, too."""
    with together("here"):
        futures = [submit(waits) for _ in range(20)]
        work = work_now()
    cancel = client.ledger.cancel

    def interrupted(batch):
        cancel(batch)
        if batch is futures[0].batch:
            _thread.interrupt_main()

    monkeypatch.setattr(client.ledger, "cancel", interrupted)

    def interrupt():
        client.ledger.cancel_work(work.id)
        wait_for(lambda: False, LONG)

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    wait_for(lambda: all(future.cancelled() for future in futures))


def test_quick_work_is_not_shown(client, submit, monkeypatch):
    """Nothing is drawn for what has ended when somebody would look; later work of the same group is looked at again."""
    seen = Recorder()
    monkeypatch.setattr(work, "_show", lambda look: seen)
    monkeypatch.setattr(work, "PATIENCE", 1.5)
    monkeypatch.setattr(work, "SETTLED", 0.01)
    with together("quick"):
        submit(pow, 2, 3).result(LONG)
        look = next(iter(client.looks._looks.values()))
        assert look.heard.wait(LONG)
        assert seen.seen == []
        wait_for(lambda: not look.open)
        submit(waits)
    assert seen.wait(lambda summary: summary.running).done == 1


def test_what_is_submitted_while_it_is_told_that_all_has_ended(client, submit, views, monkeypatch):
    """It is shown, too, though another thread submits it in the very moment in which the rest is taken to be all."""
    later = []

    class Look(work.Look):
        @property
        def fresh(self):
            fresh = self._fresh
            if self.summary is not None and self.summary.ended and not (later or fresh):
                later.append(threading.Thread(target=client.looks.sent, args=(self.work, 1)))
                later[0].start()
                later[0].join(0.2)
            return fresh

        @fresh.setter
        def fresh(self, fresh):
            self._fresh = fresh

    monkeypatch.setattr(work, "Look", Look)
    with together("moment"):
        submit(abs, -1)
        wait_for(lambda: sum(summary.ended for _, summary, _ in views["moment"].seen) > 1)
    (look,) = client.looks._looks.values()
    wait_for(lambda: not look.open)
    assert later


def test_the_last_calls_of_a_batch_have_ended_when_their_errors_are_known(client, monkeypatch):
    """A worker that tells how far it is does not say that all is over before it has told what came of it."""
    told, half = [], threading.Event()

    def hear(summary):
        told.append(from_message(summary))
        if told[-1].failed == told[-1].running == 1:
            half.set()

    monkeypatch.setitem(client._stream_handlers, SUMMARY, hear)
    monkeypatch.setattr(tally, "PAUSE", 0.0)
    end = tally.Tally.end
    monkeypatch.setattr(tally.Tally, "end", lambda self: (half.wait(LONG), end(self))[1])
    with together("seen"):
        client.tell({"op": LOOK, "group": work_now().id})
        batches.send_all(client, odd, [(1,), (3,)], batch_size=2)[-1].exception(LONG)
    wait_for(lambda: told and told[-1].ended)
    first = next(summary for summary in told if summary.ended)
    assert (first.failed, len(first.errors), sum(first.bins)) == (2, 2, 2)
    assert half.is_set()


def test_only_who_looks_is_told_and_not_often(client, monkeypatch):
    """Four summaries a second at most, none while nothing happens, none without a look, and all of one size."""
    told = []
    monkeypatch.setitem(client._stream_handlers, SUMMARY, lambda summary: told.append((time.monotonic(), summary)))
    with together("unseen"):
        batches.send_all(client, slow, [(0.02,)] * 50, batch_size=1)[-1].result(LONG)
    assert told == []
    with together("seen"):
        client.tell({"op": LOOK, "group": work_now().id})
        batches.send_all(client, slow, [(0.01,)] * 300, batch_size=1)[-1].result(LONG)
    wait_for(lambda: told and told[-1][1]["done"] == 300)
    times = [at for at, _ in told]
    assert len(times) <= 4 * (times[-1] - times[0]) + 3
    number = len(told)
    with together("other"):
        batches.send(client, slow, (0.5,), {}).result(LONG)
    assert len(told) == number
    sizes = {len(json.dumps(to_message(summary_of(number)))) for number in (20, 20_000)}
    assert max(sizes) < 1.1 * min(sizes)


def summary_of(number):
    """That of so many calls that have ended."""
    counts = Counts("g", "label", str)
    for key in range(number):
        counts.total += 1
        counts.finish([(key, None, key / 7919, "0", None)])
    return counts.summary(4)
