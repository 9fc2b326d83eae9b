"""Tasks that add tasks: children, detours, values, defused branches, and nothing of an attempt that died."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

import hpcnb as hpc
from hpcnb.pilot.queue import action, draining
from tests.unit.pilot.tiny import wait_for
from tests.unit.queues.place import place

HPCNB = shlex.join([sys.executable, "-c", "from hpcnb.cli import main; main()", "queue"])


@pytest.fixture
def q(isolated, monkeypatch):
    """An empty queue, whose owner does not wait long for workers that are away."""
    monkeypatch.setattr(draining, "GRACE", 0.5)
    return hpc.Queue.create("grow")


def tasks(q, state=None):
    return [one.task for one in q.tasks(state)]


def error(q, id):
    return q.task(id)["attempts"][-1]["error"]


def test_a_task_adds_its_children(q):
    """A fan-out and a fan-in that only the task itself knows; children get what their parents pass, in the parents' order."""

    def call(task):
        said = hpc.Action(result=len(task))
        if "split" in task:
            said.add({"alone": True}, priority=-1)
            parts = [said.child({"part": number}) for number in range(3)]
            said.child({"merge": True}, requires=parts)
            said.values(base=10)
        elif "part" in task:
            said.push(found=task["base"] + task["part"])
        return said if "merge" not in task else task

    q.add({"split": True}, priority=5)
    q.do(func=call)
    assert tasks(q) == [{"split": True}, {"alone": True}, {"part": 0}, {"part": 1}, {"part": 2}, {"merge": True}]
    assert [one.priority for one in q.tasks()] == [5, -1, 5, 5, 5, 5]
    assert list(q.tasks())[-1].result == {"merge": True, "base": 10, "found": [10, 11, 12]}
    assert q.task(6)["values"] == {"base": 10, "found": [10, 11, 12]}
    assert q.status()["ntasks"]["Succeeded"] == 6
    q.rerun(6, force=True)
    q.do(func=call)
    assert list(q.tasks())[-1].attempts == 2


def test_detours_and_defused_branches(q):
    """Who waits for a task waits for its detours, too; a defused branch is Killed, with all behind it, until it is revived."""
    order = []

    def call(task):
        order.append(task)
        said = hpc.Action()
        if task == "around":
            first = said.detour("detour 1")
            said.detour("detour 2", requires=[first])
        if task == "stop":
            said.defuse()
            said.child("instead")
        return said

    around = q.add("around")
    q.add("behind", requires=[around], priority=9)
    stop = q.add("stop")
    child = q.add("child", requires=[stop])
    q.add("grandchild", after=[child])
    q.add("other", after=[stop, around])
    q.do(func=call)
    assert order.index("detour 1") < order.index("detour 2") < order.index("behind")
    assert "instead" in order
    assert tasks(q, "Killed") == ["child", "grandchild", "other"]
    assert q.revive() == 3
    q.do(func=call)
    assert sorted(order[-3:]) == ["child", "grandchild", "other"]
    assert order.index("child") < order.index("grandchild")
    assert q.status()["ntasks"]["Succeeded"] == 9


def test_commands_add_tasks(q):
    """A command adds by `hpcnb queue add .` or by a line of JSON, and reads what was passed to it from a file."""
    child = f"{HPCNB} add . --child --requires $({HPCNB} add . --child 'cat $HPCNB_VALUES') -- echo both"
    passing = """echo '{"values": {"n": 3, "text": "a\\u00e4"}}' >> $HPCNB_ACTIONS"""
    q.add(f"{child}; {passing}")
    q.add("""echo '{"child": "never"}' >> $HPCNB_ACTIONS; exit 3""")
    q.add("""echo '{"child": "x", "requires": [1]}' >> $HPCNB_ACTIONS""")
    q.add("""echo '{"cild": "x"}' >> $HPCNB_ACTIONS""")
    q.add("""printf '\\377 {' >> $HPCNB_ACTIONS""")
    q.do()
    assert tasks(q)[5:] == ["cat $HPCNB_VALUES", "echo both"]
    assert json.loads(q.log(6)) == {"n": 3, "text": "aä"}
    assert q.log(1) == "2\n"
    assert error(q, 2) == "exit status 3"
    assert error(q, 3).endswith("requires 1, but 0 tasks were added before it")
    assert error(q, 4) == """line 1 of $HPCNB_ACTIONS: {"cild": "x"}: 'cild' is not known there"""
    assert error(q, 5).startswith("line 1 of $HPCNB_ACTIONS: ")
    assert not list(place(q).path.glob("logs/*.notes"))


