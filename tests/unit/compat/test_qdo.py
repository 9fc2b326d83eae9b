"""qdo's Python API on our queues: what its documentation shows, and what programs that were written for it do."""

from __future__ import annotations

import json

import pytest

import hpcnb as hpc
from hpcnb.compat import qdo


@pytest.fixture
def q(isolated):
    """An empty queue."""
    return qdo.create("EchoChamber")


def states(q):
    return [one.state for one in q.tasks()]


def test_create_and_connect(q, capsys):
    """Queues are made, found and listed by name; what cannot be is a ValueError, which qdo's programs catch."""
    assert qdo.connect("EchoChamber").name == qdo.qlist()[0].name == "EchoChamber"
    for wrong in (lambda: qdo.create("EchoChamber"), lambda: qdo.connect("other"), lambda: qdo.create("a b")):
        with pytest.raises(ValueError, match=r"there is|cannot be"):
            wrong()
    with pytest.raises(ValueError, match="only one's own"):
        qdo.qlist(user="somebody else")
    assert qdo.connect("other", create_ok=True).status()["ntasks"]["Pending"] == 0
    assert [qdo.valid_queue_name(name) for name in ("blat", "a/b", "")] == [True, False, False]
    qdo.print_queues()
    shown = capsys.readouterr().out
    assert " ".join(shown.split("\n")[0].split()) == "QueueName State Waiting Pending Running Succeeded Failed"
    assert str(q) in shown
    q.delete()
    assert [one.name for one in qdo.qlist()] == ["other"]


def test_add_and_get(q):
    """Tasks are added with priorities and with what they require; `get` takes the most urgent one, and None is the end."""
    first = q.add("low", priority=-1.0)
    ids = q.add_multiple(["a", {"b": 1}, ["c", 2]], priorities=[1, 3, 2])
    last = q.add("last", requires=ids)
    also = q.add_multiple(["x"], requires=[last])
    assert [first, *ids, last, *also] == [1, 2, 3, 4, 5, 6]
    taken = [q.get(timeout=0.0) for _ in range(4)]
    assert [one.task for one in taken] == [{"b": 1}, ["c", 2], "a", "low"]
    assert [taken[0].priority, taken[0].state, q.get(timeout=0.1)] == [3, qdo.Task.RUNNING, None]
    for one in taken[:3]:
        one.set_state(qdo.Task.SUCCEEDED)
    taken[3].set_state(qdo.Task.FAILED, err=7, message="why")
    assert (q.tasks(id=first).err, q.tasks(id=first).message) == (7, "why")
    assert states(q) == ["Failed", "Succeeded", "Succeeded", "Succeeded", "Pending", "Waiting"]
    q.set_task_state(last, qdo.Task.SUCCEEDED)
    assert q.tasks(id=6).state == "Pending"
    with pytest.raises(ValueError, match="is no state of a task"):
        q.set_task_state(last, "Gone")
    with pytest.raises(ValueError, match="not of one length"):
        q.add_multiple(["x"], priorities=[1, 2])
    with pytest.raises(ValueError, match="given by the queue"):
        q.add("x", id="abc")
    assert json.loads(qdo.tojson(q.tasks(state="Failed")))[0]["err"] == 7
    assert json.loads(qdo.tojson(q))["name"] == "EchoChamber"


def test_do_commands(q, tmp_path, capsys):
    """Commands are carried out, listed by state and exit status, and done again."""
    path = tmp_path / "commands.txt"
    path.write_text(f"# three\necho Hello >> {tmp_path}/out\nexit 3\n\nexit 4\n")
    assert q.loadfile(str(path)) == [1, 2, 3]
    q.do(timeout=0)
    assert (tmp_path / "out").read_text() == "Hello\n"
    assert states(q) == ["Succeeded", "Failed", "Failed"]
    assert [one.id for one in q.tasks(exitcode=4)] == [3]
    q.print_tasks(state=qdo.Task.FAILED)
    assert "exit 4" in capsys.readouterr().out
    assert q.retry(priority=5, exitcode=4) == 1
    assert [(one.id, one.priority) for one in q.tasks(state="Pending")] == [(3, 5)]
    assert q.rerun(state=qdo.Task.SUCCEEDED) == 1
    assert states(q) == ["Pending", "Failed", "Pending"]
    assert q.rerun() == 1
    q.do(runtime=30, timeout=0)
    assert (tmp_path / "out").read_text() == "Hello\n" * 2


def test_do_functions_and_scripts(q, tmp_path):
    """A function gets a dict's values by name and a list's in order; a script the task behind it, or the values it names."""
    seen = []

    def func(*args, **kwargs):
        seen.append((args, kwargs))
        if args == ("bad",):
            raise RuntimeError("bad")

    q.add_multiple([{"a": 1, "b": 2}, [3, 4], "5", "bad"])
    q.do(func=func, timeout=0)
    assert seen == [((), {"a": 1, "b": 2}), ((3, 4), {}), (("5",), {}), (("bad",), {})]
    assert (q.tasks(id=4).err, q.tasks(id=4).message) == (1, "RuntimeError: bad")
    other = qdo.create("other")
    other.add("brick-1 2 3")
    other.do(script=f"printf '%s,' >> {tmp_path}/out", timeout=0)
    assert (tmp_path / "out").read_text() == "brick-1,2,3,"
    other.add({"a": "x y", "b": 1.5})
    other.do(script=f"printf '%s,' {{a}} {{b:.2f}} > {tmp_path}/out", timeout=0)
    assert (tmp_path / "out").read_text() == "x y,1.50,"
    other.add({"a": 1})
    other.do(script="echo {b}", timeout=0)
    other.retry()
    other.do(timeout=0)
    assert other.tasks(id=3).message == "it is a value and no command line: it needs func= or script="


def test_pause_recover_and_kill(q):
    """A queue that is paused gives nothing out; `recover` leaves what runs; what was killed is revived."""
    q.add_multiple(["one", "two"])
    q.pause()
    assert (q.state, q.get(timeout=0)) == (qdo.Queue.PAUSED, None)
    q.resume()
    assert q.state == qdo.Queue.ACTIVE
    running = q.get()
    assert q.recover() == 0
    running.set_state(qdo.Task.KILLED)
    assert states(q) == ["Killed", "Pending"]
    assert q.revive() == 1
    assert states(q) == ["Pending", "Pending"]


def test_launch(q, monkeypatch):
    """The options of qdo become ours; what is unknown is refused and not ignored."""
    asked = []
    monkeypatch.setattr(hpc.Queue, "launch", lambda _, count, **more: asked.append((count, more)) or ["1"] * count)
    assert q.launch(1, jobs=8) == ["1"] * 8
    q.launch(4, jobs=2, walltime="30:00", batchqueue="debug", taskcores=2, keep_env=True)
    q.launch(24, batch_opts="-A m1 --exclusive --image=docker:x", script="run.sh")
    wishes = {"walltime": "30:00", "partition": "debug", "cores_per_worker": 2}
    assert asked[:3] == [(8, {}), (4, {"pack": True, **wishes}), (4, {"pack": True, **wishes})]
    assert asked[3][1]["options"] == {"--account": "m1", "--exclusive": None, "--image": "docker:x"}
    with pytest.raises(ValueError, match="numa_pack"):
        q.launch(24, numa_pack=True)
