"""`hpc.Queue` and `hpcnb queue` without anything that runs: each call takes the queue's lease, and returns it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

import hpcnb as hpc
from hpcnb import cli
from hpcnb.pilot.queue import lease
from hpcnb.pilot.queue.lease import newest
from hpcnb.queue.queue import listing
from tests.unit.queues.place import place


@pytest.fixture
def q(isolated):
    """An empty queue."""
    return hpc.Queue.create("extract")


@pytest.fixture
def run(isolated, monkeypatch, capsys):
    """Run the command line in this process: exit status, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hpcnb", "queue", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr()
        return caught.value.code, shown.out, shown.err

    return run


def test_the_table(q):
    """`print(q)` is a table with the header that scripts of qdo's users know; the status is theirs, too."""
    q.add_multiple(["true"] * 12)
    q.add("false", requires=[1])
    assert str(q).split("\n") == [
        "QueueName  State   Waiting  Pending  Running  Succeeded  Failed",
        "extract    Active  1        12       0        0          0",
    ]
    status = q.status()
    assert (status["name"], status["state"]) == ("extract", "Active")
    assert status["ntasks"] == {"Waiting": 1, "Pending": 12, "Running": 0, "Succeeded": 0, "Failed": 0, "Killed": 0}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "-a", "x" * 65, "a b", "<b>", "ü", None, 5])
def test_names_are_checked(isolated, name):
    """A name that could be a path, an option or a second line is refused."""
    with pytest.raises(hpc.QueueError, match="cannot be a queue's name"):
        hpc.Queue.create(name)


def test_create_and_connect(q):
    """A queue is made once, and found from then on."""
    with pytest.raises(hpc.QueueError, match="there is a queue 'extract' already"):
        hpc.Queue.create("extract")
    with pytest.raises(hpc.QueueError, match="there is no queue 'other'"):
        hpc.Queue.connect("other")
    assert [str(queue) for queue in hpc.queues()] == [str(q)]
    assert place(q).path.stat().st_mode & 0o777 == 0o700
    modes = {path.stat().st_mode & 0o077 for path in place(q).path.rglob("*")}
    assert modes == {0}


@pytest.mark.parametrize("task", [{1, 2}, b"x", float("nan"), object(), [object()], {"a": lambda: 1}])
def test_what_is_no_task(q, task):
    """A task is a command line or a JSON value; anything else is a TypeError, and nothing is added."""
    with pytest.raises(TypeError, match="a task is a command line or a value that JSON has"):
        q.add_multiple(["true", task])
    assert len(q) == 0


@pytest.mark.parametrize(
    "task", ["echo 'a\"b'; $(c)\nd", {"a": [1, None]}, 5, "ünï\x1b", "\udcff", [], "x" * 10_000_000]
)
def test_what_comes_back(q, task):
    """A task comes back as it was added, whatever is in it."""
    q.add(task)
    claim = q.get()
    assert (claim.task, next(q.tasks()).task) == (task, task)
    claim.succeed(task)
    assert next(q.tasks("Succeeded")).result == task


def test_dependencies(q):
    """What has to succeed, what has to finish; for all tasks of a call, or for each its own."""
    first = q.add_multiple(["a", "b"])
    assert list(q.add_multiple(["c", "d"], requires=[[first[0]], []], after=[[], [first[1]]])) == [3, 4]
    q.add("e", requires=first, priority=9)
    q.get().fail("no")
    q.get().fail("no")
    assert [task.id for task in q.tasks("Pending")] == [4]
    assert q.task(3)["waits_for"] == [1]
    assert q.retry(1) == 1
    q.get().succeed()
    assert [task.id for task in q.tasks("Pending")] == [3, 4]
    with pytest.raises(hpc.QueueError, match="no task 77 to wait for"):
        q.add("f", requires=[1, 77])
    with pytest.raises(ValueError, match="2 tasks, but requires= has 1 lists"):
        q.add_multiple(["f", "g"], requires=[[1]])


def test_priorities(q):
    """Higher goes first, first come first served among equals; it can be changed while a task is pending."""
    q.add_multiple(["a", "b", "c"])
    q.add("d", priority=1)
    assert q.set_priority([3], 2) == 1
    assert [q.get().task for _ in range(4)] == ["c", "d", "a", "b"]


