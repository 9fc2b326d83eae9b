"""A queue's view: how it stands, its tasks, and what the buttons do, with a real queue on this machine."""

from __future__ import annotations

import pytest

import hpcnb as hpc
from hpcnb.agent.loop import background
from hpcnb.notebook import queue_view
from hpcnb.notebook.queue_view import Tasks, show_queue
from tests.unit.pilot.tiny import wait_for


@pytest.fixture
def queue(isolated):
    """One whose tasks have succeeded, failed, and wait for their turn."""
    q = hpc.Queue.create("view")
    q.add_multiple(["echo fine", "echo '<b>no</b>' >&2; exit 3"])
    q.do()
    q.add("true", priority=2)
    q.pause()
    return q


@pytest.fixture
def view(queue, monkeypatch):
    """Its widgets; when the test has ended they look at the queue no more."""
    started, loop = [], background()
    start = loop.start
    monkeypatch.setattr(loop, "start", lambda work: started.append(start(work)) or started[-1])
    made = Tasks(queue, queue.status())
    made.rest = lambda: wait_for(lambda: all(one.done() for one in started))
    made.bundle()
    made.rest()
    yield made
    made.rest()
    if made._timer:
        loop.asyncio_loop.call_soon_threadsafe(made._timer.cancel)


def press(view, name, *places):
    """Select tasks by their places in the list, press a button, and give what is said then."""
    view.rest()  # who looks at the queue selects anew what is selected
    view.list.index = places
    asked = view._asked
    view.buttons[name].click()
    wait_for(lambda: view._asked > asked)  # what was done is said, and the queue looked at again
    return view.said.value


def test_what_is_selected_can_be_retried_raised_cancelled_and_read(queue, view):
    """The failed task's log is shown, it is retried; a task that waits goes first, or not at all."""
    assert view.state.value == "Failed"
    assert [name.partition(" · ")[0] for name in view.list.options] == ["2"]
    assert press(view, "Log", 0) == ""
    assert "&lt;b&gt;no&lt;/b&gt;" in view.log.value
    assert press(view, "Retry", 0) == "1 of 1 tasks will be carried out again"
    view.state.value = "Pending"
    wait_for(lambda: len(view.list.options) == 2)
    assert press(view, "Raise priority", 0, 1) == "2 of 2 tasks have priority 3"
    assert {task.priority for task in queue.tasks("Pending")} == {3}
    assert press(view, "Cancel", 1) == "1 tasks were killed"
    assert queue.status()["ntasks"]["Killed"] == 1


def test_nothing_selected_changes_nothing(queue, view):
    """A button that needs tasks says so."""
    before = queue.status()
    for name in ("Retry", "Raise priority", "Cancel"):
        assert press(view, name) == "select tasks first"
    assert press(view, "Log") == "select a task first"
    assert queue.status() == before


def test_a_queue_that_is_gone_is_said(queue, view):
    """An error is shown in the view, which then looks no more; a queue of that name that is made anew is shown again."""
    queue.delete()
    press(view, "Refresh")
    wait_for(lambda: "there is no queue" in view.said.value)
    assert view._timer is None or view._timer.cancelled()
    hpc.Queue.create("view").add("true")
    view.bundle()
    wait_for(lambda: "1 pending" in view._view.value)


def test_where_nobody_presses_it_is_text_and_html(queue, monkeypatch):
    """Elsewhere than before a page it is shown whole, with its name as text."""
    shown = []
    monkeypatch.setattr(queue_view, "display", lambda data, **_: shown.append(data))
    show_queue(queue)
    ((plain, page),) = [(data["text/plain"], data["text/html"]) for data in shown]
    assert plain.splitlines() == [
        "QueueName  State   Waiting  Pending  Running  Succeeded  Failed",
        "view       Paused  0        1        0        1          1",
    ]
    assert "■</span> 1 failed" in page
    assert "<script" not in page
