"""How often a view of a cluster is drawn: at once when its state changes, else four times a second, and only on change."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from hpcnb.agent.loop import background
from hpcnb.model import ClusterSpec, ClusterStatus, Resources, State, WorkerCounts
from hpcnb.notebook.cluster_view import CALM_TICK, OFTEN, ClusterView
from tests.isolation import until

SPEC = ClusterSpec(site="octopus", name="fit", resources=Resources())
READY = ClusterStatus(id="0" * 16, spec=SPEC, state=State.READY, changed=time.time() - 3600)


class Known:
    """A handle without an agent."""

    id = READY.id

    def __init__(self):
        self.status = READY

    def on_change(self, heard):
        """One listens."""
        self.heard = heard

    def say(self, **fields):
        """Something has changed."""
        self.status = replace(self.status, **fields)
        self.heard(self.status)


@pytest.fixture
def shown(monkeypatch, capsys):
    """A view that keeps what it has drawn, and when."""
    view = ClusterView(known := Known())
    view.drawn = []
    monkeypatch.setattr(view, "_publish", lambda status: view.drawn.append((time.monotonic(), status)))
    view.display()
    background().run(until(lambda: view.drawn))
    yield known, view.drawn

    async def end():
        view._stop()

    background().run(end())


def tasks(number):
    """So many tasks run."""
    return WorkerCounts(workers=1, cores=1, tasks={"processing": number})


def test_a_flood_of_news(shown):
    """Of a thousand changes in a second a few are drawn, at most four a second, and the last is one of them."""
    known, drawn = shown

    async def flood():
        for number in range(1, 1001):
            known.say(counts=tasks(number))
            await asyncio.sleep(0.001)
        await until(lambda: drawn[-1][1].counts == tasks(1000))

    background().run(flood())
    took = drawn[-1][0] - drawn[0][0]
    assert len(drawn) <= took / OFTEN + 2


def test_a_change_of_state_is_drawn_at_once(shown):
    """Before who waits for the state goes on: the cell may be the last one that is run."""
    known, drawn = shown

    async def end():
        known.say(counts=tasks(1))
        known.say(state=State.DRAINING)
        known.say(state=State.ENDED)
        return len(drawn)

    assert background().run(end()) >= 3
    assert drawn[-1][1].state is State.ENDED


def test_what_says_the_same_is_not_sent(shown):
    """News of what is not shown, or the clock, send nothing."""
    known, drawn = shown

    async def tell():
        for _ in range(3):
            known.say(heard=time.time(), created=time.time())
            await asyncio.sleep(OFTEN * 1.5)
        return len(drawn)

    assert background().run(tell()) == 1
    assert CALM_TICK > 1
