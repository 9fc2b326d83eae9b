"""One live cluster: submit it, follow its jobs, keep its link, end it. What the states do is the reactor's business."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from hpcnb.agent import allocation, reactor, remains
from hpcnb.agent.book import Book, Changed
from hpcnb.agent.closing import Closing
from hpcnb.agent.connection import Connection, Ears
from hpcnb.agent.record import ClusterRecord, JobRecord
from hpcnb.agent.sites import Site
from hpcnb.agent.submission import Submission
from hpcnb.errors import HPCError, NotReady, SiteError
from hpcnb.model import ClusterStatus, JobState, JobStatus, State
from hpcnb.site.authority import Identity, Role
from hpcnb.site.shell import Ask
from hpcnb.site.slurm_pending import explain_pending

log = logging.getLogger(__name__)

AGAIN = 10.0
"""Seconds until a link is made again that failed by a fault of this machine."""
PARTING = 1.0
"""Seconds that an agent which leaves gives to what it has begun."""
POLITE = 10.0
"""Seconds that a cluster has to end by itself before its jobs are cancelled."""
MOST_LOGS = 4 << 20
"""Bytes of one answer with logs, which the client must hold in one message."""


class LiveCluster:
    """A cluster from its request to its end.

    Parameters
    ----------
    kept : ClusterRecord
        New, or as an earlier agent left it.
    site : Site
    changed : callable
        Called with every new status.
    """

    def __init__(self, kept: ClusterRecord, site: Site, changed: Changed) -> None:
        self._book = Book(kept, changed)
        self.site = site
        self._submission = Submission(self._book, site)
        self._closing = Closing(self._book, site)
        self._connection: Connection | None = None
        self._following: asyncio.Task[None] | None = None
        self._resuming = asyncio.Lock()
        self._scaling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients = 0

    @property
    def status(self) -> ClusterStatus:
        return self._book.status

    def identity(self, role: Role) -> Identity:
        """A fresh certificate for somebody on this machine."""
        return self._book.authority().issue(role, lifetime=self.status.spec.resources.walltime)

    @property
    def authority_certificate(self) -> str:
        return self._book.record.authority_certificate

    # -- beginning ---------------------------------------------------------------------------------------------

    async def request(self, ask: Ask) -> None:
        """Take the cluster from the request to a submitted job.

        Raises
        ------
        HPCError
            Nothing was submitted, and why; the cluster has ended with that error.
        """
        await self._submission.request(ask)
        self.follow()

    # -- life --------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Watch the jobs and keep the link, until the end."""
        self._watch(self._book.record.jobs)
        self._following = asyncio.create_task(self._keep_link(), name=f"link of {self.status.id}")

    async def resume(self, ask: Ask) -> None:
        """Find the jobs of a cluster that an earlier agent left, and follow them; harmless where that is done.

        Raises
        ------
        HPCError
            Its site cannot be asked now; nothing has changed.
        """
        async with self._resuming:
            known = self._following or self._submission.begun or self.status.state is State.ENDED
            if not known or "login" in self.site.notices:
                await self.site.connect(ask)
            if known:
                return
            await self._submission.find_jobs()
            if not self._book.record.jobs:
                self._book.fail(SiteError("it was never submitted: the agent ended before", where=self._book.place))
                return
            self._book.enter(reactor.on_link(self.status, ""))
            self.follow()
            if self.status.state is State.DRAINING:
                self._closing.drain()

    def _watch(self, jobs: Iterable[JobRecord]) -> None:
        for job in jobs:
            if job.job_id:
                self.site.watch(job.job_id, partial(self._on_job, job.index))

    def _on_job(self, index: int, job: JobStatus) -> None:
        if index == 0 and job.state is JobState.ENDED:
            self._later(self._finish(job))
            return
        if job.state is JobState.PENDING and reactor.was_begun(self.status, job, leads=index == 0):
            self._give_back(index, job)
        explanation = explain_pending(job) if job.state is JobState.PENDING else ""
        self._book.enter(reactor.on_job(self.status, job, leads=index == 0, explanation=explanation))
        if index and job.state is JobState.ENDED:
            self._later(self._closing.mourn(index, job))

    def _give_back(self, index: int, job: JobStatus) -> None:
        """Let a job that was put back into the queue not begin again."""
        if index:
            self._later(self._closing.give_back(job))
        elif self.status.state not in (State.QUEUED, State.DRAINING):
            self.site.hurry()  # this answer may be older than the start
        else:
            self._book.enter(reactor.on_requeued(self.status))
            self._closing.drain()

    async def _keep_link(self) -> None:
        ears = Ears(link=self._on_link, trouble=self._on_trouble, event=self._on_event)
        while True:
            try:
                self._connection = Connection(self._book.record, self.site, identity=self.identity(Role.AGENT))
                await self._connection.keep(ears, runs=self._book.runs)
            except Exception as exc:  # no room for a socket, say; the cluster can still be seen, and ended
                log.exception("the link of cluster %s failed", self.status.id)
                self._book.say(f"the link failed, and is made again: {exc.what if isinstance(exc, HPCError) else exc}")
            if self._connection:
                await self._connection.close()
            await asyncio.sleep(AGAIN)

    def _on_link(self, route: str) -> None:
        self._book.enter(reactor.on_link(self.status, route))
        if route:
            self.site.stir()
            self._later(self._tell_attached())
        else:
            self.site.hurry()  # the job may be over

    def _on_trouble(self, what: str) -> None:
        self._book.enter(reactor.on_trouble(self.status, what))

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "ended":
            self.site.hurry()
        elif event["event"] == "load" and event["workers"] != self.status.counts.workers:
            self.site.stir()  # with its workers a further job may have begun, or ended
        self._book.enter(reactor.on_pilot(self.status, event))

    async def attached(self, clients: int) -> None:
        """Say how many clients use the cluster now."""
        self._clients = clients
        await self._tell_attached()

    async def _tell_attached(self) -> None:
        if self._connection:
            await self._connection.tell({"op": "attached", "clients": self._clients})

    async def keep(self) -> None:
        """Begin the idle time anew."""
        if not (self._connection and await self._connection.tell({"op": "keep"})):
            raise NotReady(f"cluster {self.status.spec.name!r} is {self.status.state}", where=self._book.place)

    async def scale(self, nodes: int) -> None:
        """Have this many nodes, by further batch jobs of one node each; the first job keeps its own.

        Raises
        ------
        HPCError
            The batch system refused; what was there before goes on.
        """
        async with self._scaling:
            extra = [job.index for job in self._book.record.jobs if job.index and not job.dismissed]
            wanted = max(0, nodes - self.status.spec.resources.nodes)
            while len(extra) < wanted:
                extra.append(self._book.record.last + 1)
                await self._add(extra[-1])
            self._book.enter(reactor.on_notice(self.status, "lost", ""))  # the user has seen to it
            if surplus := [job for job in self._book.record.jobs if job.index in extra[wanted:]]:
                for job in surplus:
                    self._book.note(self._book.record.with_job(replace(job, dismissed=True)))
                await allocation.cancel(self.site, [job.job_id for job in surplus])

    async def _add(self, index: int) -> None:
        if not (self._connection and self._connection.scheduler):
            raise NotReady(
                f"cluster {self.status.spec.name!r} is {self.status.state}: there is no scheduler yet to add nodes to",
                where=self._book.place,
                remedy="Scale it once it is ready.",
            )
        try:
            await self._submission.submit(index, scheduler=self._connection.scheduler)
        except BaseException:
            self._book.note(self._book.record.without_job(index))
            raise
        self._watch(job for job in self._book.record.jobs if job.index == index)

    # -- end ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the cluster: politely, then by the batch system; return when its jobs are gone.

        Raises
        ------
        ClusterError
            They are not gone yet; they are cancelled again and again until they are.
        """
        self._book.enter(reactor.on_draining(self.status))
        await self._submission.give_up()
        if not self._book.ended.is_set() and self._connection and await self._connection.tell({"op": "close"}):
            self.site.hurry()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._book.ended.wait(), POLITE)
        if self.status.state is not State.ENDED:
            await self._closing.insist()

    async def _finish(self, job: JobStatus) -> None:
        """The leading job is over."""
        job = await self._closing.examine(self._book.record.jobs[0], job)
        if self._following:
            self._following.cancel()
        if self._connection:
            await self._connection.close()
        await self._closing.bury(job)

    async def logs(self, name: str, most: int, ask: Ask) -> dict[str, str]:
        """The ends of the logs whose name contains `name`, of a cluster that may have ended long ago."""
        if not self._book.record.jobs:
            return {}
        await self.site.connect(ask)
        path = self._book.record.jobs[0].path
        names = [n for n in await remains.log_names(self.site.shell, path) if name in n]
        if not most:
            return {n.removeprefix("../"): "" for n in names}
        most = min(most, MOST_LOGS // max(1, len(names)))
        return {n.removeprefix("../"): await remains.read_log(self.site.shell, path, n, most) for n in names}

    async def log(self, name: str, offset: int, most: int, ask: Ask) -> dict[str, Any]:
        """A piece of the log of this name, likewise; nothing where there is none (see `remains.log_piece`)."""
        if not (jobs := self._book.record.jobs):
            return {}
        await self.site.connect(ask)
        return await remains.log_piece(self.site.shell, jobs[0].path, name, offset, min(most, MOST_LOGS))

    async def search(self, question: dict[str, Any], ask: Ask) -> dict[str, Any]:
        """Look for something in its logs, likewise (see `hpcnb.pilot.output.search`)."""
        kept = self._book.record
        if not kept.jobs:
            return {}
        await self.site.connect(ask)
        environment = self.site.environment(kept.status.spec)
        return await remains.search(
            self.site.shell, environment, zip_path=kept.zip_path, path=kept.jobs[0].path, question=question
        )

    async def leave(self) -> None:
        """Stop following; the cluster goes on without us."""
        if self._following:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._closing.leave()
        if self._tasks:  # what was begun is best finished: the next agent does not know of it
            _, late = await asyncio.wait(self._tasks, timeout=PARTING)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._connection:
            await self._connection.close()

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("cluster %s: a task failed", self.status.id, exc_info=error)