def test_templates_and_values(q):
    """A template has what was passed to its task."""
    q.add({"name": "first"})
    q.add({"name": "second"}, requires=[1])
    q.do(script="""echo {name} >&2; echo '{{"values": {{"name": "of the parent"}}}}' >> $HPCNB_ACTIONS""")
    assert q.log(2) == "of the parent\n"


def test_outside_of_a_task(isolated, monkeypatch):
    """`.` is the queue of a task only within a task."""
    monkeypatch.delenv(action.FILE, raising=False)
    with pytest.raises(hpc.QueueError, match="only in a command that a queue carries out"):
        action.leave({"add": "x"})


@pytest.mark.parametrize(
    "more", [{"requires": [1]}, {"priority": "x"}, {"wrong": 1}, {"unique": 1}, {"priority": 10**20}]
)
def test_what_an_action_cannot_mean(more):
    """A wrong word is refused where it was written."""
    with pytest.raises(ValueError, match=next(iter(more))):
        hpc.Action().child("x", **more)


def test_a_result_that_is_none(q):
    """What JSON has not fails the task that says it, and adds nothing."""

    def call(task):
        said = hpc.Action()
        said.child(object() if task else float("nan"))
        return said

    q.add_multiple([0, 1])
    q.do(func=call)
    assert q.status()["ntasks"]["Failed"] == 2
    assert "not JSON serializable" in error(q, 2)


def test_taken_by_hand(q):
    """Who takes a task by hand says the same with its result, once, and gets the values of a task's parents."""
    q.add({"a": 1})
    said = hpc.Action(result=7)
    said.child({"b": 2})
    said.values(c=3)
    claim = q.get()
    claim.succeed(said)
    with pytest.raises(hpc.QueueError, match="no longer ours"):
        claim.succeed(said)
    child = q.get()
    assert (child.task, child.values) == ({"b": 2, "c": 3}, {"c": 3})
    child.succeed()
    assert q.get() is None
    assert [one.result for one in q.tasks()] == [7, None]


GROWS = """
import os, sys, time, hpcnb as hpc
from hpcnb.pilot.queue import draining
draining.GRACE = 0.5
def call(task):
    said = hpc.Action()
    said.child("child")
    if task == "split":
        open(sys.argv[1] + str(os.getpid()), "w")
        while not os.path.exists(sys.argv[1] + "go"):
            time.sleep(0.05)
        return said
hpc.Queue.connect("grow").do(func=call)
"""


@pytest.mark.slow
def test_an_attempt_that_died_adds_nothing(q, tmp_path):
    """A worker is killed when it has said what it adds, but has not ended: the next attempt alone adds it."""
    q.add("split")
    mark = str(tmp_path / "pid")
    command = [sys.executable, "-c", GROWS, mark]
    with subprocess.Popen(command) as first:
        wait_for((tmp_path / f"pid{first.pid}").exists, 60)
        os.kill(first.pid, signal.SIGKILL)
    (tmp_path / "pidgo").touch()
    subprocess.run(command, check=True, timeout=120)
    assert tasks(q) == ["split", "child"]
    assert [one["state"] for one in q.task(1)["attempts"]] == ["Lost", "Succeeded"]


TREE = """
import time, hpcnb as hpc
from hpcnb.pilot.queue import draining
draining.GRACE = 0.5
def call(task):
    time.sleep(0.02)
    said = hpc.Action(result=task)
    if len(task) < 5:
        said.child(task + "0")
        said.child(task + "1")
    return said
hpc.Queue.connect("grow").do(func=call)
"""


@pytest.mark.slow
def test_a_tree_that_grows_while_its_workers_are_killed(q):
    """Whoever is killed whenever, owner or worker: each node of a tree is added once, by the attempt whose result counts."""
    q.add("")
    command = [sys.executable, "-c", TREE]
    running = [subprocess.Popen(command) for _ in range(2)]
    for count in (8, 20, 32):
        wait_for(lambda count=count: q.status()["ntasks"]["Succeeded"] >= count, 90)
        running[0].kill()
        running[0].wait()
        running = [running[1], subprocess.Popen(command)]
    assert [one.wait(120) for one in running] == [0, 0]
    wanted = [format(number, "b")[1:] for number in range(1, 64)]
    assert sorted(tasks(q)) == sorted(wanted)
    assert all(one.result == one.task for one in q.tasks())


