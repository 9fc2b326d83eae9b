"""What `%hpc attach` says: the head of each block, the summary, and what is left where a cell has cleared its output."""

from __future__ import annotations

import pytest

from hpcnb.cell import Message
from hpcnb.notebook.attach import _settled, summary, title

CELL = {"session": "main", "count": 12, "code": "# %%hpc -i a\n\nfit(a)", "status": "ok", "ended": 200.0, "begun": True}


@pytest.mark.parametrize(
    ("changed", "head"),
    [
        ({}, "── cell [12], ended ok 3 min ago ──\n   fit(a)"),
        ({"status": "error", "ended": 0.0}, "── cell [12], ended with an error just now ──\n   fit(a)"),
        ({"session": "b", "ended": None}, "── cell [12] in session b, runs ──\n   fit(a)"),
        ({"ended": None, "begun": False}, "── cell [12], waits ──\n   fit(a)"),
        ({"code": "a\nb", "ended": 7300.0}, "── cell [12], ended ok 2 h ago ──\n   a …"),
        ({"code": ""}, "── cell [12], ended ok 3 min ago ──"),
    ],
)
def test_the_head_of_a_block(changed, head):
    """Which cell, how it stands, and its first line of code."""
    assert title({**CELL, **changed}) == head


def test_the_summary():
    """Futures by state, sessions, cells, and what others have left."""
    states = ["memory", "executing", "processing", "waiting", "erred", "queued"]
    kept = {
        "futures": [("key", n, "", 0.0, state) for n, state in enumerate(states)],
        "others": {"/home/ada/b.ipynb": 1},
    }
    sessions = [{"name": "main", "running": {"id": "1"}}, {"name": "b", "running": None}]
    assert summary(kept, sessions, 1).splitlines() == [
        "6 futures (1 finished, 1 running, 3 waiting, 1 failed); sessions main (busy), b; output of 1 cell that you may not have seen:",
        "1 future of /home/ada/b.ipynb, which has no kernel now: `%hpc attach --notebook /home/ada/b.ipynb` takes over",
    ]
    assert summary({"futures": [], "others": {}}, sessions[1:], 0) == "0 futures; session b"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (["a", "clear", "b", "end"], ["b", "end"]),
        (["a", "later", "b", "end"], ["b", "end"]),
        (["a", "later", "end"], ["a", "end"]),
        (["a", "clear", "end"], ["end"]),
        (["open", "a", "clear", "b", "later", "c", "end"], ["open", "c", "end"]),
    ],
)
async def test_what_a_cell_has_cleared_is_not_shown(said, left):
    """At once or with what comes next, as Jupyter does; a widget's connection stays."""
    kinds = {"clear": "clear_output", "later": "clear_output", "end": "reply", "open": "comm_open"}

    async def messages():
        for seq, word in enumerate(said):
            content = {"word": word, "wait": word == "later"}
            yield Message(seq=seq, cell="c", type=kinds.get(word, "stream"), content=content)

    found = [message async for message in _settled(messages())]
    assert [m.content["word"] for m in found if m.type != "clear_output"] == left
