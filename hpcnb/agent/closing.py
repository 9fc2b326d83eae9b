"""The end of a cluster: its jobs cancelled until they are gone, the evidence collected, the secrets forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from hpcnb.agent import allocation, postmortem, reactor, remains
from hpcnb.agent.book import Book
from hpcnb.agent.record import JobRecord
from hpcnb.agent.sites import Site
from hpcnb.errors import ClusterError, HPCError, SiteError
from hpcnb.model import JobStatus, State
from hpcnb.site import bootstrap

log = logging.getLogger(__name__)

CANCELLING = 60.0
"""Seconds that cancelled jobs have to be gone before they are cancelled again."""


class Closing:
    """Ends one cluster."""

    def __init__(self, book: Book, site: Site) -> None:
        self._book = book
        self._site = site
        self._draining: asyncio.Task[None] | None = None

    async def insist(self) -> None:
        """Have the jobs cancelled, and return when they are gone.

        Raises
        ------
        ClusterError
            They are not gone yet; they are cancelled again and again until they are.
        """
        self.drain()
        try:
            await asyncio.wait_for(self._book.ended.wait(), CANCELLING)
        except TimeoutError:
            raise ClusterError(
                f"cluster {self._book.status.spec.name!r} has not ended yet: {self._book.status.detail}",
                where=self._book.place,
                remedy="Its jobs are cancelled again until they are gone; `%hpc` shows when that is.",
            ) from None

    async def _tell(self, kept: JobRecord, job: JobStatus) -> None:
        if lost := (await self.examine(kept, job)).ending:
            self._book.enter(reactor.on_lost(self._book.status, lost))

    async def give_back(self, job: JobStatus) -> None:
        """Cancel a further job that was put back into the queue: its pilot has begun, and cannot begin again."""
        with contextlib.suppress(SiteError):  # then it starts, and ends at once
            await allocation.cancel(self._site, [job.job_id])

    def drain(self) -> None:
        """Cancel the jobs until they are gone."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._cancel_until_gone(), name=f"end of {self._book.status.id}")

    async def _cancel_until_gone(self) -> None:
        book = self._book
        while not book.ended.is_set():
            try:
                await allocation.cancel(self._site, [job.job_id for job in book.record.jobs if job.job_id])
            except HPCError as exc:
                log.warning("cluster %s: %s", book.status.id, exc)
                book.say(f"ending; {exc.what}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(book.ended.wait(), CANCELLING)

    async def examine(self, kept: JobRecord, job: JobStatus) -> JobStatus:
        """Say how a job ended, by all that it left."""
        asked = self._book.status.spec.resources
        evidence = await remains.evidence_of(self._site, kept.path, job, asked)
        return replace(job, ending=postmortem.verdict(evidence))

    async def bury(self, job: JobStatus) -> None:
        """End what hangs on the leading job, which is over, and forget the secrets."""
        book = self._book
        # Of what follows nothing may keep the cluster from ending: the site may be out of reach.
        if rest := [j.job_id for j in book.record.jobs if j.index and j.job_id]:
            with contextlib.suppress(SiteError):
                await allocation.cancel(self._site, rest)
        for kept in book.record.jobs:
            with contextlib.suppress(OSError, SiteError):
                await bootstrap.forget_secrets(self._site.shell, kept.path, book.record.home)
        book.end(reactor.on_job(book.status, job, leads=True))

    async def mourn(self, index: int, job: JobStatus) -> None:
        """A further job is over: say why, unless we have ended it; let nothing secret of it lie at the site."""
        book = self._book
        for kept in book.record.jobs:
            if kept.index == index:
                book.note(book.record.without_job(index))
                if not kept.dismissed and book.status.state not in (State.DRAINING, State.ENDED):
                    await self._tell(kept, job)
                await bootstrap.forget_secrets(self._site.shell, kept.path, book.record.home)

    async def leave(self) -> None:
        """Cancel nothing any more."""
        if self._draining:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)
