"""The log and its index as they are read, and what travels of them: bounded, counted, never mixed."""

from __future__ import annotations

import io
import json
import os
import queue
import threading
import time
from types import SimpleNamespace

import pytest

from hpcnb.pilot.output import capture, feed, outbox, search
from hpcnb.pilot.output.capture import Capture
from hpcnb.pilot.output.feed import Feed
from hpcnb.pilot.output.index import Index, appending, write
from hpcnb.pilot.output.outbox import Outbox
from hpcnb.pilot.output.speaker import Speaker
from hpcnb.pilot.output.tape import ERR, OUT, SHOWN, pieces
from hpcnb.pilot.scheduler.keeper import client_name
from hpcnb.pilot.worker.running import Job

NAME = ("fit", None, 1, OUT)


class Logs:
    """A run directory with one worker's log, as its processes write it, one after the other."""

    def __init__(self, folder):
        self.folder = folder / "run"
        (self.folder / "logs").mkdir(parents=True)
        self.log = self.folder / "logs" / "worker-0-node1-0.log"
        self.descriptor = appending(self.log)

    def process(self):
        """Another process begins."""
        index = Index(self.log.with_suffix(".tasks"), worker="0-node1-0", host="node1")
        self.tape = index.tape(self.descriptor, self.log, self.log.stat().st_size)
        return index

    def say(self, index, who, text, level=0, stream=OUT, *, told=True):
        """Print something, and tell of it unless the process is killed before."""
        write(self.descriptor, text)
        if told:
            index.note(who, self.tape, len(text), level << 2 | stream, 1.5)
            index.write()

    def end(self):
        """Nothing has been written for a while."""
        before = time.time() - 60
        os.utime(self.log, (before, before))

    def task(self, key, **more):
        """What a task has printed."""
        return [run["text"] for run in search.answer(str(self.folder), "task", key=key, **more)["runs"]]

    def lines(self, **query):
        """The texts of the lines that are found."""
        return [line[-1] for line in search.answer(str(self.folder), "lines", **query)["lines"]]


@pytest.fixture
def logs(tmp_path):
    """A run directory."""
    logs = Logs(tmp_path)
    yield logs
    os.close(logs.descriptor)


def speaker(number, key, **more):
    """A call."""
    return Speaker(number=number, key=key, **{"attempt": 1, **more})


def test_the_last_words_of_a_killed_process_are_those_of_who_spoke_last(logs):
    """What was written and not told any more is his, up to where the next process begins; of one that had ended, nobody's."""
    first = logs.process()
    logs.say(first, speaker(1, "a"), b"a\n")
    logs.say(first, speaker(2, "b"), b"b\n")
    logs.say(first, None, b"crash\n", told=False)
    second = logs.process()
    ended = speaker(1, "c")
    logs.say(second, ended, b"c\n")
    second.over(ended)
    second.write()
    logs.say(second, None, b"nobody's\n", told=False)
    assert [logs.task(key) for key in "abc"] == [["a\n"], ["b\ncrash\n"], ["c\n"]]
    assert logs.lines(target="worker") == ["a", "b", "crash", "c"]
    logs.end()
    assert [logs.task(key) for key in "abc"] == [["a\n"], ["b\ncrash\n"], ["c\n"]]
    assert logs.lines(target="worker") == ["a", "b", "crash", "c", "nobody's"]


def test_what_is_broken_in_an_index_is_left_out(logs):
    """Half a line, and what no version has written, cost nothing else."""
    index = logs.process()
    logs.say(index, speaker(1, "a"), b"a\n")
    with logs.log.with_suffix(".tasks").open("a") as file:
        file.write('[1, 0, 99\n[7, 7, 0, 1, 0, 1, 0]\n{"over": 9}\n"?"\n{"run": 3, "colour": 1}\n\n')
    logs.say(index, speaker(1, "a", said=True), b"b\n")
    assert logs.task("a") == ["a\nb\n"]


