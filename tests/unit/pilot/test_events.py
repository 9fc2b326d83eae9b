"""What the processes of a node tell the pilot, by a pipe that several share."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.pilot import events


@pytest.fixture
def pipe(monkeypatch):
    """The pilot's end of the pipe; this process has the other."""
    reading, writing = os.pipe()
    monkeypatch.setattr(events, "_descriptor", writing)
    with os.fdopen(reading, "rb") as end:
        yield end
        if events._descriptor is not None:
            os.close(writing)


def heard(pipe, count):
    """The next events."""
    return [json.loads(pipe.readline()) for _ in range(count)]


def test_an_event_is_a_line(pipe):
    """An event is one line of JSON with its fields."""
    events.emit("scheduler", address="tls://127.0.0.1:1")
    events.emit("failed", what="a\nb", tail="é")
    assert heard(pipe, 2) == [
        {"event": "scheduler", "address": "tls://127.0.0.1:1"},
        {"event": "failed", "what": "a\nb", "tail": "é"},
    ]


@given(st.text(max_size=20_000), st.text(max_size=20))
def test_a_line_is_one_piece(tail, what):
    """However long a tail is, the line is one that the pipe takes in one piece, and holds the tail's end."""
    reading, writing = os.pipe()
    try:
        events._descriptor = writing
        events.emit("failed", what=what, tail=tail)
        line = os.read(reading, 1 << 16)
    finally:
        events._descriptor = None
        os.close(reading)
        os.close(writing)
    assert len(line) <= events.LONGEST
    assert line.endswith(b"\n")
    said = json.loads(line)
    assert said["what"] == what
    assert tail.endswith(said["tail"])


def test_without_a_pilot_nothing_is_said(monkeypatch, capfd):
    """Code that emits does no harm in a process that has no pilot."""
    monkeypatch.setattr(events, "_descriptor", None)
    events.emit("scheduler", address="x")
    assert capfd.readouterr() == ("", "")


def test_a_process_may_fall_silent(pipe):
    """Who gives up the way to the pilot keeps nothing open: the pilot sees the end."""
    events.emit("load", workers=1)
    events.fall_silent()
    events.fall_silent()
    events.emit("load", workers=2)
    assert heard(pipe, 1) == [{"event": "load", "workers": 1}]
    assert pipe.read() == b""


CHATTY = """
import subprocess, sys
from hpcnb.pilot.events import emit, take_stdout
take_stdout()
print("a library prints")
sys.stdout.flush()
emit("load", workers=1)
subprocess.run(["echo", "so does a program"], check=True)
subprocess.run(["ls", "-l", "/proc/self/fd"], check=True)
"""


def test_stdout_is_for_events_alone():
    """What libraries and programs print goes to stderr, and programs do not inherit the way to the pilot."""
    done = subprocess.run([sys.executable, "-c", CHATTY], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"event": "load", "workers": 1}
    assert "a library prints\n" in done.stderr
    assert "so does a program\n" in done.stderr
    listed = [line.split()[-3] for line in done.stderr.splitlines() if " -> pipe:" in line]
    assert set(listed) <= {"0", "1", "2"}
