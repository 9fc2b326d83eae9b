"""What is known of one cluster, as it changes: kept on disk, told to who follows it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from hpcnb.agent import places, reactor, record
from hpcnb.agent.record import ClusterRecord
from hpcnb.errors import ClusterError, HPCError
from hpcnb.model import ClusterStatus, State
from hpcnb.site.authority import Authority

log = logging.getLogger(__name__)

Changed = Callable[[ClusterStatus], None]


class Book:
    """The record of one cluster.

    Parameters
    ----------
    kept : ClusterRecord
        New, or as an earlier agent left it.
    changed : callable
        Called with every new status.

    Attributes
    ----------
    record : ClusterRecord
    runs : asyncio.Event
        Set while the job may be running.
    ended : asyncio.Event
    """

    def __init__(self, kept: ClusterRecord, changed: Changed) -> None:
        self.record = kept
        self._changed = changed
        self.runs = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def status(self) -> ClusterStatus:
        return self.record.status

    @property
    def place(self) -> str:
        """Where it is, as errors say it."""
        return f"site {self.status.spec.site}"

    def authority(self) -> Authority:
        return Authority(self.record.authority_certificate, self.record.authority_key)

    def enter(self, status: ClusterStatus) -> None:
        """Take a new status; one that matters to a later agent is written."""
        if status == self.status:
            return
        saved = (self.status.state, self.status.ending)
        self.record = replace(self.record, status=status)
        if (status.state, status.ending) != saved:
            log.info("cluster %s %r: %s %s", status.id, status.spec.name, status.state, status.detail)
            self.note(self.record)
        if status.state is State.QUEUED:
            self.runs.clear()
        else:
            self.runs.set()
        self._changed(status)

    def keep(self, kept: ClusterRecord) -> None:
        """Take a new record of what is about to be done, which must be on disk before it is.

        Raises
        ------
        ClusterError
            It cannot be written.
        """
        self.record = kept
        try:
            record.save(kept)
        except OSError as exc:
            what = f"the record of the cluster cannot be written: {exc.strerror}"
            raise ClusterError(what, where=str(places.records()), remedy="Free some space on this machine.") from exc

    def note(self, kept: ClusterRecord) -> None:
        """Take a new record of what is so: on a full disk it is nevertheless."""
        self.record = kept
        try:
            record.save(kept)
        except OSError:
            log.exception("the record of cluster %s could not be written", kept.status.id)

    def say(self, detail: str) -> None:
        """What is going on, in one line."""
        if self.status.state is not State.ENDED:
            self.enter(replace(self.status, detail=detail))

    def fail(self, error: HPCError) -> None:
        """It ends before it was submitted."""
        self.end(reactor.on_error(self.status, error))

    def end(self, status: ClusterStatus) -> None:
        """Take the last status; what was secret is forgotten."""
        self.record = self.record.without_secrets()
        self.enter(status)
        self.ended.set()