def test_states_by_hand(q):
    """Retry, revive, rerun with force alone, and states set by hand; an attempt that was taken away counts no more."""
    q.add_multiple(range(4))
    claim = q.get()
    assert q.set_state(claim.id, "Killed") == 1
    with pytest.raises(hpc.QueueError, match="no longer ours"):
        claim.succeed()
    q.set_state([2], "Succeeded")
    q.set_state([3], "Failed")
    with pytest.raises(hpc.QueueError, match=r"rerun\(force=True\)"):
        q.rerun()
    assert (q.retry(), q.revive(), q.rerun(force=True)) == (1, 1, 1)
    assert q.status()["ntasks"]["Pending"] == 4
    with pytest.raises(ValueError, match="'Done' is no state of a task; the states are Waiting, Pending"):
        q.set_state([1], "Done")
    with pytest.raises(hpc.QueueError, match="cannot be set Running"):
        q.set_state([1], "Running")
    with pytest.raises(hpc.QueueError, match="there is no task 50"):
        q.retry([1, 50])


def test_paused(q):
    """A paused queue gives nothing out."""
    q.add("a")
    q.pause()
    assert (q.get(), q.status()["state"]) == (None, "Paused")
    q.resume()
    assert q.get(timeout=5).task == "a"
    assert q.get(timeout=0.1) is None


def test_recover(q):
    """What somebody has taken who has died is taken back; what somebody has who lives is not."""
    q.add_multiple(["a", "b"])
    code = "import hpcnb, os; hpcnb.Queue.connect('extract').get(); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False)
    claim = q.get()
    assert (q.recover(), q.recover()) == (1, 0)
    claim.succeed()
    assert q.status()["ntasks"]["Pending"] == 1
    assert q.task(1)["attempts"][0]["state"] == "Lost"


@pytest.mark.slow
def test_many_processes_take(q):
    """Processes that all take tasks at once get each task once, and none is lost."""
    q.add_multiple(range(120))
    code = (
        "import hpcnb\nq = hpcnb.Queue.connect('extract')\n"
        "for _ in range(30):\n    claim = q.get(timeout=60)\n    claim.succeed(claim.task)\n    print(claim.id)\n"
    )
    takers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(4)]
    got = [int(word) for taker in takers for word in taker.communicate(timeout=100)[0].split()]
    assert sorted(got) == list(range(1, 121))
    assert [task.result for task in q.tasks("Succeeded")] == list(range(120))


def test_a_read_only_folder(q):
    """A queue that cannot be written says so, and nothing is half done."""
    if os.getuid() == 0:
        subprocess.run(["chattr", "+i", place(q) / "inbox"], check=False)
        lift = ["chattr", "-i", place(q) / "inbox"]
    else:
        (place(q) / "inbox").chmod(0o500)
        lift = ["chmod", "700", place(q) / "inbox"]
    try:
        if os.getuid() == 0 and b"i" not in subprocess.check_output(["lsattr", "-d", place(q) / "inbox"]).split()[0]:
            pytest.skip("this file system cannot be made read-only for root")
        with pytest.raises(hpc.QueueError, match="cannot write .*inbox"):
            q.add("a")
    finally:
        subprocess.run(lift, check=True)
    assert len(q) == 0


def test_what_others_have_left_in_the_folder(q, monkeypatch):
    """What is no request, what a network file system hides there, and what a machine that crashed has left empty are in nobody's way."""
    monkeypatch.setattr(lease, "LAPSE", 0.2)
    folder = place(q).path
    q.add("true")
    (folder / "inbox" / "0").mkdir()
    (folder / "inbox" / "1").symlink_to("nowhere")
    (folder / "inbox" / "2").write_bytes(b"\xff")
    (folder / "store" / ".nfs0001").touch()
    (folder / "store" / "old.sqlite").touch()
    (folder / "counts.json").write_text("")
    number, _ = newest(folder / "owner")
    (folder / "owner" / f"{number:012}.free").rename(folder / "owner" / f"{number:012}.beat")  # it has died
    (folder / "owner" / f"{number:012}.beat").write_text("")
    (folder / "owner" / f"{number:012}").write_text(json.dumps({"host": "elsewhere"}))
    assert (q.add("true"), q.status()["ntasks"]["Pending"]) == (2, 2)
    assert [one.status()["ntasks"]["Pending"] for one in hpc.queues()] == [2]


def test_others_could_write(q):
    """A queue in a folder that others can write to is not used."""
    place(q).path.chmod(0o777)
    with pytest.raises(hpc.QueueError, match="others can write to"):
        hpc.Queue.connect("extract")


def test_delete(q):
    """A queue that was deleted is gone, for whoever still knows it."""
    hpc.Queue.connect("extract").delete()
    assert hpc.queues() == []
    with pytest.raises(hpc.QueueError, match="there is no queue 'extract'"):
        q.add("a")


