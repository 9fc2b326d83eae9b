"""Draining a queue in a process: commands, functions, templates, and workers and owners that die."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import cloudpickle
import pytest

import hpcnb as hpc
from hpcnb.pilot.queue import desk, draining, lease, worker
from hpcnb.pilot.queue.lease import Watch
from hpcnb.queue import drain, launch
from tests.site.account import words
from tests.unit.pilot.tiny import wait_for
from tests.unit.queues.place import place


@pytest.fixture
def q(isolated, monkeypatch):
    """An empty queue, whose owner does not wait long for workers that are away."""
    monkeypatch.setattr(draining, "GRACE", 0.5)
    return hpc.Queue.create("extract")


def last(q, id):
    return q.task(id)["attempts"][-1]


def test_commands(q):
    """A command's exit status, signal and output are kept with the attempt; its number is in the environment."""
    lines = ["echo $HPCNB_QUEUE $HPCNB_TASK $HPCNB_ATTEMPT; echo oops >&2", "exit 3", "kill -9 $$", "no-such-command"]
    q.add_multiple([*lines, "printf '\\377'", "cat", "a\0b", "x" * 10_000_000, ["a value"], "sleep 60 & echo quick"])
    q.add_multiple(["mkdir $HPCNB_ACTIONS", "echo out > /dev/stdout; echo err > /dev/stderr"])
    q.do()
    ends = {task.id: (task.state, last(q, task.id)["code"], last(q, task.id)["error"]) for task in q.tasks()}
    assert q.log(1) == "extract 1 1\noops\n"
    assert ends[2] == ("Failed", 3, "exit status 3")
    assert ends[3] == ("Failed", -9, "killed by signal 9 (SIGKILL)")
    assert (ends[4][1], "not found" in q.log(4)) == (127, True)
    assert (q.log(5), q.log(6)) == ("�", "")
    assert ends[7][2] == "embedded null byte"
    assert "too long for this system (10,000,000 characters): put it into a file" in ends[8][2]
    assert "needs func= or script=" in ends[9][2]
    assert (ends[10][0], q.log(10)) == ("Succeeded", "quick\n")
    assert "Is a directory" in ends[11][2]
    assert q.log(12) == "out\nerr\n"  # and the others' are as they were
    q.retry(2)
    q.do()
    assert [attempt["number"] for attempt in q.task(2)["attempts"]] == [1, 2]


def test_functions(q):
    """What a function returns is the task's result; what it raises is its error; what JSON has not fails the task alone."""

    def call(x):
        if x == 2:
            raise ArithmeticError("two is too many")
        if x == 3:
            sys.exit("no more")
        return object() if x == 4 else {"twice": 2 * x}

    q.add_multiple(range(6))
    q.do(func=call)
    assert [task.result for task in q.tasks("Succeeded")] == [{"twice": 0}, {"twice": 2}, {"twice": 10}]
    errors = [last(q, task.id)["error"] for task in q.tasks("Failed")]
    assert ["two is too many" in errors[0], "no more" in errors[1], "not JSON serializable" in errors[2]] == [True] * 3


def test_no_room_for_what_is_printed(q, monkeypatch):
    """A disk that is full costs what a function prints, and not what it has come to."""

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    q.add(1)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Full())
        q.do(func=lambda task: task + 1)
    assert [(one.state, one.result, one.attempts) for one in q.tasks()] == [("Succeeded", 2, 1)]


def test_a_name_that_is_no_text(q):
    """What a function raises may name a file whose name is not UTF-8."""

    def call(task):
        raise ValueError(os.fsdecode(b"caf\xe9.tif"))

    q.add({"\udcff": 1})
    q.do(func=call)
    assert last(q, 1)["error"].strip().endswith("ValueError: caf\\udce9.tif")


