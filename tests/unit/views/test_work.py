"""How work is shown: its text to the letter, its HTML as text, whatever tasks are called and errors say."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.pilot.scheduler.counts import Summary
from hpcnb.pilot.worker.tally import BINS, Times
from hpcnb.views import work as views
from tests.unit.views.test_cluster import HOSTILE, read

GOLDEN = Path(__file__).parent / "golden"
KEY = "score-1f3a2c7d-8b1e-4a6f-9c55-0123456789ab"


def bins(*seconds):
    """The distribution of some run times."""
    times = Times()
    times.add(seconds)
    return tuple(times.bins)


RUNNING = Summary(
    id="g",
    label="score",
    age=61.0,
    waiting=20,
    queued=300,
    running=16,
    done=640,
    failed=4,
    cached=40,
    retried=7,
    rate=10.5,
    mean=1.5,
    deviation=0.7,
    bins=bins(*[0.3] * 40, *[0.8] * 200, *[1.5] * 300, *[3.0] * 90, *[7.0] * 10),
    slowest=((f"{KEY}[17]", 7.25, "0-node1-2"), (KEY, 6.5, "0-node1-0")),
    running_longest=((f"{KEY}[3]", 75.0, "0-node2-1"),),
    errors=(
        (f"{KEY}[12]", "ValueError: no such plate", "0-node1-2"),
        (KEY, "ZeroDivisionError('division by zero')", ""),
    ),
)
ENDED = replace(RUNNING, waiting=0, queued=0, running=0, done=996, age=95.0, running_longest=())
SHOWN = {
    "running": (RUNNING, ""),
    "ended": (ENDED, ""),
    "well": (replace(ENDED, done=1000, failed=0, cached=0, retried=0, errors=()), ""),
    "quick": (Summary(label="cell [4]", age=0.25, done=1, slowest=((KEY, 0.2, "w"),), bins=bins(0.2), mean=0.2), ""),
    "held_up": (Summary(label="score", age=20.0, queued=1000), "the cluster is queued: 3rd in its partition"),
    "cancelled": (Summary(label="score", age=20.0, done=10, cancelled=90), ""),
    "hostile": (
        Summary(
            label="</b><script>alert(1)</script>",
            done=1,
            failed=1,
            errors=(("<i>\x1b[2J", 'E: "><img src=x onerror=alert(1)>\u202e\n', "a&b"),),
            slowest=(("'\"<b>", 1.0, "<w>"),),
            bins=bins(1.0, 2.0),
        ),
        "<u>note</u>\x07",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown(name):
    """The text, and the text of the HTML, are what lies in the golden file."""
    summary, note = SHOWN[name]
    found = views.work_text(summary, note) + "\n---\n" + spaced(views.work_html(summary, note)) + "\n"
    assert found == (GOLDEN / f"work_{name}.txt").read_text()


def spaced(html):
    """Text of HTML, a line for each block."""
    return "\n".join(
        line for line in read(html.replace("<div", "\n<div").replace("<span", " <span")).text.split("\n") if line
    )


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.integers(0, 10**6), st.integers(0, 3))
def test_html_has_our_tags_alone(label, name, message, worker, done, failed):
    """Whatever things are called and say: no tag but ours, no attribute that does anything, the style is ours."""
    summary = Summary(
        label=label,
        done=done,
        failed=failed,
        errors=((name, message, worker),),
        slowest=((name, 1.0, worker),),
        running_longest=((name, 99.0, worker),),
        bins=(2,) + (0,) * (BINS - 1),
    )
    found = read(views.work_html(summary, message))
    assert {tag for tag, _ in found.tags} <= {"div", "span", "b", "svg", "rect", "title", "text"}
    assert not {key for _, attrs in found.tags for key in attrs if key.startswith("on") or key in ("href", "src")}
    assert "url(" not in "".join(attrs.get("style", "") for _, attrs in found.tags)
    line = views.work_line(summary, message)
    assert len(line.splitlines()) == 1
    assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]


@given(
    *[st.integers(0, 10**6)] * 4,
    st.floats(0, 1e6),
    st.floats(1e-9, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1e9),
)
def test_any_numbers_can_be_shown(left, running, done, failed, rate, mean, deviation, age):
    """Whatever the numbers are, there is a text and HTML, and what is left is a range, if it is known."""
    summary = Summary(
        queued=left, running=running, done=done, failed=failed, rate=rate, mean=mean, deviation=deviation, age=age
    )
    views.work_html(summary)
    views.work_text(summary)
    if (found := views.time_left(summary)) is not None:
        assert 0 <= found[0] <= found[1]


def test_the_range_becomes_narrow():
    """The more is known, the narrower is the range; calls that differ make it wider."""
    few = Summary(done=4, queued=96, running=4, mean=60.0, deviation=30.0)
    wide, narrow = (high / low for low, high in map(views.time_left, [few, replace(few, done=400, queued=400)]))
    assert narrow < wide
    low, high = views.time_left(replace(few, deviation=6.0))
    assert high / low < wide
    assert low < 1500 < high  # a hundred calls of a minute, by four


def test_a_picture_is_small():
    """Every state has a colour, and all that is shown of whatever work is some kilobytes."""
    full = tuple(range(1, BINS + 1))
    rows = ((KEY, "x" * 300, "0-node1-2"),) * 5
    slow = ((KEY, 1.0, "0-node1-2"),) * 5
    huge = replace(RUNNING, bins=full, errors=rows, slowest=slow, done=10**9)
    assert len(views.work_html(huge)) < 16_000
