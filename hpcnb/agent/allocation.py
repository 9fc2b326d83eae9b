"""One allocation of a cluster: what it is told, and its way into the batch system and out of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from hpcnb.agent.record import ClusterRecord, JobRecord
from hpcnb.agent.sites import Site
from hpcnb.errors import SiteError
from hpcnb.model import ClusterSpec
from hpcnb.pilot.run import Run
from hpcnb.site import bootstrap
from hpcnb.site.authority import Authority
from hpcnb.site.batch import BatchUnknown, JobRequest

log = logging.getLogger(__name__)

LOOKS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further look for a job that may exist; the last one repeats."""
DENIALS = 2
"""Answers that there is none after which there is none: the first one can come too early."""


def new_job(kept: ClusterRecord, index: int) -> JobRecord:
    """The record of an allocation that is about to be submitted."""
    path = f"{kept.home}/runs/{kept.status.id}"
    return JobRecord(index=index, token=secrets.token_hex(16), path=f"{path}-{index}" if index else path)


def run_of(kept: ClusterRecord, job: JobRecord, site: Site, *, scheduler: str) -> Run:
    """What an allocation is told; `scheduler` is the address that one that adds nodes joins."""
    spec = kept.status.spec
    if job.index:  # an allocation that only adds nodes adds them one by one
        spec = replace(spec, resources=replace(spec.resources, nodes=1))
    return Run(
        id=kept.status.id,
        token=job.token,
        path=job.path,
        spec=spec,
        index=job.index,
        scheduler=scheduler if job.index else "",
        directory=spec.directory or kept.user_home,
        umask=kept.umask if spec.umask is None else spec.umask,
        software=site.config.software,
        features=site.config.features,
        cache=site.config.cache_limit,
        launcher="srun" if site.batch.kind == "slurm" else "exec",
    )


def request_of(spec: ClusterSpec, *, token: str, path: str) -> JobRequest:
    """What the batch system is asked for one allocation; `path` is its run directory."""
    return JobRequest(
        token=token,
        name=spec.name,
        script=f"{path}/job.sh",
        directory=path,
        log=f"{path}/job.log",
        resources=spec.resources,
    )


async def submit(
    site: Site,
    kept: ClusterRecord,
    run: Run,
    *,
    say: Callable[[str], None],
    patiently: Callable[[Awaitable[str]], Awaitable[str]],
) -> str:
    """Write the run directory, submit the job; return its id.

    Parameters
    ----------
    say : callable
        Told what is waited for.
    patiently : callable
        Awaits what takes for as long as the batch system gives no answer; may give it up by an `HPCError`.

    Raises
    ------
    HPCError
        It was refused, could not be written, or given up; nothing is left of it.
    """
    authority = Authority(kept.authority_certificate, kept.authority_key)
    files = bootstrap.run_files(
        run,
        site.environment(run.spec),
        zip_path=kept.zip_path,
        authority=authority,
        secret=kept.secret,
        scratch=site.config.scratch,
    )
    request = request_of(run.spec, token=run.token, path=run.path)
    try:
        await bootstrap.write_run(site.shell, run, files, site=site.name)
        try:
            return await site.batch.submit(request)
        except BatchUnknown as exc:
            say("the batch system has not said whether it has the job; it is asked again")
            return await patiently(_find_again(site, run, exc))
    except Exception:
        await _remove(site, run.path)
        raise


async def _find_again(site: Site, run: Run, why: BatchUnknown) -> str:
    """Look for the job of a submission that got no answer, for as long as it takes; return its id.

    Nothing is submitted again: that could make two jobs of one.
    """
    denials = 0
    for attempt in itertools.count():
        await asyncio.sleep(LOOKS[min(attempt, len(LOOKS) - 1)])
        try:
            found = await site.batch.find(run.token)
        except BatchUnknown as exc:
            log.info("site %s: whether the job %s exists is not known: %s", site.name, run.token, exc)
            continue
        if found:
            return found[0]
        denials += 1
        if denials == DENIALS:
            break
    raise SiteError(
        "the batch system gave no answer to the submission, and has no job of it",
        where=f"site {site.name}",
        evidence=str(why),
        remedy=f"Try again. If a job with the comment {run.token} appears nevertheless, it ends by itself.",
    )


async def find(site: Site, job: JobRecord) -> str:
    """The id of a job that an agent may have submitted in the moment of its end; empty, and nothing is left of it: there is none.

    Raises
    ------
    BatchUnknown
        There was no answer; nothing has changed.
    """
    for pause in LOOKS[:DENIALS]:
        await asyncio.sleep(pause)
        if found := await site.batch.find(job.token):
            return found[0]
    await _remove(site, job.path)
    return ""


async def _remove(site: Site, path: str) -> None:
    """Leave no secret of a run that never was; without its directory a job that was queued unnoticed ends at once."""
    with contextlib.suppress(OSError, SiteError):
        await bootstrap.remove_run(site.shell, path)


async def cancel(site: Site, jobs: Collection[str]) -> None:
    """Cancel jobs.

    Raises
    ------
    SiteError
        The batch system gave no answer.
    """
    try:
        await site.batch.cancel(jobs)
    except BatchUnknown as exc:
        raise SiteError("jobs cannot be cancelled now", where=f"site {site.name}", evidence=str(exc)) from exc
    site.hurry()