@pytest.mark.slow
def test_a_fan_out_uses_all_workers(q):
    """Workers without a task wait for what the one that runs may add, and all of them get some of it."""
    logs, seen = place(q).path / "logs", place(q).path / "seen"
    seen.mkdir()
    meet = f"touch {seen}/$PPID; until test $(ls {seen} | wc -l) = 3; do sleep 0.05; done"  # as long as one is missing
    split = f"for n in $(seq 24); do printf '%s\\n' '{json.dumps({'child': meet})}'; done >> $HPCNB_ACTIONS"
    first = q.add(f"until test $(ls {logs}/*.out | wc -l) = 3; do sleep 0.05; done; sleep 0.5; {split}")
    q.add("true", requires=[first])
    do = "import hpcnb; hpcnb.Queue.connect('grow').do()"
    workers = [subprocess.Popen([sys.executable, "-c", do]) for _ in range(3)]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert q.status()["ntasks"]["Succeeded"] == 26
    used = {q.task(id)["attempts"][-1]["worker"] for id in range(3, 27)}
    assert len(used) == 3


def test_who_runs_again_adds_nothing_twice(q):
    """What a task adds as it did before is what it added before, which is carried out again; what is new is added."""
    order, parts = [], ["a", "a", "b"]

    def call(task):
        order.append(task)
        said = hpc.Action(result=len(order))
        if task == "split":
            numbers = [said.child(part) for part in parts]
            said.add("merge", requires=numbers)
            said.detour("check", after=numbers[:1])
        return said

    q.add("split")
    q.add("behind", requires=[1])
    q.do(func=call)
    known = ["split", "behind", "a", "a", "b", "merge", "check"]
    assert tasks(q) == known
    q.rerun(force=True)
    order.clear()
    q.do(func=call)
    assert (tasks(q), sorted(order), order[0]) == (known, sorted(known), "split")
    assert order.index("merge") > max(place for place, task in enumerate(order) if task in "ab")
    assert order.index("behind") > order.index("check")
    assert {one.attempts for one in q.tasks()} == {2}

    q.rerun(1, force=True)  # alone: its children have been done from what it had found before
    order.clear()
    parts.append("c")  # so that what is merged is other than before
    q.do(func=call)
    assert tasks(q) == [*known, "c", "merge"]
    assert sorted(order) == ["a", "a", "b", "c", "check", "merge", "split"]
    assert order[-1] == "merge"
    q.set_state(3, "Failed")
    q.rerun(1, force=True)
    q.do(func=call)
    assert (len(q), q.status()["ntasks"]["Succeeded"], q.task(3)["attempts"][-1]["number"]) == (9, 9, 4)


def test_the_same_is_not_added_again(q):
    """On request a task is not added whose content the queue has, whatever became of it; keys may be in another order."""
    q.add_multiple([{"a": 1, "b": 2}, "true", "false"])
    q.do()
    again = q.add_multiple([{"b": 2, "a": 1}, "false", "new", "new", "true"], unique=True)
    assert again == [1, 3, 4, 4, 2]
    assert q.add("new", unique=True) == 4
    assert q.add("new") == 5
    assert q.add("new", unique=True) == 4
    assert q.add_multiple(["x", "y"], requires=[[1], [2]], unique=True) == [6, 7]
    assert [one.state for one in q.tasks()][5:] == ["Waiting", "Pending"]
    with pytest.raises(TypeError):
        q.add_multiple(["z", object()], unique=True)
    assert len(q) == 7


def test_what_is_explored_once(q):
    """Tasks that find each other's successors visit each once, by what they add being unique; a circle does not stop them."""

    def call(task):
        said = hpc.Action()
        for step in (1, 2, 3):
            said.detour((task + step) % 17, unique=True)
        return said

    q.add(0)
    q.add(99, requires=[1])
    q.do(func=lambda task: call(task) if task != 99 else None)
    assert sorted(tasks(q)) == [*range(17), 99]
    assert q.status()["ntasks"]["Succeeded"] == 18