def test_attempts_members_and_long_texts(logs, monkeypatch):
    """They come in order, each by itself; what is long comes in several answers, and nothing is lost between them."""
    monkeypatch.setattr(search, "MOST", 10)
    index = logs.process()
    logs.say(index, speaker(1, "a", attempt=2), b"second\n")
    logs.say(index, speaker(2, "a", attempt=1), "fürst\n".encode())
    logs.say(index, speaker(3, "a", member=1), b"member\n")
    assert logs.task("a", member=1) == ["member\n"]
    found, skip = ["", ""], 0
    while skip is not None:
        answer = search.answer(str(logs.folder), "task", key="a", skip=skip)
        found = [old + run["text"] for old, run in zip(found, answer["runs"], strict=True)]
        skip = answer["next"]
    assert [text.encode("utf-8", "surrogateescape").decode() for text in found] == ["fürst\n", "second\n"]


def test_lines_are_found_by_what_is_wanted(logs, monkeypatch):
    """By log, task, node, level and text; the last of them, however far they are; a bar of progress is what it became."""
    monkeypatch.setattr(search, "FIRST", 8)
    (logs.folder / "job.log").write_text("job 1\njob 2\n")
    index = logs.process()
    logs.say(index, speaker(1, "fit-1", member=2), b"\r10 %\r20 %\nhalf ")
    logs.say(index, speaker(2, "other"), b"between\n", level=40, stream=ERR)
    logs.say(index, speaker(1, "fit-1", member=2, said=True), b"line\nERROR: at last\n")
    assert logs.lines() == ["job 1", "job 2"]
    assert logs.lines(last=1) == ["job 2"]
    assert logs.lines(target="fit") == ["20 %", "half line", "ERROR: at last"]
    assert logs.lines(target="fit-1[2]", grep="l(ine|ast)$") == ["half line", "ERROR: at last"]
    assert sorted(logs.lines(level=40)) == ["ERROR: at last", "between"]
    assert logs.lines(node="node2") == []
    assert logs.lines(target="worker", task="other") == ["between"]
    assert logs.lines(target="worker", grep="20 %", last=1) == ["20 %"]


def test_following_gives_each_line_once(logs):
    """Where one answer ends, the next one begins; also of logs that have no index, and of nodes that were added."""
    (logs.folder / "job.log").write_text("one\n")
    index = logs.process()
    logs.say(index, speaker(1, "a"), b"first\n")
    known = [search.answer(str(logs.folder), "lines", target=target) for target in ("job", "worker")]
    assert [[line[-1] for line in answer["lines"]] for answer in known] == [["one"], ["first"]]
    with (logs.folder / "job.log").open("a") as file:
        file.write("two\n")
    added = logs.folder.with_name("run-1") / "logs"
    added.mkdir(parents=True)
    (added / "worker-1-node2-0.log").write_text("elsewhere\n")
    logs.say(index, speaker(2, "b"), b"second\n")
    more = [
        logs.lines(target=target, since=answer["since"])
        for target, answer in zip(("job", "worker"), known, strict=True)
    ]
    assert more == [["two"], ["elsewhere", "second"]]


def test_the_program_answers_behind_its_mark(logs, monkeypatch, capsys):
    """Whatever a login shell has said before."""
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"folder": str(logs.folder), "what": "lines"})))
    search.main()
    assert json.loads(capsys.readouterr().out.partition(f"\n{search.SAYS}")[2])["lines"] == []


def test_pieces_that_follow_each_other_are_one(logs):
    """A thousand lines that are told of together are one line of the index."""
    index = logs.process()
    who = speaker(1, "a")
    for number in range(1000):
        text = f"{number}\n".encode()
        write(logs.descriptor, text)
        index.note(who, logs.tape, len(text), OUT, 1.5)
    index.write()
    (piece,) = pieces(logs.log.with_suffix(".tasks"))
    assert piece.read().count(b"\n") == 1000


# -- on its way ----------------------------------------------------------------------------------------------------------


def test_what_is_too_much_is_counted_and_never_mixed(monkeypatch):
    """Beyond the window lines are counted, with their end; when there is room again, text goes on behind the count."""
    monkeypatch.setattr(outbox, "WINDOW", 10)
    box = Outbox()
    box.add(NAME, 1.0, b"0123456789a\n")
    first = box.message()
    box.add(NAME, 2.0, b"b\nc\n")
    box.add(NAME, 2.0, b"d\n")
    assert box.message() is None
    box.taken(first["size"])
    box.add(NAME, 3.0, b"e\n")
    (counted, text) = box.message()["entries"]
    assert counted[4:] == (2.0, b"b\nc\nd\n", 3, 6)
    assert text[5:] == (b"e\n", 0, 0)
    box.add(NAME, 4.0, b"f" * 20)
    box.add(NAME, 4.0, b"g\n")
    assert [entry[6] for entry in box.message(last=True)["entries"]] == [0, 1]


