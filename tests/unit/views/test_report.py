"""How an examination is shown: the same as text and in HTML, which hostile words cannot break."""

from __future__ import annotations

import html.parser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.report import Report
from hpcnb.site.finding import Finding, Verdict
from hpcnb.views.report import LINES, finding_text, report_html, report_text, summary

GOOD = Finding(name="login", verdict=Verdict.OK, text="connected in 0.3 s")
NOTED = Finding(name="clock", verdict=Verdict.NOTE, text="300 s behind", remedy="Set it.")
BAD = Finding(
    name="Python",
    verdict=Verdict.FAILED,
    text="dask not installed there",
    evidence="one\n\ntwo",
    remedy="pip install dask",
)
LEFT = Finding(name="home", verdict=Verdict.SKIPPED, text="not looked at: there is no connection")


class Reader(html.parser.HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text, self.open = set(), "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note what is opened."""
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        """What is closed was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Note what can be read."""
        self.text += data


def test_a_finding_is_a_line():
    """Mark, name and words in columns; below it what was seen, and what to do."""
    assert finding_text(GOOD) == "✓ login         connected in 0.3 s"
    assert finding_text(BAD).splitlines() == [
        "✗ Python        dask not installed there",
        "    | one",
        "    | two",
        "    → pip install dask",
    ]


def test_a_long_finding_is_folded_and_a_command_is_not():
    """So that the columns stay, and what is to be typed can be copied."""
    long = Finding(name="home", verdict=Verdict.NOTE, text="word " * 30, remedy="pip install " + "dask " * 30)
    *folded, remedy = finding_text(long, 60).splitlines()
    assert len(folded) == 4
    assert all(len(line) <= 60 for line in folded)
    assert all(line.startswith(" " * 16 + "word") for line in folded[1:])
    assert remedy.count("dask") == 30


def test_the_end_of_a_long_evidence_is_shown():
    """The last lines are those that matter."""
    long = Finding(name="Python", verdict=Verdict.FAILED, text="failed", evidence="\n".join(map(str, range(100))))
    assert finding_text(long).splitlines()[1:] == [f"    | {number}" for number in range(100 - LINES, 100)]


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ([GOOD], "octopus is ready: `%hpc up octopus` starts a cluster"),
        ([GOOD, NOTED], "octopus is ready, with 1 note above: `%hpc up octopus` starts a cluster"),
        (
            [GOOD, NOTED, BAD, LEFT],
            "octopus cannot be used yet: Python failed; mend it, and `%hpc doctor octopus` looks again",
        ),
        (
            [BAD, BAD],
            "octopus cannot be used yet: Python, Python failed; mend the first, and `%hpc doctor octopus` looks again",
        ),
    ],
)
def test_the_last_line(findings, words):
    """It says whether a cluster can be started, and what to do next."""
    assert summary("octopus", findings) == words


def test_a_report_says_the_same_in_each_form():
    """A report is its text, and in a notebook a table of the same words."""
    report = Report(site="octopus", findings=(GOOD, NOTED, BAD, LEFT))
    assert repr(report) == report_text("octopus", report.findings)
    shown = Reader(report._repr_html_()).text
    for finding in report.findings:
        for words in (finding.name, finding.text, finding.remedy, *finding.evidence.split()):
            assert words in shown
    assert not report.ok
    assert Report(site="octopus", findings=(GOOD, NOTED, LEFT)).ok


def test_an_unfinished_report_does_not_say_how_it_stands():
    """That is known in the end only."""
    shown = report_html("octopus", [GOOD], unfinished="given up")
    assert "given up" in shown
    assert "is ready" not in shown


@given(st.text(), st.text(), st.text())
def test_hostile_words_do_no_harm(text, evidence, remedy):
    """What a site says is text: no tag and no control character comes of it."""
    finding = Finding(name="login", verdict=Verdict.FAILED, text=f"<b>{text}", evidence=evidence, remedy=remedy)
    read = Reader(report_html(text, [finding]))
    assert read.tags <= {"div", "b", "table", "tr", "td", "pre"}
    assert read.open == []
    assert all(line.isprintable() for line in report_text(text, [finding]).split("\n"))
