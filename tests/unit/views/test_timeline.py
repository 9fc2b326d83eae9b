"""A cluster's life as a picture: bounded whatever has run, readable as text, safe whatever things are called."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given

from hpcnb.model import ClusterSpec, ClusterStatus, JobState, JobStatus, Resources, State
from hpcnb.pilot.scheduler.history import COLUMNS, TASKS, History
from hpcnb.views.timeline import Timeline, Wait
from tests.unit.views.test_cluster import HOSTILE, utc

__all__ = ["utc"]

NOW = 1_800_000_000.0


def remembered(tasks, nodes=2, names=("score",), seconds=3600.0):
    """What a scheduler tells after so many tasks, one after the other on each node, of two lengths."""
    workers = {
        f"w{n}": SimpleNamespace(name=f"0-node{n}-0", address=f"w{n}", nthreads=1, executing={}, host="h")
        for n in range(nodes)
    }
    scheduler = SimpleNamespace(handlers={}, workers=workers)
    history = History(scheduler)
    history._begun = NOW - seconds
    for worker in workers:
        history.add_worker(scheduler, worker)
    for node in history._nodes.values():
        node.since = NOW - seconds
    each = seconds * nodes / tasks
    for number in range(tasks):
        start = NOW - seconds + number // nodes * each
        times = [{"action": "compute", "start": start, "stop": start + each * (0.5 if number % 10 else 0.9)}]
        told = {"startstops": times, "worker": f"w{number % nodes}"}
        task = SimpleNamespace(prefix=SimpleNamespace(name=names[number % len(names)]))
        history.took([(task, told)])
    return {**history.tell(), "now": NOW}


def life(history, *, name="fit", site="octopus", job_id="117", nodes=("node0", "node1"), waits=(), **fields):
    """A cluster that waited for two minutes."""
    jobs = (
        JobStatus(job_id=job_id, state=JobState.RUNNING, nodes=nodes, submitted=NOW - 3730, started=NOW - 3610),
        JobStatus(job_id="118", state=JobState.PENDING, submitted=NOW - 60),
    )
    spec = ClusterSpec(site=site, name=name, resources=Resources())
    known = {"state": State.READY, "jobs": jobs, "created": NOW - 3730, "changed": NOW - 3600} | fields
    return Timeline(status=ClusterStatus(id="0" * 16, spec=spec, **known), now=NOW, history=history, waits=waits)


def test_the_text():
    """What waited how long, and how busy each node was, to the letter."""
    waits = [Wait(name="fit", since=NOW, seconds=120), Wait(name="more", since=NOW, seconds=60, over=False)]
    assert repr(life(remembered(400), waits=waits)).splitlines() == [
        "fit on octopus: ready after 1:02:10",
        "  node0: queued 2:00, starting 0:10, there 1:00:00, busy 58% of 1 core",
        "  node1: queued 2:00, starting 0:10, there 1:00:00, busy 50% of 1 core",
        "  job 118: queued since 1:00",
        "400 tasks have ended",
        "waits in the queue of octopus: 2:00, 1:00 so far",
    ]


def test_a_worker_that_died_keeps_its_name():
    """What it had done is shown in its own row, though Dask knows it no longer when that is entered."""
    worker = SimpleNamespace(name="0-n1-0", address="w", nthreads=1, executing={}, host="h")
    scheduler = SimpleNamespace(handlers={}, workers={"w": worker})
    history = History(scheduler)
    history.add_worker(scheduler, "w")
    times = [{"action": "compute", "start": time.time(), "stop": time.time() + 1}]
    task = SimpleNamespace(prefix=SimpleNamespace(name="score"))
    history.took([(task, {"startstops": times, "worker": "w"})])
    del scheduler.workers["w"]
    history.remove_worker(scheduler, "w")
    assert [task[0] for task in history.tell()["tasks"]] == ["0-n1-0"]


def test_what_was_never_told_is_not_drawn():
    """Before the scheduler is there, and when it can no longer be asked, the rest is shown."""
    waiting = life({}, state=State.QUEUED, jobs=(JobStatus(job_id="9", state=JobState.PENDING, submitted=NOW - 60),))
    assert "job 9: queued since 1:00" in repr(waiting)
    ElementTree.fromstring(waiting._repr_svg_())
    nothing = life({}, state=State.REQUESTED, jobs=(), created=0.0)
    ElementTree.fromstring(nothing._repr_svg_())
    assert repr(nothing).startswith("fit on octopus: requested")


def test_a_hundred_thousand_tasks_are_a_light_picture():
    """Few tasks are drawn one by one, of many the longer ones; a page of any number of them stays below 200 kB."""
    few = life(remembered(100))
    assert few._repr_svg_().count("M") >= 100
    history = remembered(100_000, nodes=200)
    assert len(history["tasks"]) <= TASKS
    assert max(len(node["busy"]) for node in history["nodes"]) <= COLUMNS
    assert sum(sum(node["busy"]) for node in history["nodes"]) == pytest.approx(0.54 * 3600 * 200, rel=0.01)
    page = life(history)._repr_html_()
    assert len(page.encode()) < 200_000
    assert "178 more" in page


def test_long_tasks_outlive_short_ones():
    """Of many tasks those are remembered that took long, and the picture says what is left out."""
    history = remembered(20_000)
    assert history["shortest"] > 0
    assert all(stop - start >= history["shortest"] for _, start, stop, _, _ in history["tasks"])
    assert "tasks, those that took" in life(history)._repr_svg_()


def test_a_long_wait_leaves_room():
    """After a day in the queue an hour of work still takes three quarters of the picture."""
    day = life(remembered(100), created=NOW - 90_000)
    jobs = (replace(day.status.jobs[0], submitted=NOW - 90_000),)
    drawn = replace(day, status=replace(day.status, jobs=jobs))._repr_svg_()
    queued = next(
        box for box in ElementTree.fromstring(drawn).iter() if box.findtext("{*}title", "").startswith("queued")
    )
    assert float(queued.get("width")) == pytest.approx(160)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_names_cannot_break_it(name, node, task, job_id):
    """Whatever clusters, nodes and tasks are called, the picture is well-formed and has our elements alone."""
    history = {**remembered(8, names=(task, name)), "nodes": [{**remembered(8)["nodes"][0], "name": node}]}
    shown = life(
        history, name=name, site=name, job_id=job_id, nodes=(node,), waits=[Wait(name=task, since=NOW, seconds=5)]
    )
    root = ElementTree.fromstring(shown._repr_svg_())
    assert {element.tag.partition("}")[2] for element in root.iter()} <= {"svg", "text", "rect", "path", "title"}
    assert len(repr(shown).splitlines()) == 5
