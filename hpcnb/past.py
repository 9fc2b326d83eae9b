"""What a cluster has done so far, and how long others have waited where it is: asked of the agent and of its scheduler."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

from hpcnb import handle
from hpcnb.errors import HPCError
from hpcnb.model import State
from hpcnb.views.timeline import Timeline, Wait

if TYPE_CHECKING:
    from hpcnb.cluster import Cluster

__all__ = ["Timeline", "timeline"]

WAITS = 12
"""Of the clusters at a site, that are shown."""

_last: weakref.WeakKeyDictionary[Cluster, dict[str, Any]] = weakref.WeakKeyDictionary()
"""What a scheduler has told last: it may have ended since."""


def timeline(cluster: Cluster) -> Timeline:
    """The picture of a cluster's life up to now; see `Cluster.timeline`."""
    if cluster.state is State.READY:
        client: Any = cluster.client
        _last[cluster] = client.sync(client.scheduler.hpcnb_history)
    elif cluster.state is State.ENDED:
        _last[cluster] = _kept(cluster)
    now = time.time()
    status = cluster.snapshot
    known = [one.status for one in handle.run(handle.handles(live=False))]
    waits = [Wait.of(one, now) for one in known if one.spec.site == status.spec.site]
    shown = tuple(wait for wait in waits if wait is not None)[-WAITS:]
    return Timeline(status=status, now=now, history=_last.get(cluster, {}), waits=shown)


def _kept(cluster: Cluster) -> dict[str, Any]:
    """What its scheduler has left at the site, or told last: whichever is later."""
    told = _last.get(cluster, {})
    try:
        left: dict[str, Any] = handle.run(cluster.handle.search("history"))
    except HPCError:
        if not told:
            raise
        return told
    return max(left, told, key=lambda one: one.get("now", 0.0))
