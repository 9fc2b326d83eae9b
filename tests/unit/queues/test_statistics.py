"""How fast a queue's tasks end, and what those that fail have in common."""

from __future__ import annotations

import random
import threading
import time

import pytest

import hpcnb as hpc
from hpcnb.pilot.queue.pace import ENOUGH, Pace
from hpcnb.queue.introspection import fisher, introspect, sample
from hpcnb.views.queue import advice_text, pace_text, queues_text
from tests.unit.pilot.tiny import wait_for


def test_the_rate():
    """The rate is that of the last minute, or of the last ends when they are rare; who redoes tasks does not lower it."""
    now = [0.0]
    pace = Pace(lambda: now[0])

    def pass_(seconds, total, per_second):
        for _ in range(seconds):
            now[0] += 1
            pace.saw(total := total + per_second)

    pace.saw(0)
    assert pace.rate is None
    pass_(10, 0, 5)
    assert pace.rate == pytest.approx(5, rel=0.05)
    pass_(600, 50, 2)
    assert pace.rate == pytest.approx(2, rel=0.05)
    pace.saw(3)
    assert pace.rate == pytest.approx(2, rel=0.05)
    rare = Pace(lambda: now[0])
    for total in range(2 * ENOUGH):
        rare.saw(total)
        now[0] += 3600
    assert rare.rate == pytest.approx(1 / 3600, rel=0.06)


def test_the_expected_end(isolated):
    """While a queue is drained its status has the rate and the expected end; otherwise they are not known."""
    q = hpc.Queue.create("pace")
    q.add_multiple(["sleep 0.05; true"] * 400)
    assert (q.status()["rate"], q.status()["ends_in"]) == (None, None)
    thread = threading.Thread(target=q.do)
    thread.start()
    status = wait_for(lambda: (found := q.status())["rate"] and found, 60)
    left = sum(status["ntasks"][state] for state in ("Waiting", "Pending", "Running"))
    assert status["ends_in"] == pytest.approx(left / status["rate"])
    assert 0.1 < status["rate"] < 25
    q.set_state([one.id for one in q.tasks("Pending")], "Killed")
    thread.join(60)
    assert not thread.is_alive()
    assert q.status()["rate"] is None


def test_how_it_is_shown():
    """The rate and the end are as exact as anybody wants to know them."""
    noon = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))
    cases = {(1234.5, 90): "1,234.5 tasks a second; the end in about 1m30s, at 12:01", (0.05, 0): "3.0 tasks a minute"}
    cases[2.0, 5430] = "2.0 tasks a second; the end in about 1h30m, at 13:30"
    cases[2.0, 200_000] = "2.0 tasks a second; the end in about 2d8h, at Fri 06 Mar, 19:33"
    for (rate, left), text in cases.items():
        assert pace_text({"rate": rate, "ends_in": left}, noon) == text
    assert pace_text({"rate": None, "ends_in": None}, noon) == ""


def tasks_of(chance, count, **more):
    return [
        {"size": chance.randrange(400), "mesh": {"kind": chance.choice("abc")}, "x": [1, chance.random()], **more}
        for _ in range(count)
    ]


def test_which_parameter_goes_along_with_failure():
    """A threshold, a value and a key that is missing are found among others that have nothing to do with failure."""
    chance = random.Random(1)
    tasks = tasks_of(chance, 1000)
    for fails, parameter, value in (
        (lambda task: task["size"] > 350, "size", "> "),
        (lambda task: task["mesh"]["kind"] == "b" and chance.random() < 0.7, "mesh.kind", '= "b"'),
    ):
        failed = [task for task in tasks if fails(task)]
        found = introspect([task for task in tasks if task not in failed], failed)
        first, second = found.findings[:2]
        assert first.parameter == parameter
        assert first.value.startswith(value)
        assert (first.phi > 0.6, first.p < 1e-9, second.p > 0.01) == (True, True, True)
        assert repr(found).split("\n")[2].endswith(f"{first.parameter} {first.value}")
    missing = introspect(tasks, tasks_of(chance, 30, seed=None))
    assert (missing.findings[0].parameter, missing.findings[0].value) == ("seed", "is there")
    assert missing.findings[0].phi == pytest.approx(1)
    nothing = introspect(tasks[:900], tasks[900:])
    assert repr(nothing) == "100 of 1,000 tasks have failed; no parameter goes along with that"


def test_a_queue_is_looked_into(isolated):
    """`q.introspect()` reads what failed and what succeeded; what is in a name is shown and not obeyed."""
    q = hpc.Queue.create("look")
    q.add_multiple([{"n": n, "\x1b[1m<b>": n % 2} for n in range(40)] + ["true"])
    with pytest.raises(hpc.QueueError, match="some of both are needed"):
        q.introspect()
    q.do(func=lambda task: 1 / task["\x1b[1m<b>"] if isinstance(task, dict) else None)
    shown = repr(q.introspect())
    assert shown.split("\n")[0] == "20 of 40 tasks have failed"
    assert "20 of 20  0 of 20" in shown
    assert "\x1b" not in shown


def test_fishers_test():
    """It agrees with tables of it, also where numbers are large."""
    assert fisher(4, 4, 4, 8) == pytest.approx(1 / 70)
    assert fisher(0, 4, 4, 8) == pytest.approx(1 / 70)
    assert fisher(1, 12, 10, 24) == pytest.approx(0.00138, rel=0.01)
    assert fisher(10_000, 10_000, 10_000, 40_000) == 0
    assert fisher(5000, 10_000, 20_000, 40_000) == pytest.approx(0.5, abs=0.01)


def test_a_sample():
    """Of many some are looked at, from everywhere, the same each time."""
    assert sample(range(5), 10) == [0, 1, 2, 3, 4]
    chosen = sample(range(10_000), 500)
    assert chosen == sample(range(10_000), 500)
    assert len(set(chosen)) == 500
    assert 4000 < sum(chosen) / 500 < 6000


@pytest.mark.parametrize(
    ("tasks", "more", "advice"),
    [
        ({"Running": 1, "Pending": 3, "Failed": 2}, {}, ""),
        ({"Succeeded": 3}, {}, ""),
        ({"Pending": 3}, {"rate": 2.0}, ""),
        ({"Pending": 3}, {"state": "Paused"}, "hpcnb queue resume extract"),
        ({"Pending": 3, "Failed": 2}, {}, "hpcnb queue launch extract 1"),
        ({"Succeeded": 3, "Failed": 2, "Killed": 1}, {"rate": 2.0}, "hpcnb queue retry extract"),
        ({"Succeeded": 3, "Killed": 1}, {}, "hpcnb queue revive extract"),
    ],
)
def test_what_there_is_to_do(tasks, more, advice):
    """A queue in which nothing happens says what to type; one that goes on, or is done, says nothing."""
    none = dict.fromkeys(("Waiting", "Pending", "Running", "Succeeded", "Failed", "Killed"), 0)
    status = {"name": "extract", "state": "Active", "rate": None, "ntasks": none | tasks, **more}
    said = advice_text(status)
    assert f"`{advice}`" in said if advice else not said
    assert ("Killed" in queues_text([status]).splitlines()[0]) == ("Killed" in tasks)