def test_a_hundred_queues(isolated, figure):
    """Queues are listed by what their owners have left: a thousand in less than a second."""
    for number in range(100):
        hpc.Queue.create(f"q{number:03}")
    hpc.Queue.connect("q007").add("a")
    start = time.perf_counter()
    found = listing()
    figure(f"100 queues listed in {(time.perf_counter() - start) * 1000:.0f} ms")
    assert [one["ntasks"]["Pending"] for one in found] == [int(number == 7) for number in range(100)]
    assert newest(place(hpc.Queue.connect("q008")) / "owner")[0] == 1  # nobody had to own it for that


# -- the command line -------------------------------------------------------------------------------------------------


def test_a_queue_from_the_command_line(run, tmp_path):
    """Create, load, add, list, show and change a queue, with nothing that runs."""
    lines = tmp_path / "commands"
    lines.write_bytes(b"# a comment\n\necho one\n  echo 'two;' \xff\n")
    assert "Tasks: hpcnb queue add extract COMMAND" in run("create", "extract")[1]
    assert (
        run("load", "extract", str(lines), "--priority", "2", "--retries", "3", "--retry-delay", "1m")[1]
        == "2 tasks added\n"
    )
    assert run("add", "extract", "--requires", "1-2", "--", "merge", "--all", "a b")[1] == "3\n"
    assert run("list")[1].split("\n")[1].split() == ["extract", "Active", "1", "2", "0", "0", "0"]
    assert json.loads(run("list", "--json")[1])[0]["ntasks"]["Pending"] == 2
    tasks = [json.loads(line) for line in run("tasks", "extract", "--json")[1].splitlines()]
    assert [task["task"] for task in tasks] == ["echo one", "echo 'two;' \udcff", "merge --all 'a b'"]
    table = run("tasks", "extract", "--state", "waiting")[1].splitlines()
    assert [line.split()[:3] for line in table] == [["Id", "State", "Priority"], ["3", "Waiting", "0"]]
    assert run("pause", "extract")[0] == 0
    assert json.loads(run("status", "extract", "--json")[1])["state"] == "Paused"
    assert run("resume", "extract")[0] == run("recover", "extract")[0] == 0
    assert json.loads(run("task", "extract", "3")[1])["waits_for"] == [1, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "nowhere"], "NoSuchQueue: there is no queue 'nowhere'"),
        (["create", "a/b"], "QueueError: 'a/b' cannot be a queue's name"),
        (["load", "extract", "/no/such/file"], "QueueError: cannot read /no/such/file: No such file or directory"),
        (["rerun", "extract"], "--force"),
        (["retry", "extract", "--id", "1,x"], "'x' is no id of a task; write 3,5,10-20"),
        (["add", "extract", "--requires", "7", "true"], "there is no task 7 to wait for"),
        (["delete", "extract"], "1 tasks that have not ended"),
    ],
)
def test_refusals(run, q, words, said):
    """What cannot be is an error of one sentence and an exit status; nothing is changed."""
    q.add("true")
    code, out, err = run(*words)
    assert code != 0
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert len(q) == 1


