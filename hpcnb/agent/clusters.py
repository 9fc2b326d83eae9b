"""One live cluster: submit it, follow its jobs, keep its link, end it. What the states do is the reactor's business."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from hpcnb.agent import allocation, reactor, record, remains
from hpcnb.agent.connection import Connection, Ears
from hpcnb.agent.record import ClusterRecord
from hpcnb.agent.sites import Site
from hpcnb.errors import ClusterError, HPCError, NotReady, SiteError
from hpcnb.model import ClusterStatus, JobState, JobStatus, State
from hpcnb.site import bootstrap
from hpcnb.site.authority import Authority, Identity, Role
from hpcnb.site.batch import BatchUnknown
from hpcnb.site.environment import Probe
from hpcnb.site.shell import Ask
from hpcnb.site.slurm_pending import explain_pending

log = logging.getLogger(__name__)

POLITE = 10.0
"""Seconds that a cluster has to end by itself before its jobs are cancelled."""
CANCELLING = 60.0
"""Seconds that cancelled jobs have to be gone before they are cancelled again."""
MOST_LOGS = 4 << 20
"""Bytes of one answer with logs, which the client must hold in one message."""

Changed = Callable[[ClusterStatus], None]
T = TypeVar("T")


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
        self._record = kept
        self.site = site
        self._changed = changed
        self._connection: Connection | None = None
        self._opening: asyncio.Future[Any] | None = None  # what `close` need not wait for
        self._requesting: asyncio.Event | None = None  # set once it is submitted, or has failed
        self._runs = asyncio.Event()  # set while the job may be running
        self._ended = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._resuming = asyncio.Lock()
        self._scaling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients = 0

    @property
    def status(self) -> ClusterStatus:
        return self._record.status

    def identity(self, role: Role) -> Identity:
        """A fresh certificate for somebody on this machine."""
        return self._authority().issue(role, lifetime=self.status.spec.resources.walltime)

    @property
    def authority_certificate(self) -> str:
        return self._record.authority_certificate

    def _authority(self) -> Authority:
        return Authority(self._record.authority_certificate, self._record.authority_key)

    # -- beginning ---------------------------------------------------------------------------------------------

    async def request(self, ask: Ask) -> None:
        """Take the cluster from the request to a submitted job.

        Raises
        ------
        HPCError
            Nothing was submitted, and why; the cluster has ended with that error.
        """
        self._requesting = asyncio.Event()
        try:
            self._say(f"connecting to {self.site.name}")
            found = await self._open(ask)
            self._record = self._record.at(found, zip_path=self.site.zip_path)
            self._say("; ".join([*self.site.warnings, "submitting"]))
            await self._submit(0)
        except HPCError as exc:
            self._fail(exc)
            raise
        except Exception as exc:  # whatever it was: nobody would ever end this cluster
            self._fail(error := SiteError(f"{type(exc).__name__}: {exc}", where=self._place))
            raise error from exc
        finally:
            self._requesting.set()
        self.follow()

    async def _open(self, ask: Ask) -> Probe:
        found = await self._unless_closed(self.site.open(self.status.spec, ask))
        if self.status.state is State.DRAINING:
            raise self._closed()
        return found

    async def _unless_closed(self, work: Awaitable[T]) -> T:
        """Do what may take for ever, unless `close` is faster."""
        self._opening = asyncio.ensure_future(work)
        try:
            return cast("T", await self._opening)
        except asyncio.CancelledError:
            if self.status.state is not State.DRAINING:
                raise
            raise self._closed() from None

    def _closed(self) -> NotReady:
        return NotReady(f"cluster {self.status.spec.name!r} was closed before it was submitted")

    def _fail(self, error: HPCError) -> None:
        self._record = self._record.without_secrets()
        self._set(reactor.on_error(self.status, error))
        self._ended.set()

    def _say(self, detail: str) -> None:
        if self.status.state is not State.ENDED:
            self._set(replace(self.status, detail=detail))

    async def _submit(self, index: int) -> None:
        job = allocation.new_job(self._record, index)
        # The record comes first: if this process dies between the submission and its answer, the token finds the job.
        self._keep(self._record.with_job(job))
        scheduler = self._connection.scheduler if self._connection else ""
        run = allocation.run_of(self._record, job, self.site, scheduler=scheduler)
        say = self._say if index == 0 else log.info
        job_id = await allocation.submit(self.site, self._record, run, say=say, patiently=self._unless_closed)
        self._keep(self._record.with_job(replace(job, job_id=job_id)))
        if index == 0:
            self._set(reactor.on_submitted(self.status, job_id))
        self._watch(index, job_id)

    # -- life --------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Watch the jobs and keep the link, until the end."""
        for job in self._record.jobs:
            if job.job_id:
                self._watch(job.index, job.job_id)
        self._following = asyncio.create_task(self._keep_link(), name=f"link of {self.status.id}")

    async def resume(self, ask: Ask) -> None:
        """Find the jobs of a cluster that an earlier agent left, and follow them; harmless where that is done.

        Raises
        ------
        HPCError
            Its site cannot be asked now; nothing has changed.
        """
        async with self._resuming:
            known = self._following or self._requesting or self.status.state is State.ENDED
            if not known or "login" in self.site.notices:
                await self.site.connect(ask)
            if known:
                return
            try:
                await self._find_jobs()
            except BatchUnknown as exc:
                raise SiteError("the batch system gave no answer", where=self._place, evidence=str(exc)) from exc
            if not self._record.jobs:
                self._fail(SiteError("it was never submitted: the agent ended before", where=self._place))
                return
            self._set(reactor.on_link(self.status, ""))
            self.follow()
            if self.status.state is State.DRAINING:
                self._drain()

    async def _find_jobs(self) -> None:
        for job in (job for job in self._record.jobs if not job.job_id):
            # Submitted, perhaps, by an agent that died before it had the answer.
            if found := await self.site.batch.find(job.token):
                self._keep(self._record.with_job(replace(job, job_id=found[0])))
                if job.index == 0:
                    self._set(reactor.on_submitted(self.status, found[0]))
            else:
                self._keep(self._record.without_job(job.index))

    @property
    def _place(self) -> str:
        return f"site {self.site.name}"

    def _watch(self, index: int, job_id: str) -> None:
        self.site.watch(job_id, partial(self._on_job, index))

    def _on_job(self, index: int, job: JobStatus) -> None:
        if index == 0 and job.state is JobState.ENDED:
            self._later(self._finish(job))
            return
        explanation = explain_pending(job) if job.state is JobState.PENDING else ""
        self._set(reactor.on_job(self.status, job, leads=index == 0, explanation=explanation))
        if index and job.state is JobState.ENDED:
            self._later(self._forget(index))

    async def _forget(self, index: int) -> None:
        """Let nothing secret of a job that is over lie at the site."""
        for job in self._record.jobs:
            if job.index == index:
                self._keep(self._record.without_job(index))
                await bootstrap.forget_secrets(self.site.shell, job.path, self._record.home)

    async def _keep_link(self) -> None:
        try:
            self._connection = Connection(self._record, self.site, identity=self.identity(Role.AGENT))
            ears = Ears(link=self._on_link, trouble=self._on_trouble, event=self._on_event)
            await self._connection.keep(ears, runs=self._runs)
        except Exception as exc:  # a fault of ours; without its link the cluster can still be seen, and ended
            log.exception("the link of cluster %s failed", self.status.id)
            self._say(f"the link failed: {type(exc).__name__}: {exc}")

    def _on_link(self, route: str) -> None:
        self._set(reactor.on_link(self.status, route))
        if route:
            self._later(self._tell_attached())

    def _on_trouble(self, what: str) -> None:
        self._set(reactor.on_trouble(self.status, what))

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "ended":
            self.site.hurry()
        self._set(reactor.on_pilot(self.status, event))

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
            raise NotReady(f"cluster {self.status.spec.name!r} is {self.status.state}", where=self._place)

    async def scale(self, nodes: int) -> None:
        """Have this many nodes, by further batch jobs of one node each; the first job keeps its own.

        Raises
        ------
        HPCError
            The batch system refused; what was there before goes on.
        """
        async with self._scaling:
            extra = [job.index for job in self._record.jobs if job.index]
            wanted = max(0, nodes - self.status.spec.resources.nodes)
            while len(extra) < wanted:
                extra.append(max([0, *extra]) + 1)
                await self._add(extra[-1])
            if surplus := [job.job_id for job in self._record.jobs if job.index in extra[wanted:]]:
                await allocation.cancel(self.site, surplus)

    async def _add(self, index: int) -> None:
        if not (self._connection and self._connection.scheduler):
            raise NotReady(
                f"cluster {self.status.spec.name!r} is {self.status.state}: there is no scheduler yet to add nodes to",
                where=self._place,
                remedy="Scale it once it is ready.",
            )
        try:
            await self._submit(index)
        except BaseException:
            self._keep(self._record.without_job(index))
            raise

    # -- end ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the cluster: politely, then by the batch system; return when its jobs are gone.

        Raises
        ------
        ClusterError
            They are not gone yet; they are cancelled again and again until they are.
        """
        self._set(reactor.on_draining(self.status))
        if self._opening:
            self._opening.cancel()
        if self._requesting:
            await self._requesting.wait()
        if not self._ended.is_set() and self._connection and await self._connection.tell({"op": "close"}):
            self.site.hurry()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), POLITE)
        if self.status.state is State.ENDED:
            return
        self._drain()
        try:
            await asyncio.wait_for(self._ended.wait(), CANCELLING)
        except TimeoutError:
            raise ClusterError(
                f"cluster {self.status.spec.name!r} has not ended yet: {self.status.detail}",
                where=self._place,
                remedy="Its jobs are cancelled again until they are gone; `%hpc` shows when that is.",
            ) from None

    def _drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._cancel_until_gone(), name=f"end of {self.status.id}")

    async def _cancel_until_gone(self) -> None:
        while not self._ended.is_set():
            try:
                await allocation.cancel(self.site, [job.job_id for job in self._record.jobs if job.job_id])
            except HPCError as exc:
                log.warning("cluster %s: %s", self.status.id, exc)
                self._say(f"ending; {exc.what}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), CANCELLING)

    async def _finish(self, job: JobStatus) -> None:
        """The leading job is over: collect the evidence, end what hangs on it, forget the secrets."""
        ending = await remains.ending_of(self.site.shell, self._record.jobs[0].path, job)
        if self._following:
            self._following.cancel()
        if self._connection:
            await self._connection.close()
        # Of what follows nothing may keep the cluster from ending: the site may be out of reach.
        if rest := [j.job_id for j in self._record.jobs if j.index and j.job_id]:
            with contextlib.suppress(SiteError):
                await allocation.cancel(self.site, rest)
        for kept in self._record.jobs:
            with contextlib.suppress(OSError, SiteError):
                await bootstrap.forget_secrets(self.site.shell, kept.path, self._record.home)
        status = reactor.on_job(self.status, replace(job, ending=ending), leads=True)
        self._record = self._record.without_secrets()
        self._set(status)
        self._ended.set()

    async def logs(self, name: str, most: int, ask: Ask) -> dict[str, str]:
        """The ends of the logs whose name contains `name`, of a cluster that may have ended long ago."""
        if not self._record.jobs:
            return {}
        await self.site.connect(ask)
        path = self._record.jobs[0].path
        names = [n for n in await remains.log_names(self.site.shell, path) if name in n]
        most = min(most, MOST_LOGS // max(1, len(names)))
        return {n: await remains.read_log(self.site.shell, path, n, most) for n in names}

    async def leave(self) -> None:
        """Stop following; the cluster goes on without us."""
        tasks = [task for task in (self._following, self._draining) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connection:
            await self._connection.close()

    # -- bookkeeping -------------------------------------------------------------------------------------------

    def _set(self, status: ClusterStatus) -> None:
        if status == self.status:
            return
        saved = (self.status.state, self.status.ending)
        self._record = replace(self._record, status=status)
        if (status.state, status.ending) != saved:
            log.info("cluster %s %r: %s %s", status.id, status.spec.name, status.state, status.detail)
            try:
                record.save(self._record)
            except OSError:  # the disk is full: what is not written is still true
                log.exception("the record of cluster %s could not be written", status.id)
        if status.state is State.QUEUED:
            self._runs.clear()
        else:
            self._runs.set()
        self._changed(status)

    def _keep(self, kept: ClusterRecord) -> None:
        self._record = kept
        record.save(kept)

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("cluster %s: a task failed", self.status.id, exc_info=error)