def test_each_display_is_a_piece_by_itself(monkeypatch):
    """Two of them are never one, and of what is counted no end is told that could not be read."""
    box, display = Outbox(), (*NAME[:3], SHOWN)
    box.add(display, 1.0, b"{1}")
    box.add(display, 1.0, b"{2}")
    assert [entry[5] for entry in box.message()["entries"]] == [b"{1}", b"{2}"]
    monkeypatch.setattr(outbox, "WINDOW", 1)
    box.add(display, 2.0, b"{3}")
    (counted,) = box.message(last=True)["entries"]
    assert counted[3:] == (SHOWN, 2.0, b"", 0, 3)


class Scheduler:
    """What the feed uses of one: clients and workers that note what they are told."""

    def __init__(self):
        self.stream_handlers, self.told, self.tasks, self.workers = {}, [], {}, {"w": SimpleNamespace(name="0-node1-0")}
        self.stream_comms = {"w": SimpleNamespace(send=self.told.append)}

    def report(self, message, client):
        self.told.append(message)


def test_a_notebook_reads_from_where_it_was(monkeypatch):
    """A client that comes back gets what came meanwhile; what the record could not keep is counted; a slow one waits."""
    monkeypatch.setattr(feed, "KEPT", 400)
    monkeypatch.setattr(feed, "WINDOW", 150)
    scheduler = Scheduler()
    plugin = Feed(scheduler)
    client = f"Client-{client_name('nb')}-00000000-0000-0000-0000-000000000000"
    scheduler.tasks["fit"] = SimpleNamespace(who_wants=[SimpleNamespace(client_key=client)])

    def say(*texts):
        scheduler.told.clear()
        for text in texts:
            scheduler.stream_handlers[outbox.LINES]([(*NAME, 1.0, text, 0, 0)], size=7, worker="w")

    def heard():
        return [
            entry[5] or entry[6] for told in scheduler.told if told["op"] == outbox.LINES for entry in told["entries"]
        ]

    plugin.add_client(scheduler, client)
    say(b"a\n")
    assert scheduler.told[0] == {"op": outbox.TAKEN, "size": 7}
    assert (heard(), scheduler.told[1]["next"]) == ([b"a\n"], 1)
    say(b"b\n", b"c\n")
    assert heard() == [b"b\n"]  # more would be more than may be on its way
    scheduler.stream_handlers[outbox.TAKEN](client=client, size=102)
    assert heard() == [b"b\n", b"c\n"]
    plugin.remove_client(scheduler, client)
    say(b"d\n", b"e\n", b"f\n", b"g\n", b"h\n")
    assert heard() == []
    plugin.add_client(scheduler, client)
    monkeypatch.setattr(feed, "WINDOW", 10_000)
    scheduler.stream_handlers[outbox.TAKEN](client=client, since=3)
    assert scheduler.told[-1]["again"]
    assert heard() == [2, b"f\n", b"g\n", b"h\n"]


def test_who_begins_while_the_keeper_falls_asleep_is_heard(tmp_path, monkeypatch):
    """Also what a child prints, which tells nobody that it does."""
    said, jobs, late = queue.Queue(), [], threading.Event()
    monkeypatch.setattr(capture, "QUIET", 0.01)  # no look comes after the first
    descriptor, before = appending(tmp_path / "worker.log"), os.dup(1)
    os.dup2(descriptor, 1)
    try:
        there = Capture(tmp_path / "worker.log", begin=0, worker="0-n-0", host="n", send=said.put, jobs=lambda: jobs)
    finally:
        os.dup2(before, 1)
        os.close(before)

    class Pause(threading.Event):
        def wait(self, timeout=None):
            if timeout is not None and not late.is_set():  # after the look, before sleep
                late.set()
                there.begin()
                jobs.append(Job(name="a", key="a", thread=0))
                os.write(descriptor, b"a child's\n")
            return super().wait(timeout)

    awake, there._wake = there._wake, Pause()
    awake.set()
    assert said.get(timeout=20)["entries"][0][5] == b"a child's\n"
    jobs.clear()
    os.close(descriptor)
