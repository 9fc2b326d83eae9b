"""How it stands with the groups of calls that go on: a few numbers of a few groups, for whoever looks at the cluster as a whole."""

from __future__ import annotations

from typing import Any

from hpcnb.model import GroupLoad
from hpcnb.pilot.events import emit
from hpcnb.pilot.scheduler.counts import Summary
from hpcnb.pilot.scheduler.work import Work

INTERVAL = 2000
"""Milliseconds between two summaries."""
MOST = 5
"""Groups that are told of, those that came last."""
LONGEST = 60
"""Characters of a group's name."""


class Groups:
    """Publishes how it stands with them, when it has changed."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._published: list[dict[str, Any]] = []

    def publish(self) -> None:
        """Emit the summary if it differs from the last one."""
        summary = [_load(one).to_json() for one in self._work.unfinished(MOST)]
        if summary != self._published:
            self._published = summary
            emit("groups", groups=summary)


def _load(one: Summary) -> GroupLoad:
    return GroupLoad(
        id=one.id,
        label=one.label[:LONGEST],
        waiting=one.waiting + one.queued,
        running=one.running,
        done=one.done,
        failed=one.failed,
        cancelled=one.cancelled,
        rate=float(f"{one.rate:.2g}"),
    )
