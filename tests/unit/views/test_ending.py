"""How deaths are shown: the same as text and in HTML, which hostile words cannot break."""

from __future__ import annotations

import html.parser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.model import ClusterSpec, ClusterStatus, Ending, Reason, Resources, State
from hpcnb.views.ending import deaths_html, deaths_text

MEMORY = Ending(
    reason=Reason.OUT_OF_MEMORY,
    job_id="117",
    node="n1",
    signal=9,
    message="the batch job used more memory than it had asked for: 9.8 of 8 GiB on n1",
    tail="one\n\tMemoryError",
    suggestion="Ask for 12 GiB (--memory-per-node 12GiB): the peak was 9.8 of 8 GiB.",
)
WORKER = Ending(
    reason=Reason.FAILED, job_id="117", node="n1", exit_code=3, message="worker-0-n1-2 ended with exit status 3"
)


def status(ending=None, *losses):
    """A cluster that has lost something."""
    spec = ClusterSpec(site="octopus", name="fit", resources=Resources())
    state = State.ENDED if ending else State.READY
    return ClusterStatus(id="0" * 16, spec=spec, state=state, ending=ending, losses=losses)


def test_as_text():
    """Line 8: the cause, the place, the log's end and what to do, of all that died, in order."""
    assert deaths_text(status(MEMORY, WORKER)).splitlines() == [
        "✗ failed: worker-0-n1-2 ended with exit status 3 (job 117, node n1, exit status 3)",
        "✗ out of memory: the batch job used more memory than it had asked for: 9.8 of 8 GiB on n1 (job 117, node n1, signal 9)",
        "  | one",
        "  |  MemoryError",
        "→ Ask for 12 GiB (--memory-per-node 12GiB): the peak was 9.8 of 8 GiB.",
    ]


def test_as_html():
    """The same, with the colours of the page."""
    assert deaths_html(status(None, WORKER)) == (
        '<div style="font-size:0.9em"><span style="color:var(--jp-error-color1,#e53935)">✗</span> '
        "<b>failed</b>: worker-0-n1-2 ended with exit status 3 (job 117, node n1, exit status 3)</div>"
    )


@pytest.mark.parametrize("ending", [None, Ending(reason=Reason.COMPLETED, message="ended as asked")])
def test_what_did_not_die(ending):
    """Of a cluster that lives, or ended as it should, there is nothing to say."""
    assert (deaths_text(status(ending)), deaths_html(status(ending))) == ("", "")


class Tags(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        """Note one."""
        self.tags.append(tag)

    def handle_data(self, data):
        """Note the text."""
        self.text += data


HOSTILE = st.sampled_from(["<script>alert(1)</script>", "\x1b[2J", "&lt;", '" onload="', "\u202e", "</pre>", "x"])


@given(
    st.builds(
        Ending,
        reason=st.just(Reason.FAILED),
        message=HOSTILE,
        node=HOSTILE,
        job_id=HOSTILE,
        tail=HOSTILE,
        suggestion=HOSTILE,
    )
)
def test_hostile_words(ending):
    """Line 8: nothing that a site or a program says becomes a tag, or is obeyed by a terminal."""
    shown = Tags(deaths_html(status(ending)))
    assert {*shown.tags} <= {"div", "span", "b", "pre"}
    text = deaths_text(status(ending))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert ending.message.replace("\x1b", "␛").replace("\u202e", "�") in shown.text
