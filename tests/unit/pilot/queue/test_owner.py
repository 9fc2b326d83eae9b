"""One owner: claims, leases, stopped owners that wake up, and what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from hpcnb.errors import QueueError
from hpcnb.pilot.queue import lease
from hpcnb.pilot.queue.draining import Caller, Draining
from hpcnb.pilot.queue.inbox import Inbox
from hpcnb.pilot.queue.lease import Fenced, Lease, Watch, newest
from hpcnb.pilot.queue.owner import Asker, Owner
from hpcnb.pilot.queue.place import Place, read_json
from hpcnb.pilot.queue.records import Outcome
from hpcnb.pilot.queue.running import ENDED_EARLY
from hpcnb.pilot.queue.states import TaskState
from tests.unit.pilot.tiny import cut_name, wait_for

ADD = {"priority": 0, "edges": False, "requires": [], "after": []}


@pytest.fixture
def place(tmp_path):
    """A queue's folder."""
    place = Place.named("q", root=tmp_path)
    place.make()
    return place


@pytest.fixture
def impatient(monkeypatch):
    """An owner is believed dead after a fifth of a second of silence, and beats often."""
    monkeypatch.setattr(lease, "LAPSE", 0.2)
    monkeypatch.setattr(lease, "BEAT", 0.02)


def taken(place, deadline=30.0):
    """Own the queue as soon as it can be had."""
    watch = Watch(place)
    return wait_for(lambda: Owner.take(place, watch), deadline)


def add(owner, *commands):
    with owner.change():
        owner.store.add(f'"{command}"' for command in commands)


def payloads(owner):
    return [row[4] for row in owner.store.tasks()]


def test_one_of_many_that_claim_at_once(place):
    """Of fifty who claim the same number at once, one has it."""
    together = threading.Barrier(50)
    found = []

    def claim():
        together.wait()
        found.append(Lease.claim(place, 0))

    threads = [threading.Thread(target=claim) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [one for one in found if one]
    assert [one.fence for one in winners] == [1]
    winners[0].release()
    assert newest(place / "owner") == (1, True)


def test_who_has_an_old_number_in_mind_does_not_own(place):
    """A claim that comes late, after the files of that time were tidied away, is seen to be late."""
    for number in range(1, 90):
        Lease.claim(place, number - 1).release()
    assert not (place / "owner" / f"{3:012}").exists()
    assert Lease.claim(place, 2) is None
    assert newest(place / "owner") == (89, True)


def test_an_owner_that_lives_is_not_replaced(place, impatient, monkeypatch):
    """As long as the heart beats nobody else gets the queue, however the clocks are set."""
    monkeypatch.setattr(lease, "LAPSE", 1.5)  # heart and watch are both held up when this process is
    owner = taken(place)
    watch = Watch(place)
    beat = place / "owner" / f"{1:012}.beat"
    first = wait_for(lambda: read_json(beat), 10)
    os.utime(place / "owner" / f"{1:012}", (1, 1))  # ten years behind, to whoever would look at times
    end = time.monotonic() + 2.0
    while time.monotonic() < end or read_json(beat) < first + 20:
        assert watch.claimable() is None
        time.sleep(0.01)
    owner.close()
    assert watch.claimable() == 1


STOPPED = """
import os, signal, sys
from pathlib import Path
from hpcnb.pilot.queue import lease
from hpcnb.pilot.queue.lease import Fenced, Watch
from hpcnb.pilot.queue.owner import Owner
from hpcnb.pilot.queue.place import Place
lease.BEAT = 0.02
place, when = Place(Path(sys.argv[1])), sys.argv[2]
stop = lambda: os.kill(os.getpid(), signal.SIGSTOP)
owner = Owner.take(place, Watch(place))
with owner.change():
    owner.store.add(['"before"'])
try:
    if when == "between":
        stop()
    with owner.change():
        owner.store.add(['"after"'] * 3)
        if when == "within":
            stop()
    print("told")
    if when == "told":
        stop()
    with owner.change():
        owner.store.add(['"too late"'])
    print("told", "told")
except Fenced:
    print("fenced")
"""


@pytest.mark.parametrize(("when", "told"), [("between", 1), ("within", 1), ("told", 4)])
def test_a_stopped_owner_writes_to_nothing_that_counts(place, impatient, when, told):
    """An owner that is stopped for longer than its lease, and then goes on, changes and tells nothing more."""
    words = [sys.executable, "-c", STOPPED, str(place.path), when]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as stopped:
        wait_for(lambda: f"/{stopped.pid}/" and _state(stopped.pid) == "T", 30)
        owner = taken(place)
        assert owner.lease.fence == 2
        assert payloads(owner) == ['"before"', '"after"', '"after"', '"after"'][:told]
        add(owner, "ours")
        stopped.send_signal(signal.SIGCONT)
        said = stopped.communicate(timeout=60)[0].split()
    assert said == (["told"] if when == "told" else []) + ["fenced"]
    add(owner, "ours, too")
    assert len(payloads(owner)) == told + 2
    owner.store.check()
    owner.close()
    owner = taken(place)
    assert len(payloads(owner)) == told + 2
    owner.close()


def _state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_dead_owner_of_this_machine_is_replaced_at_once(place):
    """Who can see that the owner's process is gone does not wait for the lease; a hot journal is rolled back."""
    code = STOPPED.replace("SIGSTOP", "SIGKILL")
    done = subprocess.run([sys.executable, "-c", code, str(place.path), "within"], check=False)
    assert done.returncode == -signal.SIGKILL
    owner = Owner.take(place, Watch(place))
    assert payloads(owner) == ['"before"']
    owner.close()
    assert [path.name for path in (place / "store").glob("*.sqlite")] == ["2.sqlite"]


def test_requests_are_carried_out_once(place, impatient):
    """What an owner carried out but did not answer for is answered by the next one, and not done again."""
    owner = taken(place)
    asker = Asker(place)
    name = asker._inbox.put("add", ADD, ['"once"\n'])
    owner._inbox.reply = lambda *_: None  # it is killed before
    owner.serve()
    owner.abandon()
    after = taken(place)
    assert after.serve() == 1
    assert asker._inbox.answer(name) == {"value": [1, 1]}
    assert payloads(after) == ['"once"']
    after.close()


def test_a_request_that_fails_leaves_the_others(place):
    """One transaction carries out many requests; the one that fails leaves no trace."""
    asker = Asker(place)
    names = [asker._inbox.put("add", {**ADD, "requires": wanted}, ['"x"\n', '"y"\n']) for wanted in ([], [1, 99], [1])]
    owner = taken(place)
    assert owner.serve() == 3
    answers = [asker._inbox.answer(name) for name in names]
    assert [answer.get("value") for answer in answers] == [[1, 2], None, [3, 2]]
    assert answers[1]["error"]["what"] == "there is no task 99 to wait for"
    owner.close()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]\n",
        b"\xff\xfe\n",
        b'{"op": "drop table", "arguments": {}}\n',
        b'{"op": "add", "arguments": {"x": 1}}\n',
    ],
)
def test_nonsense_in_the_inbox(place, text):
    """A request that makes no sense is answered with an error; the queue goes on."""
    (place / "inbox" / "0nonsense").write_bytes(text)
    assert Asker(place).ask("add", ('"x"\n',), **ADD) == [1, 1]
    assert "error" in read_json(place / "answers" / "0nonsense")


