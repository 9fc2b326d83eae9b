"""How it stands with the groups of calls that go on: a few numbers of a few groups, for whoever looks at the cluster as a whole."""

from __future__ import annotations

from hpcnb.model import GroupLoad
from hpcnb.pilot.scheduler.counts import Summary
from hpcnb.pilot.scheduler.work import Work

MOST = 5
"""Groups that are told of, those that came last."""
LONGEST = 60
"""Characters of a group's name."""


def loads(work: Work) -> list[GroupLoad]:
    """How it stands with each of them."""
    return [_load(one) for one in work.unfinished(MOST)]


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
