"""The cluster view: golden files of its text and its HTML, with names that want to be obeyed."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from rich.console import Console
from rich.text import Text

from hpcnb.model import (
    ClusterSpec,
    ClusterStatus,
    Ending,
    JobState,
    JobStatus,
    NodeLoad,
    Reason,
    Resources,
    State,
    WorkerCounts,
)
from hpcnb.views.overview import overview_html, overview_styled, overview_text
from tests.unit.views.test_cluster import HOSTILE, NOW, read, utc

__all__ = ["utc"]

GOLDEN = Path(__file__).parent / "golden"
SPEC = ClusterSpec(site="octopus", name="fit", resources=Resources(nodes=2, walltime=3600, partition="debug"))
EVIL = "<script>alert(1)</script>\x1b[2J\x1b]0;own\x07\n\u202e"


def cluster(state, *jobs, **fields):
    """A cluster in a state for a minute and 14 seconds."""
    return ClusterStatus(id="0" * 16, spec=SPEC, state=state, jobs=jobs, **{"changed": NOW - 74} | fields)


def waiting(job_id="117", **fields):
    """A job in the queue."""
    return JobStatus(job_id=job_id, state=JobState.PENDING, raw="PENDING", partition="debug", **fields)


RUNS = JobStatus(
    job_id="117",
    state=JobState.RUNNING,
    raw="RUNNING",
    partition="debug",
    nodes=("n1", "n2"),
    cores=8,
    started=NOW - 700,
)
N1 = NodeLoad(name="n1", workers=4, cores=4, busy=3.7, memory=3 << 30, limit=16 << 30)
N2 = NodeLoad(name="n2", workers=1, cores=1, busy=0.4, memory=15 << 30, limit=16 << 30)
REST = NodeLoad(name="", nodes=1200, workers=4800, cores=4800, busy=40, memory=100 << 40, limit=192 << 40)
COUNTS = WorkerCounts(
    workers=5,
    cores=5,
    tasks={"processing": 8, "queued": 12_000, "waiting": 5, "memory": 64, "erred": 1, "no-worker": 2},
    nodes=(N1, N2, REST),
)
PRIORITY = waiting(reason="Priority", position=13, smaller=3, estimated_start=NOW + 3900, first_estimate=NOW + 2700)
CASES = {
    "requested": cluster(State.REQUESTED, detail="connecting to octopus"),
    "queued": cluster(State.QUEUED, PRIORITY, detail="the same in a sentence"),
    "hidden": cluster(State.QUEUED, waiting(reason="QOSMaxNodePerUserLimit", hidden=True)),
    "unheard": cluster(
        State.QUEUED, waiting(reason="Ünknown", first_estimate=NOW + 60), unknown_since=NOW - 75, detail="submitted"
    ),
    "starting": cluster(
        State.STARTING, RUNS, detail="the scheduler runs; its workers are starting", walltime_left=3590
    ),
    "ready": cluster(
        State.READY,
        RUNS,
        waiting("118", reason="Resources", position=1),
        walltime_left=2930,
        heard=NOW - 30,
        link="direct",
        route="direct",
        counts=COUNTS,
        notices={"idle": "ends at 14:05 because nobody uses it"},
    ),
    "unreachable": cluster(
        State.UNREACHABLE,
        RUNS,
        detail="the connection is cut; it is being made again",
        route="mailbox",
        walltime_left=300,
        heard=NOW,
        notices={"login": "needs you (Code:): `%hpc login octopus` connects again"},
    ),
    "ended": cluster(
        State.ENDED,
        RUNS,
        detail="the walltime of the batch job ran out",
        error={"type": "JobTimeout", "what": "the walltime of the batch job ran out"},
        ending=Ending(reason=Reason.TIMEOUT),
        spent=90_000,
    ),
    "evil": replace(
        cluster(
            State.READY,
            replace(RUNS, job_id=EVIL, nodes=(EVIL,), partition=EVIL),
            waiting(reason=EVIL, position=2),
            detail=EVIL,
            link=EVIL,
            notices={EVIL: EVIL},
            counts=WorkerCounts(nodes=(replace(N1, name=EVIL),)),
        ),
        spec=replace(SPEC, name=EVIL, site=EVIL),
    ),
}


def golden(name: str, made: str) -> None:
    """Compare with the golden file; the first time it is written, to be looked at."""
    path = GOLDEN / name
    if not path.exists():
        path.write_text(made)
        pytest.fail(f"{path} is new")
    assert path.read_text() == made


@pytest.mark.parametrize("name", CASES)
def test_the_text_of_each_state(name):
    """What is known of a cluster reads like this, to the letter."""
    golden(f"{name}.txt", overview_text(CASES[name], NOW) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_the_html_of_each_state(name):
    """The HTML is this, to the letter; it says what the text says, and needs nothing from elsewhere."""
    made = overview_html(CASES[name], NOW)
    golden(f"{name}.html", made + "\n")
    found = read(made)
    assert {tag for tag, _ in found.tags} <= {"div", "span", "b", "table", "tr", "td"}
    assert {attribute for _, attributes in found.tags for attribute in attributes} <= {"class", "style", "colspan"}
    assert "url(" not in made
    bare = str.maketrans("", "", " \n█░()")
    assert sorted(found.text.translate(bare)) == sorted(overview_text(CASES[name], NOW).translate(bare))


@pytest.mark.parametrize("name", CASES)
def test_a_terminal_shows_the_same_in_colours(name):
    """Rich text has the words of the plain one, and the terminal is sent no command but colours."""
    shown = Text.assemble(*overview_styled(CASES[name], NOW))
    assert shown.plain.rstrip("\n") == overview_text(CASES[name], NOW)
    sent = io.StringIO()
    Console(file=sent, force_terminal=True, width=300, color_system="truecolor").print(shown)
    assert all(
        piece[0] == "[" and piece.split("m")[0].strip("[;0123456789") == ""
        for piece in sent.getvalue().split("\x1b")[1:]
    )


@given(HOSTILE, HOSTILE, HOSTILE)
def test_names_are_never_obeyed(name, reason, node):
    """Whatever others call their things, the HTML has our tags alone, and each line of text is one of ours."""
    said = cluster(
        State.QUEUED,
        waiting(job_id=name, reason=reason, position=2),
        detail=reason,
        counts=WorkerCounts(nodes=(replace(N1, name=node),)),
    )
    said = replace(said, spec=replace(SPEC, name=name, site=node))
    text = overview_text(said, NOW)
    assert len(text.splitlines()) == len(text.split("\n")) <= 7
    assert all(character.isprintable() for character in text.replace("\n", ""))
    assert {tag for tag, _ in read(overview_html(said, NOW)).tags} <= {"div", "span", "b", "table", "tr", "td"}


def test_time_goes_on():
    """The walltime left goes down between two answers of the batch system, and what is used goes up."""
    now, later = (overview_text(CASES["ready"], NOW + wait) for wait in (0, 600))
    assert "48m of 1h left" in now
    assert "38m of 1h left" in later
    assert "1.6 core-hours" in now
    assert "2.9 core-hours" in later


def test_the_day_changes(monkeypatch):
    """A start on another day is told with its date."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    soon = replace(PRIORITY, estimated_start=NOW + 86400, first_estimate=NOW + 86400)
    assert "about Sat 16 Jan 08:00, in 1d\n" in overview_text(cluster(State.QUEUED, soon), NOW) + "\n"