def test_a_million_dies_whole(place, monkeypatch):
    """A call that is killed while it adds leaves all of its tasks, or none."""
    asker = Asker(place)

    def lines():
        yield from ['"x"\n'] * 5000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asker.ask("add", lines(), **ADD)
    assert not any((place / "inbox").iterdir())
    assert asker.ask("status")["ntasks"]["Pending"] == 0


def test_a_full_disk(place, monkeypatch):
    """When the store cannot be written the error says so, the request is withdrawn, and the queue goes on later."""

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    asker = Asker(place)
    with monkeypatch.context() as patched:
        patched.setattr(Owner, "serve", full)
        with pytest.raises(QueueError, match=r"(?s)cannot be written.*disk is full.*Nothing was changed"):
            asker.ask("add", ('"x"\n',), **ADD)
    monkeypatch.setattr(lease, "LAPSE", 0.2)
    assert asker.ask("add", ('"x"\n',), **ADD) == [1, 1]
    with pytest.raises(Fenced):
        _stale(place)


@pytest.mark.parametrize("where", ["serve", "publish"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_who_asks_and_is_interrupted_lets_go(place, impatient, where, error):
    """Ctrl-C, or a full disk, while a question is answered here: the queue is free for the next one, though this process lives on."""

    def fails(*_):
        raise error

    asker = Asker(place)
    with pytest.MonkeyPatch.context() as patched, contextlib.suppress(KeyboardInterrupt, QueueError):
        patched.setattr(Owner, where, fails)
        asker.ask("add", ('"x"\n',), **ADD)
    owner = taken(place)
    assert len(payloads(owner)) == (where == "publish")
    owner.close()


def _stale(place):
    first = Lease.claim(place, newest(place / "owner")[0])
    second = Lease.claim(place, first.fence)
    second.release()
    try:
        first.confirm()
    finally:
        first.drop()


RIVAL = """
import json, os, random, sys, time
from pathlib import Path
from hpcnb.pilot.queue import lease
from hpcnb.pilot.queue.lease import Fenced, Watch
from hpcnb.pilot.queue.owner import Owner
from hpcnb.pilot.queue.place import Place
lease.BEAT, lease.LAPSE = 0.03, 0.3
place, watch, end = Place(Path(sys.argv[1])), Watch(Place(Path(sys.argv[1]))), Path(sys.argv[2])
while not end.exists():
    owner = Owner.take(place, watch)
    if owner is None:
        time.sleep(0.01)
        continue
    try:
        for _ in range(random.randint(1, 200)):
            with owner.change():
                id, _ = owner.store.add([json.dumps([owner.lease.fence, os.getpid()])])
            print(id, owner.lease.fence, flush=True)
        owner.close()
    except Fenced:
        owner.abandon()
        print("fenced", flush=True)
"""


def test_two_owners_at_once(place, tmp_path, figure):
    """Two want the queue and are stopped for longer than a lease, with odd clocks: never two writers, and all that was told is there."""
    rounds = 50 if os.environ.get("HPCNB_LAB_LONG") else 8
    end, watch, fenced = tmp_path / "end", Watch(place), 0
    logs = [tmp_path / "a", tmp_path / "b"]
    rivals = []
    for log in logs:
        with log.open("w") as out:
            rivals.append(subprocess.Popen([sys.executable, "-c", RIVAL, str(place.path), str(end)], stdout=out))
    try:
        for number in range(rounds):
            owner = wait_for(lambda: (watch.owner() or {}).get("pid"), 30)
            for path in (place / "owner").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path, (time.time() + 600 * (-1) ** number,) * 2)
            os.kill(owner, signal.SIGSTOP)
            before = newest(place / "owner")[0]
            # It may have let go just before it was stopped; then the other one is free to go on, too.
            wait_for(lambda n=before: newest(place / "owner")[0] > n, 30)
            os.kill(owner, signal.SIGCONT)
    finally:
        end.touch()
        for rival in rivals:
            rival.send_signal(signal.SIGCONT)
        codes = [rival.wait(60) for rival in rivals]
    assert codes == [0, 0]
    lines = [line.split() for log in logs for line in log.read_text().splitlines()]
    told = {int(id): int(fence) for id, fence in filter(lambda words: len(words) == 2, lines)}
    fenced = lines.count(["fenced"])
    owner = taken(place)
    there = {row[0]: json.loads(row[4]) for row in owner.store.tasks(most=10**6)}
    owner.store.check()
    owner.close()
    assert len(told) == sum(len(words) == 2 for words in lines)  # no number was told twice
    assert {id: there[id][0] for id in told} == told
    assert [there[id][0] for id in sorted(there)] == sorted(fence for fence, _ in there.values())
    assert len({tuple(one) for one in there.values()}) == len({fence for fence, _ in there.values()})
    figure(f"{rounds} owners stopped, {fenced} fenced, {len(told):,} changes told")


def test_an_owner_whose_file_was_removed(place, monkeypatch):
    """Who cannot write because his successor has removed his file was replaced, and does not fail; anybody else says what failed."""

    def fails(path, fence):
        rivals.append(Lease.claim(place, fence))
        raise sqlite3.OperationalError("disk I/O error")

    rivals = []
    owner = taken(place)
    with pytest.raises(sqlite3.OperationalError), owner.change():
        raise sqlite3.OperationalError("disk I/O error")
    rivals.append(Lease.claim(place, owner.lease.fence))
    with pytest.raises(Fenced), owner.change():
        raise sqlite3.OperationalError("disk I/O error")
    owner.abandon()
    rivals.pop().release()
    monkeypatch.setattr("hpcnb.pilot.queue.owner.Store", fails)
    assert Owner.take(place, Watch(place)) is None
    rivals.pop().release()


def test_what_a_worker_leaves_counts_before_its_death(place):
    """A worker that is told to end leaves word of its task and is gone: that word counts, however soon it is missed."""
    owner = taken(place)
    add(owner, "sleep 600")
    draining = Draining(owner)
    with subprocess.Popen(["sleep", "60"]) as process:
        hello = {"name": "w", "host": socket.gethostname(), "pid": process.pid, "job": "1"}
        caller = Caller(hello, writer=None)
        caller.wants, caller.waits = 1, True
        ((_, said),) = draining.turn([caller], [])
        ((task, attempt, _),) = said["tasks"]
        process.kill()
    outcome = Outcome(task, attempt, TaskState.KILLED, error=ENDED_EARLY)
    # The inbox was looked into just now, and would not be again for a while.
    Inbox(place).put("finish", {"worker": "w", "outcomes": [[*outcome]], "leaves": True}, quiet=True)
    draining.winding_up = True
    draining.turn([], [caller])
    assert [owner.store.counts[state] for state in (TaskState.KILLED, TaskState.PENDING)] == [1, 0]
    draining.end()


def test_a_process_is_known_whatever_its_name():
    """Whoever has the pid of a dead owner by now may have a name that is no text."""
    with cut_name() as pid:
        assert lease.began(pid) >= lease.began(os.getpid())