def test_templates(q):
    """A template's values are single words of the shell, whatever is in them; a missing key fails its task and is named."""
    nasty = "a b'c\"; $(touch hacked) `x` \n -- *"
    q.add_multiple([{"a": nasty, "b": 1.5}, {"a": 1}, [1, 2], {"a": None, "b": 3}])
    q.do(script="printf '<%s>' {a} {b:.2f}")
    assert q.log(1) == f"<{nasty}><1.50>"
    assert last(q, 2)["error"] == "the script's {b} has no value in this task; it has a"
    assert last(q, 3)["error"] == "the script's {a} has no value in this task; it has 2 without a name"
    assert q.log(4) == "<null><3.00>"
    with pytest.raises(hpc.QueueError, match="func= and script= together"):
        q.do(print, script="x")
    q.retry()
    for call in (q.do, q.launch):
        with pytest.raises(hpc.QueueError, match=r"script='awk \{print\}\}' is no template: Single '}'"):
            call(script="awk {print}}")
    assert q.status()["ntasks"]["Pending"] == 2


def test_a_graph(q):
    """Tasks run after those they wait for; one whose parent failed goes on waiting, until that is mended."""
    log = place(q).path / "order"
    first = q.add_multiple([f"echo {name} >> {log}" for name in "abc"])
    bad = q.add(f"test -e {log}.ok")
    merge = q.add(f"echo merge >> {log}", requires=first)
    q.add(f"echo after >> {log}", requires=[merge], after=[bad])
    stuck = q.add(f"echo stuck >> {log}", requires=[bad])
    q.do()
    assert log.read_text().split() == ["a", "b", "c", "merge", "after"]
    assert [task.id for task in q.tasks("Waiting")] == [stuck]
    (log.parent / "order.ok").touch()
    q.retry()
    q.do()
    assert log.read_text().split()[-1] == "stuck"


def beside(work):
    """Run something in a thread, and see to what it raises."""
    errors = []

    def run():
        try:
            work()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_retries(q):
    """A task that fails is tried again by itself: so often, after a while, and only if its error holds a pattern."""
    fails = "echo try $HPCNB_ATTEMPT >&2; echo 'busy: \033[1m' >&2; exit $((HPCNB_ATTEMPT < 3))"
    q.add(fails, retries=5)
    q.add(fails, retries=1, retry_on="busy")
    q.add(fails, retries=5, retry_on="^no match$")
    late = q.add(fails, retries=2, retry_delay=1, retry_on="busy")
    q.add("true", requires=[late])
    q.do()
    ends = [(task.state, task.attempts) for task in q.tasks()]
    assert ends == [("Succeeded", 3), ("Failed", 2), ("Failed", 1), ("Succeeded", 3), ("Succeeded", 1)]
    first, second, third = q.task(late)["attempts"]
    assert second["began"] - first["ended"] > 0.5
    assert third["began"] - second["ended"] > 1.5
    assert first["error"] == "exit status 1: busy: �[1m"
    with pytest.raises(hpc.QueueError, match=r"retry_on='\(' is no regular expression"):
        q.add("true", retries=1, retry_on="(")


def test_interrupted(q):
    """Ctrl-C ends what runs here and gives its task back; the queue is free."""
    q.add_multiple(["sleep 600; true"] * 2)
    with subprocess.Popen([sys.executable, "-c", DO], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        wait_for(lambda: q.status()["ntasks"]["Running"] == 1, 60)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) != 0
    assert Watch(place(q)).owner() is None
    assert [task.state for task in q.tasks()] == ["Pending", "Pending"]


@pytest.mark.parametrize("told_by", [signal.SIGTERM, signal.SIGINT])
def test_what_ends_just_before_its_job_is_told_to_end(q, monkeypatch, told_by):
    """A batch system tells all processes: who waited for one that was told first has not succeeded. Where we alone are told, it has."""
    monkeypatch.setattr(worker, "BRIEF", -10.0)  # so that it is not believed for `MOMENT`
    monkeypatch.setattr(worker, "MOMENT", 60.0)
    monkeypatch.setattr(worker, "SHARE", 10.0)

    class Told(worker.Worker):
        def _has_ended(self, outcome):
            super()._has_ended(outcome)
            os.kill(os.getpid(), told_by)

        def run(self):
            before = signal.signal(told_by, self.stop)
            try:
                return super().run()
            finally:
                signal.signal(told_by, before)

    monkeypatch.setattr(drain, "Worker", Told)
    q.add_multiple(["true", "true"])
    q.do()
    ended = last(q, 1)
    if told_by == signal.SIGTERM:
        assert (ended["state"], ended["error"]) == ("Killed", "its job ended before it did")
    else:
        assert ended["state"] == "Succeeded"
    assert q.task(2)["attempts"] == []


