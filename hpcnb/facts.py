"""What there is to know of a cluster: its status as attributes, and how it is shown."""

from __future__ import annotations

import time
from typing import Any

from hpcnb.handle import Handle
from hpcnb.model import ClusterStatus, Ending, JobStatus, State

__all__ = ["Facts"]


class Facts:
    """Of the cluster that the handle is of, as last heard."""

    _handle: Handle

    @property
    def handle(self) -> Handle:
        return self._handle

    @property
    def site(self) -> str:
        return self._handle.status.spec.site

    @property
    def state(self) -> State:
        """Where the cluster is in its life."""
        return self._handle.status.state

    @property
    def reason(self) -> str:
        """Why its job is pending, in the batch system's own word; or why it ended."""
        if self.ending:
            return str(self.ending.reason)
        return self.jobs[0].reason if self.jobs else ""

    @property
    def queue_position(self) -> int | None:
        """Place of its job among the pending ones of the partition, from 1."""
        return self.jobs[0].position if self.jobs else None

    @property
    def estimated_start(self) -> float | None:
        """POSIX time, where the batch system has an estimate."""
        return self.jobs[0].estimated_start if self.jobs else None

    @property
    def walltime_left(self) -> int | None:
        """Seconds."""
        left = self._handle.status.left(time.time())
        return None if left is None else int(left)

    @property
    def jobs(self) -> tuple[JobStatus, ...]:
        """Its batch jobs; the first runs the scheduler."""
        return self._handle.status.jobs

    @property
    def ending(self) -> Ending | None:
        return self._handle.status.ending

    @property
    def snapshot(self) -> ClusterStatus:
        """All of the above at one moment."""
        return self._handle.status

    @property
    def nodes(self) -> int:
        """How many it has, or will have when all of its jobs run."""
        seen = self._handle.status
        return seen.spec.resources.nodes + max(0, len(seen.jobs) - 1)  # each further job is one node

    def why(self) -> str:
        """Why it is not ready, or how it ended, in one sentence."""
        from hpcnb.views.why import why

        return why(self._handle.status, time.time())

    _ipython_display_: Any = None
    """Not Dask's widget, which knows neither the queue nor the link: `_repr_html_` shows our own view."""

    def _repr_html_(self, cluster_status: Any = None) -> str:
        from hpcnb.views.ending import deaths_html
        from hpcnb.views.overview import overview_html

        return overview_html(self._handle.status, time.time()) + deaths_html(self._handle.status)
