"""One live cluster: submit it, follow its jobs, keep its link, end it. What the states do is the reactor's business."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from hpcnb.agent import reactor, record
from hpcnb.agent.connection import Connection
from hpcnb.agent.record import ClusterRecord, JobRecord
from hpcnb.agent.sites import Site
from hpcnb.errors import HPCError, SiteError
from hpcnb.model import ClusterSpec, ClusterStatus, Ending, JobState, JobStatus, Reason, State
from hpcnb.pilot.run import Run
from hpcnb.site import bootstrap
from hpcnb.site.authority import Authority, Identity, Role
from hpcnb.site.batch import BatchUnknown, JobRequest
from hpcnb.site.shell import Ask
from hpcnb.site.slurm_pending import explain_pending

log = logging.getLogger(__name__)

TAIL = 4000
"""Bytes of a job's log that come with the news of its end."""
POLITE = 10.0
"""Seconds that a cluster has to end by itself before its jobs are cancelled."""

Changed = Callable[[ClusterStatus], None]


def new_record(cluster: str, spec: ClusterSpec) -> ClusterRecord:
    """The record of a cluster that was just asked for."""
    authority = Authority.create(cluster)
    now = time.time()
    return ClusterRecord(
        status=ClusterStatus(id=cluster, spec=spec, state=State.REQUESTED, created=now, changed=now),
        authority_certificate=authority.certificate,
        authority_key=authority.key,
        secret=secrets.token_hex(32),
    )


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
        self._site = site
        self._changed = changed
        self._connection: Connection | None = None
        self._ended = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
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
        try:
            self._say(f"connecting to {self._site.name}")
            found = await self._site.open(ask)
            self._record = replace(self._record, home=found.home, zip_path=self._site.zip_path)
            self._say("; ".join([*self._site.warnings, "submitting"]))
            await self._submit(0)
        except HPCError as exc:
            self._set(reactor.on_error(self.status, exc))
            self._ended.set()
            raise
        except asyncio.CancelledError:
            self._set(reactor.on_error(self.status, SiteError("given up before it was submitted")))
            self._ended.set()
            raise
        self.follow()

    def _say(self, detail: str) -> None:
        self._set(replace(self.status, detail=detail))

    async def _submit(self, index: int) -> None:
        job = self._job(index)
        run = self._run(job)
        files = bootstrap.run_files(
            run,
            self._site.environment,
            zip_path=self._record.zip_path,
            authority=self._authority(),
            secret=self._record.secret,
        )
        # The record comes first: if this process dies between the submission and its answer, the token finds the job.
        self._keep(self._record.with_job(job))
        await bootstrap.write_run(self._site.shell, run, files, site=self._site.name)
        try:
            job_id = await self._site.batch.submit(_request(run))
        except BatchUnknown as exc:
            raise SiteError(
                "the batch system gave no answer to the submission",
                where=f"site {self._site.name}",
                evidence=str(exc),
                remedy=f"A job with the comment {job.token} may exist; `squeue --me` at the site shows it.",
            ) from exc
        self._keep(self._record.with_job(replace(job, job_id=job_id)))
        if index == 0:
            self._set(reactor.on_submitted(self.status, job_id))
        self._watch(index, job_id)

    def _job(self, index: int) -> JobRecord:
        path = f"{self._record.home}/runs/{self.status.id}"
        return JobRecord(index=index, token=secrets.token_hex(16), path=f"{path}-{index}" if index else path)

    def _run(self, job: JobRecord) -> Run:
        spec = self.status.spec
        if job.index:  # an allocation that only adds nodes adds them one by one
            spec = replace(spec, resources=replace(spec.resources, nodes=1))
        return Run(
            id=self.status.id,
            token=job.token,
            path=job.path,
            spec=spec,
            index=job.index,
            scheduler=self._connection.scheduler if self._connection and job.index else "",
            directory=spec.directory or self._user_home(),
            launcher="srun" if self._site.batch.kind == "slurm" else "exec",
        )

    def _user_home(self) -> str:
        return self._site.probe.user_home if self._site.probe else "/"

    # -- life --------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Watch the jobs and keep the link, until the end."""
        for job in self._record.jobs:
            if job.job_id:
                self._watch(job.index, job.job_id)
        self._following = asyncio.create_task(self._keep_link(), name=f"link of {self.status.id}")

    async def resume(self, ask: Ask) -> None:
        """Find the jobs of a cluster that an earlier agent left, and follow them."""
        await self._site.connect(ask)
        for job in self._record.jobs:
            if not job.job_id:  # submitted, perhaps, by an agent that died before it had the answer
                found = await self._site.batch.find(job.token)
                record_ = self._record.with_job(replace(job, job_id=found[0])) if found else None
                self._keep(record_ or self._record.without_job(job.index))
        if not self._record.jobs:
            self._set(reactor.on_error(self.status, SiteError("it was never submitted: the agent ended before")))
            self._ended.set()
            return
        self.follow()

    def _watch(self, index: int, job_id: str) -> None:
        self._site.watch(job_id, partial(self._on_job, index))

    def _on_job(self, index: int, job: JobStatus) -> None:
        if index == 0 and job.state is JobState.ENDED:
            self._later(self._finish(job))
            return
        explanation = explain_pending(job) if job.state is JobState.PENDING else ""
        self._set(reactor.on_job(self.status, job, leads=index == 0, explanation=explanation))
        if index and job.state is JobState.ENDED:
            self._keep(self._record.without_job(index))

    async def _keep_link(self) -> None:
        lead = self._record.jobs[0]
        authority = self._record.authority_certificate
        self._connection = Connection(
            self.status.id,
            lead.path,
            shell=self._site.shell,
            authority=authority,
            identity=self.identity(Role.AGENT),
            secret=bytes.fromhex(self._record.secret),
        )
        running = lambda: self.status.state is not State.QUEUED  # noqa: E731
        await self._connection.keep(on_link=self._on_link, on_event=self._on_event, running=running)

    def _on_link(self, route: str) -> None:
        if self.status.state is not State.ENDED:
            self._set(reactor.on_link(self.status, route))
            self._later(self._tell_attached())

    def _on_event(self, event: dict[str, Any]) -> None:
        if self.status.state is State.ENDED:
            return
        if event["event"] == "ended":
            self._site.hurry()
            if self.status.state is not State.DRAINING:
                self._set(reactor.on_draining(self.status))
            self._set(replace(self.status, detail=event["message"]))
        self._set(reactor.on_pilot(self.status, event))

    async def attached(self, clients: int) -> None:
        """Say how many clients use the cluster now."""
        self._clients = clients
        await self._tell_attached()

    async def _tell_attached(self) -> None:
        if self._connection:
            await self._connection.tell({"op": "attached", "clients": self._clients})

    async def scale(self, nodes: int) -> None:
        """Have this many nodes, by further batch jobs of one node each; the first job keeps its own.

        Raises
        ------
        HPCError
            The batch system refused; what was there before goes on.
        """
        extra = [job.index for job in self._record.jobs if job.index]
        wanted = max(0, nodes - self.status.spec.resources.nodes)
        while len(extra) < wanted:
            extra.append(max([0, *extra]) + 1)
            await self._submit(extra[-1])
        surplus = [job.job_id for job in self._record.jobs if job.index in extra[wanted:]]
        if surplus:
            await self._site.batch.cancel(surplus)
            self._site.hurry()

    # -- end ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the cluster: politely, then by the batch system; return when its jobs are gone."""
        if self.status.state is State.ENDED:
            return
        self._set(reactor.on_draining(self.status))
        if self._connection and await self._connection.tell({"op": "close"}):
            self._site.hurry()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), POLITE)
        if jobs := [job.job_id for job in self._record.jobs if job.job_id and not self._ended.is_set()]:
            await self._site.batch.cancel(jobs)
            self._site.hurry()
            await asyncio.wait_for(self._ended.wait(), 60)

    async def _finish(self, job: JobStatus) -> None:
        """The leading job is over: collect the evidence, end what hangs on it, forget the secrets."""
        ending = await self._evidence(job)
        if self._following:
            self._following.cancel()
        if self._connection:
            await self._connection.close()
        if rest := [j.job_id for j in self._record.jobs if j.index and j.job_id]:
            await self._site.batch.cancel(rest)
        for kept in self._record.jobs:
            with contextlib.suppress(OSError, SiteError):
                await bootstrap.forget_secrets(self._site.shell, self._run(kept), self._record.home)
        status = reactor.on_job(self.status, replace(job, ending=ending), leads=True)
        self._record = self._record.without_secrets()
        self._set(status)
        self._ended.set()

    async def _evidence(self, job: JobStatus) -> Ending:
        """What the batch system says of the end, completed by what the pilot wrote."""
        ending = job.ending or Ending(reason=Reason.FAILED, job_id=job.job_id)
        lead = self._record.jobs[0]
        with contextlib.suppress(OSError, SiteError):
            ending = replace(ending, tail=(await self.read_log("job.log", TAIL)).strip())
        with contextlib.suppress(OSError, SiteError, ValueError):
            said = Ending.from_json(json.loads(await self._site.shell.read(f"{lead.path}/ended.json")))
            if ending.reason in (Reason.FAILED, Reason.COMPLETED):
                ending = replace(ending, reason=said.reason, message=said.message, tail=said.tail or ending.tail)
        return ending

    async def read_log(self, name: str, most: int) -> str:
        """The last `most` bytes of a file of the run."""
        data = await self._site.shell.read(f"{self._record.jobs[0].path}/{name}", offset=-most)
        return data.decode("utf-8", "replace")

    async def log_names(self) -> list[str]:
        """The logs that exist: ``job.log`` and those of the processes."""
        listed = await self._site.shell.run(["ls", f"{self._record.jobs[0].path}/logs"])
        return ["job.log", *(f"logs/{name}" for name in listed.out.split())]

    async def connect(self, ask: Ask) -> None:
        """Make sure that the site can be asked, for a cluster that may have ended long ago."""
        await self._site.connect(ask)

    async def leave(self) -> None:
        """Stop following; the cluster goes on without us."""
        if self._following:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
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
            record.save(self._record)
        self._changed(status)

    def _keep(self, kept: ClusterRecord) -> None:
        self._record = kept
        record.save(kept)

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _request(run: Run) -> JobRequest:
    return JobRequest(
        token=run.token,
        name=run.spec.name,
        script=f"{run.path}/job.sh",
        directory=run.path,
        log=f"{run.path}/job.log",
        resources=run.spec.resources,
    )