def test_a_task_is_believed_before_it_is_told(q, monkeypatch):
    """Those that wait for it begin as soon as it is."""
    monkeypatch.setattr(worker, "BRIEF", 0.0)
    monkeypatch.setattr(worker, "SHARE", 1.0)
    first = q.add("sleep 0.4")
    q.add("true", requires=[first])
    q.add("true")
    q.do()
    assert [task.state for task in q.tasks()] == ["Succeeded"] * 3
    assert last(q, 2)["began"] - last(q, 1)["ended"] > 0.3
    assert last(q, 3)["began"] < last(q, 2)["began"]


def test_a_task_is_taken_away_while_it_runs(q):
    """Who sets the state of a running task ends its command; the worker goes on with the next one."""
    pid = place(q).path / "pid"
    q.add_multiple([f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 600; true", "true"])
    thread, errors = beside(q.do)
    wait_for(pid.exists, 30)
    other = hpc.Queue.connect("extract")
    assert other.set_state(1, "Killed") == 1
    thread.join(60)
    assert not thread.is_alive()
    assert errors == []
    assert [task.state for task in q.tasks()] == ["Killed", "Succeeded"]
    assert last(q, 1)["state"] == "Lost"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize("kind", ["commands", "functions"])
def test_a_long_task_keeps_nobody_waiting(q, kind):
    """While a worker carries out a long task, another one does what waits for those before it, and what was taken along with it."""
    begun, done = place(q).path / "begun", place(q).path / "done"

    def call(task):
        if task == long:
            begun.touch()
            wait_for(done.exists, 60)
        if task == last:
            done.touch()

    wait = f"touch {begun}; for i in $(seq 600); do test -e {done} && exit; sleep 0.1; done; exit 1"
    long, last = ("long", "last") if kind == "functions" else (wait, f"touch {done}")
    q.add_multiple(["true"] * 5)
    ids = q.add_multiple(["true", long, *["true"] * 40])
    q.add(last, requires=[ids[0], *ids[2:]])
    drain = (lambda: q.do(call)) if kind == "functions" else q.do
    first, errors = beside(drain)
    wait_for(begun.exists, 60)
    second, more = beside(drain)
    for thread in (first, second):
        thread.join(90)
    assert errors + more == []
    assert {(task.state, task.attempts) for task in q.tasks()} == {("Succeeded", 1)}
    workers = {id: q.task(id)["attempts"][0]["worker"] for id in (*ids, ids[-1] + 1)}
    assert workers[ids[1]] != workers[ids[-1] + 1]


def test_tasks_that_are_taken_away_are_not_begun(q):
    """Tasks that a worker has by the batch and that are taken away together end, also those that it has not begun."""
    log = place(q).path / "begun"
    q.add_multiple(["true"] * 20)
    long = q.add_multiple([f"echo $HPCNB_TASK >> {log}; sleep 600; true"] * 20)
    thread, errors = beside(q.do)
    wait_for(log.exists)
    assert q.set_state(long, "Killed") == len(long)
    thread.join(60)
    assert not thread.is_alive()
    assert errors == []
    assert log.read_text() == f"{long[0]}\n"


def test_an_owner_that_fails(q, monkeypatch):
    """An owner that cannot write ends what drains here with its error, and not in silence."""

    def fail(*_):
        raise OSError(28, "No space left on device")

    q.add("true")
    monkeypatch.setattr(draining.Draining, "turn", fail)
    with pytest.raises(OSError, match="No space left"):
        q.do()


def test_a_disk_that_is_full_for_a_while(q, monkeypatch):
    """A job whose queue cannot be written for want of room goes on when there is some; what was done meanwhile is not done again."""
    turn, failures, done = draining.Draining.turn, [], place(q).path / "done"

    def fail_twice(self, callers, left):
        if len(failures) < 2 and any(caller.outcomes for caller in callers):
            raise OSError(errno.ENOSPC, "No space left on device")
        return turn(self, callers, left)

    monkeypatch.setattr(lease, "LAPSE", 0.2)
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(draining.Draining, "turn", fail_twice)
    monkeypatch.setattr(drain, "Candidate", functools.partial(draining.Candidate, failed=failures.append))
    q.add_multiple([f"echo $HPCNB_TASK >> {done}"] * 20)
    q.do()
    assert [exc.errno for exc in failures] == [errno.ENOSPC] * 2
    assert sorted(map(int, done.read_text().split())) == list(range(1, 21))
    assert ended(q) == 20


DO = (
    "import hpcnb\nfrom hpcnb.pilot.queue import desk, draining\ndraining.GRACE = 0.5\nq = hpcnb.Queue.connect('extract')\n"
    "print('ready', flush=True)\nq.do()\n"
)


def ended(q):
    return q.status()["ntasks"]["Succeeded"]


@pytest.mark.slow
def test_an_owner_is_killed(q):
    """The one that owns the queue is killed while two drain it: the other goes on, nothing is lost, each result is recorded once."""
    go = place(q).path / "go"  # the last ones wait for it: all of them cannot have ended before there is a victim
    q.add_multiple(["sleep 0.05; echo x"] * 40 + [f"until test -e {go}; do sleep 0.05; done; echo x"] * 20)
    with (
        subprocess.Popen([sys.executable, "-c", DO], stdout=subprocess.PIPE) as owner,
        subprocess.Popen([sys.executable, "-c", DO], stdout=subprocess.PIPE) as other,
    ):
        wait_for(lambda: ended(q) >= 10)
        victim = Watch(place(q)).owner()["pid"]
        assert victim in (owner.pid, other.pid)
        os.kill(victim, signal.SIGKILL)
        go.touch()
        left = other if victim == owner.pid else owner
        assert left.wait(90) == 0
    q.do()  # what the victim's own worker had is free by now, if the other had ended before
    assert ended(q) == 60
    for task in q.tasks():
        states = [attempt["state"] for attempt in q.task(task.id)["attempts"]]
        assert states.count("Succeeded") == 1
        assert set(states) <= {"Succeeded", "Lost"}
        assert q.log(task.id) == "x\n"


@pytest.mark.slow
def test_a_long_task_outlives_its_owner(q):
    """What runs when the owner is killed goes on, and is not given to others, however long it takes; it can be taken away."""
    begun, go, grace = place(q).path / "begun", place(q).path / "go", 3
    words = [sys.executable, "-c", DO.replace("GRACE = 0.5", f"GRACE = {grace}")]
    q.add_multiple([f"touch {begun}$HPCNB_TASK; until test -e {go}; do sleep 0.1; done; echo x"] * 3)
    with contextlib.ExitStack() as stack:
        pilots = [stack.enter_context(subprocess.Popen(words, stdout=subprocess.DEVNULL)) for _ in range(3)]
        wait_for(lambda: len(list(begun.parent.glob("begun*"))) == 3)
        os.kill(Watch(place(q)).owner()["pid"], signal.SIGKILL)
        wait_for(lambda: q.status()["ntasks"]["Pending"] == 1)  # its own
        since = time.monotonic()
        mine = [task.id for task in q.tasks("Running")]
        q.set_state(mine[1], "Killed")
        wait_for(lambda: q.status()["ntasks"]["Running"] == 2)  # who had it is free for the victim's
        wait_for(lambda: time.monotonic() - since > 2 * grace)
        assert [task.attempts for task in q.tasks()] == [1 if task.id in mine else 2 for task in q.tasks()]
        go.touch()
        assert sorted(pilot.wait(90) for pilot in pilots) == [-signal.SIGKILL, 0, 0]
    assert [q.task(id)["attempts"][-1]["state"] for id in mine] == ["Succeeded", "Lost"]


def test_a_queue_in_use_is_not_deleted(q, monkeypatch):
    """As long as somebody drains a queue it cannot be deleted."""
    monkeypatch.setattr(desk, "PARTING", 0.2)
    q.add("sleep 600; true")
    thread, errors = beside(q.do)
    wait_for(lambda: q.status()["ntasks"]["Running"], 30)
    with pytest.raises(hpc.QueueError, match="queue 'extract' is in use"):
        q.delete()
    q.set_state(1, "Failed")
    thread.join(60)
    assert errors == []
    q.delete()
    assert hpc.queues() == []


def test_only_who_has_a_certificate_is_served(q):
    """Another user who finds the owner's port gets nothing from it."""
    q.add("sleep 600; true")
    thread, errors = beside(q.do)
    watch = Watch(place(q))
    owner = wait_for(watch.owner, 30)
    anonymous = ssl.create_default_context()
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE

    def answered():
        with socket.create_connection(tuple(owner["address"])) as plain, anonymous.wrap_socket(plain) as stranger:
            stranger.sendall(b"\0" * 16)
            if not stranger.recv(1):
                raise ConnectionResetError

    with pytest.raises((ssl.SSLError, ConnectionResetError, BrokenPipeError)):
        answered()
    wait_for(lambda: q.status()["ntasks"]["Running"])
    q.set_state(1, "Killed")
    thread.join(60)
    assert errors == []
    assert (place(q).path / "tls").stat().st_mode & 0o777 == 0o700


def test_certificates_are_made_once(q):
    """Of two who start to drain at once one makes the certificates, and both use them."""
    threads = [beside(lambda: launch.certify(q._desk, q.name)) for _ in range(4)]
    for thread, errors in threads:
        thread.join(60)
        assert errors == []
    assert sorted(path.name for path in place(q).path.glob(".tls*")) == []


@pytest.mark.slow
def test_launched_on_this_machine(q, isolated):
    """`launch` starts jobs that need nobody; a function of the notebook goes along; they end when nothing is left."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    offset = 10
    q.add_multiple(range(20))
    q.launch(2, pack=True, func=lambda x: x + offset, walltime="5m")
    with pytest.raises(TimeoutError, match="queue 'extract' still has tasks after 0 s"):
        q.wait(timeout=0)
    assert q.wait(timeout=60)["ntasks"]["Succeeded"] == 20
    wait_for(lambda: Watch(place(q)).owner() is None, 60)
    assert [task.result for task in q.tasks()] == list(range(10, 30))
    log = next(place(q).path.glob("runs/*/job.log"))
    wait_for(lambda: "nothing is left to do" in log.read_text(), 30)
    # Who ends takes files along; what stays is the agent, which sees to jobs.
    wait_for(lambda: not [one for one in isolated.processes() if "hpcnb.agent" not in words(one)])
    assert {path.stat().st_mode & 0o077 for path in place(q).path.rglob("*")} == {0}
    with pytest.raises(hpc.QueueError, match="nodes= of 2 and more are for pack=True"):
        q.launch(2, nodes=2)


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_nothing_running(q):
    """The command of a worker that was killed does not run beside its next attempt; what an earlier one has left on purpose does."""
    folder = place(q).path
    wait = f"until [ -e {folder}/go ]; do sleep 0.05; done"
    q.add(f"setsid sh -c 'echo $$ > {folder}/daemon; {wait}' & until [ -s {folder}/daemon ]; do sleep 0.01; done")
    q.add(f"echo $$ > {folder}/$HPCNB_ATTEMPT.new; mv {folder}/$HPCNB_ATTEMPT.new {folder}/$HPCNB_ATTEMPT; {wait}")
    q.launch(walltime="5m")
    wait_for((folder / "1").exists, 60)
    pids = [int((folder / name).read_text()) for name in ("1", "daemon")]
    os.kill(int(q.task(2)["running"]["worker"].split("-")[-2]), signal.SIGKILL)
    wait_for((folder / "2").exists, 60)
    wait_for(lambda: not lease.began(pids[0]))
    assert lease.began(pids[1])
    (folder / "go").touch()
    wait_for(lambda: ended(q) == 2)
    wait_for(lambda: Watch(place(q)).owner() is None, 60)


@pytest.mark.slow
def test_a_task_that_kills_its_workers(q):
    """A task that kills each worker that runs it fails, and costs no other task its result."""

    def call(x):
        sys.stdout.write(f"begun {x}\n")
        if x == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    q.add_multiple(range(6), retries=3)  # which is about errors, not about deaths
    q.launch(2, pack=True, func=call, walltime="5m")
    wait_for(lambda: ended(q) == 5 and q.status()["ntasks"]["Failed"] == 1, 90)
    (task,) = q.tasks("Failed")
    assert (task.task, task.attempts) == (2, 5)
    assert [q.log(task, number) for number in range(1, 6)] == ["begun 2\n"] * 5
    assert {attempt["error"] for attempt in q.task(task.id)["attempts"]} == {"its worker has vanished"}
    wait_for(lambda: Watch(place(q)).owner() is None, 60)
