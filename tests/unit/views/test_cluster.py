"""How a cluster is shown: one line for each state, and HTML that hostile names cannot break."""

from __future__ import annotations

import html.parser
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.model import (
    ClusterSpec,
    ClusterStatus,
    Ending,
    JobState,
    JobStatus,
    Reason,
    Resources,
    State,
    WorkerCounts,
)
from hpcnb.views import cluster as views

NOW = 1_800_000_000.0  # Friday 15 January 2027, 08:00 UTC
COUNTS = WorkerCounts(workers=16, cores=64, tasks={"processing": 64, "queued": 12_000, "memory": 7, "erred": 0})


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    """Times of the day are the same wherever the tests run."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def status(state, *, name="fit", site="octopus", job_id="117", job=None, nodes=1, each=None, **fields):
    """A cluster in a state."""
    spec = ClusterSpec(site=site, name=name, resources=Resources(nodes=nodes), workers_per_node=each)
    if state is not State.REQUESTED:
        job = {"state": JobState.RUNNING} | (job or {})
        fields = {"jobs": (JobStatus(job_id=job_id, **job),)} | fields
    return ClusterStatus(id="0" * 16, spec=spec, state=state, **{"changed": NOW - 14} | fields)


GOLDEN = [
    (status(State.REQUESTED), "fit on octopus: requested 0:14"),
    (
        status(State.UNREACHABLE, notices={"login": "needs you (Code:)"}, detail="the connection is cut"),
        "fit on octopus: unreachable, job 117, 0 workers, 0 cores: the connection is cut; needs you (Code:)",
    ),
    (status(State.REQUESTED, detail="connecting"), "fit on octopus: requested 0:14: connecting"),
    (status(State.QUEUED), "fit on octopus: queued 0:14, job 117"),
    (
        status(State.QUEUED, detail="2 ahead in debug", job={"estimated_start": NOW + 3900}),
        "fit on octopus: queued 0:14, job 117, starts about 09:05: 2 ahead in debug",
    ),
    (
        status(State.QUEUED, job={"estimated_start": NOW + 86400}),
        "fit on octopus: queued 0:14, job 117, starts about Sat 16 Jan 08:00",
    ),
    (
        status(State.QUEUED, changed=NOW - 90_061, unknown_since=NOW - 75, detail="forgotten"),
        "fit on octopus: queued 25:01:01, job 117: the batch system has not answered for 1:15",
    ),
    (
        status(State.STARTING, detail="its workers are starting"),
        "fit on octopus: starting 0:14, job 117: its workers are starting",
    ),
    (
        status(State.READY, counts=COUNTS, walltime_left=3599, link="direct"),
        "fit on octopus: ready, job 117, 16 workers, 64 cores, tasks: 64 processing, 12,000 queued, 59m left, link direct",
    ),
    (
        status(State.READY, counts=WorkerCounts(workers=1, cores=1), walltime_left=45),
        "fit on octopus: ready, job 117, 1 worker, 1 core, 45s left",
    ),
    (
        status(State.READY, counts=WorkerCounts(workers=1, cores=2), nodes=2),
        "fit on octopus: ready, job 117, 1 of at least 2 workers, 2 cores",
    ),
    (
        status(State.READY, counts=WorkerCounts(workers=7, cores=7), nodes=2, each=4),
        "fit on octopus: ready, job 117, 7 of 8 workers, 7 cores",
    ),
    (
        status(State.READY, walltime_left=100_000, detail="worker-0 was killed by SIGKILL"),
        "fit on octopus: ready, job 117, 0 workers, 0 cores, 1d3h left: worker-0 was killed by SIGKILL",
    ),
    (
        status(State.UNREACHABLE, counts=WorkerCounts(workers=2, cores=2), detail="the connection is cut"),
        "fit on octopus: unreachable, job 117, 2 workers, 2 cores: the connection is cut",
    ),
    (
        status(State.UNREACHABLE, counts=WorkerCounts(workers=2, cores=2), route="exec", detail="the way is cut"),
        "fit on octopus: unreachable, job 117, 2 workers, 2 cores, link was exec: the way is cut",
    ),
    (
        status(State.READY, counts=WorkerCounts(workers=2, cores=2), link="mailbox", route="mailbox"),
        "fit on octopus: ready, job 117, 2 workers, 2 cores, link mailbox (by files: slow)",
    ),
    (status(State.DRAINING, detail="ending"), "fit on octopus: draining, job 117: ending"),
    (status(State.ENDED, detail="closed"), "fit on octopus: ended: closed"),
    (
        status(
            State.ENDED,
            detail="the walltime of the batch job ran out",
            ending=Ending(reason=Reason.TIMEOUT),
            error={"type": "JobTimeout", "what": "the walltime of the batch job ran out"},
        ),
        "fit on octopus: ended: the walltime of the batch job ran out",
    ),
    (status(State.READY, name="local", site="local", job_id="0" * 32), "local: ready, 0 workers, 0 cores"),
]


@pytest.mark.parametrize(("shown", "line"), GOLDEN, ids=[line for _, line in GOLDEN])
def test_each_state_has_its_line(shown, line):
    """What is shown of a cluster is this line, to the letter."""
    assert views.status_line(shown, NOW) == line


def test_no_state_is_forgotten():
    """Every state has a line above, and a mark of its own."""
    assert {shown.state for shown, _ in GOLDEN} == {*State} == {*views.MARKS}
    assert len(set(views.MARKS.values())) == len(State)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (-5, "0:00"),
        (59.9, "0:59"),
        (60, "1:00"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (360_000, "100:00:00"),
    ],
)
def test_a_clock(seconds, text):
    """Seconds are shown as a clock; a clock that runs ahead of ours is at zero."""
    assert views.clock(seconds) == text


def test_a_table_has_a_line_for_each():
    """Several clusters are several lines, each with the mark of its state; what failed is crossed out."""
    failed = status(State.ENDED, error={"type": "JobFailed", "what": "no"}, detail="no")
    text = views.table_text([status(State.READY), failed], NOW)
    assert text == "● fit on octopus: ready, job 117, 0 workers, 0 cores\n✗ fit on octopus: ended: no"
    assert views.table_text([], NOW) == ""


def test_html_says_the_same():
    """The HTML holds the same words, and the colour of the state."""
    shown = status(State.READY, counts=COUNTS)
    assert text_of(views.status_html(shown, NOW)) == "● " + views.status_line(shown, NOW).replace(": ", " ", 1)
    assert views.COLOURS[State.READY] in views.status_html(shown, NOW)
    assert views.WAITING in views.status_html(status(State.QUEUED), NOW)
    assert views.FAILED in views.status_html(status(State.ENDED, error={"what": "no"}), NOW)


class Reader(html.parser.HTMLParser):
    """What a browser makes of HTML: its tags and its text."""

    def __init__(self):
        super().__init__()
        self.tags = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def read(text):
    """Tags and text of HTML."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def text_of(text):
    """Text of HTML."""
    return read(text).text


HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</div></span><b>",
        "&lt;b&gt;",
        "\x1b[2J\x1b]0;title\x07",
        "a\nb\r\tc",
        "\u202eevil\u2066",
        ": ",
    ]
)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.sampled_from(State))
def test_html_holds_what_others_call_things(name, detail, job_id, task, state):
    """Whatever names, details and tasks are called, the HTML has our tags alone, and shows their text."""
    shown = status(state, name=name, detail=detail, job_id=job_id, counts=WorkerCounts(tasks={task: 1}), link=detail)
    found = read(views.status_html(shown, NOW))
    assert [tag for tag, _ in found.tags] == ["div", "span", "b"]
    assert all(set(attrs) <= {"style"} for _, attrs in found.tags)


@given(HOSTILE, HOSTILE, HOSTILE, st.sampled_from(State))
def test_a_line_is_a_line(name, detail, job_id, state):
    """Whatever things are called, the text is one line, and holds nothing that a terminal obeys."""
    line = views.status_line(status(state, name=name, detail=detail, job_id=job_id), NOW)
    assert len(line.splitlines()) == 1
    assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]


def test_sites_are_listed():
    """Sites are a line each, the default one marked."""
    shown = views.sites_text(
        [
            {"name": "local", "host": "", "batch": "process", "default": True},
            {"name": "octopus", "host": "octopus.example.org", "batch": "slurm", "default": False},
        ]
    )
    assert shown == "* local: process on this machine\n  octopus: slurm on octopus.example.org"