@pytest.fixture
def small_disk(tmp_path, monkeypatch, isolated):
    """A home of 1.5 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root can mount a small disk")
    monkeypatch.setenv("HPCNB_HOME", str(folder / "home"))
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_small_disk(small_disk, monkeypatch):
    """On a full disk an error names the place and the cause, nothing is half done, and with room again all goes on."""
    monkeypatch.setattr(lease, "LAPSE", 0.3)
    q = hpc.Queue.create("extract")
    q.add_multiple(["true"] * 10)
    with pytest.raises(hpc.QueueError, match="No space left on device"):
        q.add_multiple(["x" * 1000] * 10_000)
    assert len(q) == 10
    with pytest.raises(hpc.QueueError, match=r"(?s)cannot be (read or )?written.*(full|No space)"):
        q.add_multiple(["x" * 1000] * 900)  # there is room for the request, but not for the tasks beside it
    assert len(q) == 10
    (small_disk / "ballast").write_bytes(bytes(100_000))
    q.do()
    assert q.status()["ntasks"]["Succeeded"] == 10
    assert not any((place(q) / "inbox").iterdir())


def test_growth_and_statistics_on_the_command_line(run, monkeypatch, tmp_path):
    """What is for tasks is refused elsewhere; workflows are loaded; what failed is looked into."""
    monkeypatch.delenv("HPCNB_ACTIONS", raising=False)
    run("create", "extract")
    assert "is for commands that a queue carries out" in run("add", "extract", "--child", "true")[2]
    assert "means something only in a command" in run("add", ".", "true")[2]
    monkeypatch.setenv("HPCNB_ACTIONS", str(tmp_path / "actions"))
    assert run("add", ".", "--detour", "--priority", "3", "--unique", "a b")[:2] == (0, "1\n")
    assert run("add", ".", "--requires", "1", "--", "c", "d e")[:2] == (0, "2\n")
    assert "requires 3, but 2 tasks were added before it" in run("add", ".", "--requires", "3", "x")[2]
    assert "those of the task itself" in run("add", ".", "--retries", "3", "x")[2]
    lines = [json.loads(line) for line in (tmp_path / "actions").read_text().splitlines()]
    assert lines == [{"detour": "a b", "priority": 3, "unique": True}, {"add": "c 'd e'", "requires": [1]}]
    (tmp_path / "wf.yaml").write_text("spec: {_tasks: {_fw_name: ScriptTask, script: 'true'}}")
    assert run("load", "extract", str(tmp_path / "wf.yaml"))[1] == "1 task added\n"
    assert [run("add", "extract", "--unique", "x")[1] for _ in range(2)] == ["2\n", "2\n"]
    assert "some of both are needed" in run("introspect", "extract")[2]
    q = hpc.Queue.connect("extract")
    ids = q.add_multiple([{"n": n} for n in range(40)])
    q.set_state(ids[:20], "Succeeded")
    q.set_state(ids[20:], "Failed")
    assert run("introspect", "extract")[1].split("\n")[2].startswith("20 of 20  0 of 20    1.00  ")
    assert json.loads(run("introspect", "extract", "--json")[1])["findings"][0]["parameter"] == "n"
    assert json.loads(run("status", "extract", "--json")[1])["rate"] is None


def test_numbers_that_are_too_large(q, run):
    """A number that no queue can have is refused, and fails neither who owns the queue nor what is asked next."""
    huge = str(10**20)
    for words in (
        ("add", "extract", "true", "--priority", huge),
        ("add", "extract", "true", "--retries", huge),
        ("add", "extract", "true", "--requires", huge),
        ("task", "extract", huge),
        ("log", "extract", huge),
        ("retry", "extract", "--id", huge),
    ):
        code, out, err = run(*words)
        assert (code, out, "a number is too large for a queue" in err) == (1, "", True), words
    assert q.add("true") == 1


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ("", "names no task"),
        (",", "names no task"),
        ("5-3", "is none"),
        ("1-99999999999", "more than a million"),
        ("1,x", "'x' is no id"),
    ],
)
def test_ids_that_name_no_task(q, run, ids, why):
    """An option that names no task, as by an empty variable of the shell, is not taken for all tasks."""
    q.add_multiple(["true", "false"])
    q.set_state([1, 2], "Failed")
    for words in (("retry", "extract", "--id", ids), ("add", "extract", "--requires", ids, "true")):
        code, _, err = run(*words)
        assert (code, why in err) == (2, True), words
    assert (len(q), q.status()["ntasks"]["Failed"]) == (2, 2)


@pytest.mark.parametrize("tasks", ["true", b"true", {"a": 1}])
def test_one_task_is_not_several(q, tasks):
    """A command line is no list of commands of one letter each."""
    with pytest.raises(TypeError, match="is one task, and not several: use `add`"):
        q.add_multiple(tasks)
    assert len(q) == 0


def test_what_names_a_task(q):
    """Ids, tasks and several of both name tasks, wherever tasks are named; everything else does not."""
    q.add_multiple(["true", "true"])
    first, second = q.tasks()
    assert [*q.add_multiple(["a", "b"], requires=[first])] == [3, 4]
    assert [*q.add_multiple(["a", "b"], requires=first, after={2})] == [5, 6]
    assert [*q.add_multiple(["a", "b"], requires=[[first], [second]])] == [7, 8]
    waits = [q.task(id)["waits_for"] for id in range(3, 9)]
    assert waits == [[1], [1], [1, 2], [1, 2], [1], [2]]
    for odd in (None, [None], [0.0], "1", [""], True, 1.0):
        for call in (q.retry, q.task, q.log, lambda some: q.add("x", requires=some)):
            if odd is not None or call != q.retry:
                with pytest.raises(TypeError, match="is no id of a task"):
                    call(odd)
    with pytest.raises(TypeError, match="is no id of a task"):
        q.log([])
    for func, script in ((5, ""), (None, 5), (None, None)):
        with pytest.raises(hpc.QueueError, match="Give a function, or a template"):
            q.do(func, script=script)
    with pytest.raises(hpc.QueueError, match="retries=-1"):
        q.add("x", retries=-1)
    assert len(q) == 8
