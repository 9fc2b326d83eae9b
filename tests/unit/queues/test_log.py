"""What tasks have printed: of those that run, of those whose worker was killed, attempt by attempt."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

import hpcnb as hpc
from hpcnb import cli
from hpcnb.pilot.queue import draining
from hpcnb.pilot.queue.printed import Logs, printed
from tests.unit.pilot.tiny import wait_for
from tests.unit.queues.place import place

DO = "import hpcnb\nhpcnb.Queue.connect('extract').do()\n"


@pytest.fixture
def q(isolated, monkeypatch):
    """An empty queue, whose owner does not wait long for workers that are away."""
    monkeypatch.setattr(draining, "GRACE", 0.5)
    return hpc.Queue.create("extract")


@pytest.fixture
def drained(q):
    """Have somebody else's process drain the queue; it is killed in the end."""
    started = []

    def start():
        started.append(subprocess.Popen([sys.executable, "-c", DO], stdout=subprocess.DEVNULL))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()


def test_of_a_worker_that_was_killed(q, drained):
    """What a task had printed when its worker was killed is there, before it runs again and afterwards; each attempt has its own."""
    go = place(q).path / "go"
    q.add_multiple(
        [
            "echo short",
            f"echo try $HPCNB_ATTEMPT; echo bad >&2; [ $HPCNB_ATTEMPT = 2 ] || until [ -e {go} ]; do sleep 0.1; done",
        ]
    )
    victim = drained()
    wait_for(lambda: q.status()["ntasks"]["Running"] == 1 and "bad" in q.log(2))
    assert q.log(2) == "try 1\nbad\n"
    assert q.task(2)["attempts"] == []
    running = q.task(2)["running"]
    assert (running["number"], running["host"]) == (1, os.uname().nodename)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    q.recover()
    assert [task.state for task in q.tasks()] == ["Succeeded", "Pending"]
    assert q.log(2) == "try 1\nbad\n"
    q.do()
    go.touch()  # what the killed worker has left behind
    assert (q.log(2), q.log(2, 2), q.log(2, 1), q.log(1)) == ("try 2\nbad\n", "try 2\nbad\n", "try 1\nbad\n", "short\n")
    assert (q.task(2)["running"], [one["state"] for one in q.task(2)["attempts"]]) == (None, ["Lost", "Succeeded"])
    with pytest.raises(hpc.QueueError, match="task 2 has no attempt 3; it has 1, 2"):
        q.log(2, 3)


def test_followed(q, drained):
    """What a task prints comes as it prints it, whole characters, each once, until this attempt has ended."""
    steps = [place(q).path / f"step{n}" for n in range(3)]
    wait = "; ".join(f"until [ -e {step} ]; do sleep 0.05; done; {say}" for step, say in zip(steps, SAYS, strict=True))
    q.add_multiple([wait, "echo another"])
    child = drained()
    heard = []

    def listen():
        heard.extend(iter(q.follow(1)))

    wait_for(lambda: q.status()["ntasks"]["Running"] == 1)
    thread = threading.Thread(target=listen)
    thread.start()
    for step, said in zip(steps, ("", "a", "aé", "aé\nb\n"), strict=False):
        wait_for(lambda said=said: "".join(heard) == said)
        step.touch()
    thread.join(30)
    assert not thread.is_alive()
    assert "".join(heard) == q.log(1) == "aé\nb\n"
    assert child.wait(60) == 0
    assert ("".join(q.follow(1)), "".join(q.follow(2))) == ("aé\nb\n", "another\n")


SAYS = ["printf 'a\\303'", "printf '\\251'", "printf '\\n'; echo b >&2"]


def test_of_one_that_was_taken_away(q, drained):
    """What a task had printed that was killed by hand is there, also when its worker has gone on."""
    q.add_multiple(["echo said; sleep 600; true", "echo other"])
    child = drained()
    wait_for(lambda: q.status()["ntasks"]["Running"] == 1 and q.log(1))
    q.set_state(1, "Killed")
    assert child.wait(60) == 0
    assert (q.log(1), q.log(2)) == ("said\n", "other\n")
    assert [(one["state"], one["error"]) for one in q.task(1)["attempts"]] == [("Lost", "set Killed by hand")]


def test_in_a_terminal(q, monkeypatch, capsys):
    """Stdout has what was printed and nothing else; which attempt that is, where there are several, is said on stderr."""

    def log(*words):
        monkeypatch.setattr(sys, "argv", ["hpcnb", "queue", "log", "extract", *words])
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr()

    q.add_multiple(
        ["echo try $HPCNB_ATTEMPT; echo 'bad \033[1m' >&2; exit $((HPCNB_ATTEMPT < 2))", "echo fine"], retries=1
    )
    q.do()
    assert tuple(log("2")) == ("fine\n", "")
    said = "attempt 1{}: Failed: exit status 1: bad �[1m\nattempt 2{}: Succeeded\n"
    here = " (this is its output)"
    assert tuple(log("1", "-f")) == ("try 2\nbad \n", said.format("", here))
    assert tuple(log("1", "--attempt", "1")) == ("try 1\nbad \n", said.format(here, ""))


def test_of_one_that_has_not_begun(q):
    """A task that was never begun has no log, and that is said."""
    q.add("true")
    for call in (q.log, lambda number: [*q.follow(number)]):
        with pytest.raises(hpc.QueueError, match="task 1 was never begun: it is Pending"):
            call(1)


def test_of_what_was_not_told(tmp_path):
    """The output of an attempt that has ended but was not told is there; that of the next one is never taken for it."""
    logs = Logs(tmp_path / "w")

    def log(task, number=1):
        attempt = {"number": number, "worker": "w", "out_from": None, "state": "Lost"}
        return printed(tmp_path, task, attempt).text

    try:
        for task, text in ((1, b"one"), (2, b"two")):
            logs.begin(task, 1)
            os.write(logs.files[0], text)
            assert log(task) == text.decode()
            assert (log(task + 1), log(task, 2)) == ("", "")
            logs.moved()
            assert log(task) == text.decode()
        assert log(1) == ""
    finally:
        logs.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.err", "w.out"]


def test_without_room(tmp_path, monkeypatch):
    """A worker that cannot begin, for want of room on the disk, leaves no files there: another one tries a second later."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        Logs(tmp_path / "w")
    assert [*tmp_path.iterdir()] == []
