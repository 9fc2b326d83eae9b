"""The way of a cluster's jobs into the batch system, and how they are found again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, TypeVar, cast

from hpcnb.agent import allocation, reactor
from hpcnb.agent.book import Book
from hpcnb.agent.sites import Site
from hpcnb.errors import HPCError, NotReady, SiteError
from hpcnb.model import State
from hpcnb.site.batch import BatchUnknown
from hpcnb.site.environment import Probe
from hpcnb.site.shell import Ask

log = logging.getLogger(__name__)

T = TypeVar("T")


class Submission:
    """Submits the jobs of one cluster."""

    def __init__(self, book: Book, site: Site) -> None:
        self._book = book
        self._site = site
        self._opening: asyncio.Future[Any] | None = None  # what `give_up` need not wait for
        self._requesting: asyncio.Event | None = None  # set once it is submitted, or has failed

    @property
    def begun(self) -> bool:
        return self._requesting is not None

    async def request(self, ask: Ask) -> None:
        """Take the cluster from the request to a submitted job.

        Raises
        ------
        HPCError
            Nothing was submitted, and why; the cluster has ended with that error.
        """
        book = self._book
        self._requesting = asyncio.Event()
        try:
            book.say(f"connecting to {self._site.name}")
            found = await self._open(ask)
            book.record = book.record.at(found, zip_path=self._site.zip_path)
            book.say("; ".join([*self._site.warnings, "submitting"]))
            await self.submit(0)
        except HPCError as exc:
            book.fail(exc)
            raise
        except Exception as exc:  # whatever it was: nobody would ever end this cluster
            book.fail(error := SiteError(f"{type(exc).__name__}: {exc}", where=book.place))
            raise error from exc
        finally:
            self._requesting.set()

    async def give_up(self) -> None:
        """Let a request that goes on end, with a job or without."""
        if self._opening:
            self._opening.cancel()
        if self._requesting:
            await self._requesting.wait()

    async def _open(self, ask: Ask) -> Probe:
        status = self._book.status
        found = await self._unless_closed(self._site.open(status.spec, ask))
        if self._book.status.state is State.DRAINING:
            raise self._closed()
        return found

    async def _unless_closed(self, work: Awaitable[T]) -> T:
        """Do what may take for ever, unless `give_up` is faster."""
        self._opening = asyncio.ensure_future(work)
        try:
            return cast("T", await self._opening)
        except asyncio.CancelledError:
            if self._book.status.state is not State.DRAINING:
                raise
            raise self._closed() from None

    def _closed(self) -> NotReady:
        return NotReady(f"cluster {self._book.status.spec.name!r} was closed before it was submitted")

    async def submit(self, index: int, *, scheduler: str = "") -> None:
        """Submit one job; `scheduler` is the address that one joins which adds a node."""
        book = self._book
        job = allocation.new_job(book.record, index)
        # The record comes first: if this process dies between the submission and its answer, the token finds the job.
        book.keep(book.record.with_job(job))
        run = allocation.run_of(book.record, job, self._site, scheduler=scheduler)
        say = book.say if index == 0 else log.info
        job_id = await allocation.submit(self._site, book.record, run, say=say, patiently=self._unless_closed)
        book.note(book.record.with_job(replace(job, job_id=job_id)))
        if index == 0:
            book.enter(reactor.on_submitted(book.status, job_id))

    async def find_jobs(self) -> None:
        """Find what was submitted, perhaps, by an agent that died before it had the answer.

        Raises
        ------
        SiteError
            The batch system gave no answer; nothing has changed.
        """
        book = self._book
        for job in (job for job in book.record.jobs if not job.job_id):
            try:
                job_id = await allocation.find(self._site, job)
            except BatchUnknown as exc:
                raise SiteError("the batch system gave no answer", where=book.place, evidence=str(exc)) from exc
            if job_id:
                book.note(book.record.with_job(replace(job, job_id=job_id)))
                if job.index == 0:
                    book.enter(reactor.on_submitted(book.status, job_id))
            else:
                book.note(book.record.without_job(job.index))
