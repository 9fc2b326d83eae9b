"""One allocation of a cluster: what it is told, and its way into the batch system and out of it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection
from dataclasses import replace

from hpcnb.agent.record import ClusterRecord, JobRecord
from hpcnb.agent.sites import Site
from hpcnb.errors import SiteError
from hpcnb.pilot.run import Run
from hpcnb.site import bootstrap
from hpcnb.site.authority import Authority
from hpcnb.site.batch import BatchUnknown, JobRequest


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
        launcher="srun" if site.batch.kind == "slurm" else "exec",
    )


async def submit(site: Site, kept: ClusterRecord, run: Run) -> str:
    """Write the run directory, submit the job; return its id.

    Raises
    ------
    HPCError
        It was refused, or could not be written; or the batch system gave no answer, which the message says.
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
    request = JobRequest(
        token=run.token,
        name=run.spec.name,
        script=f"{run.path}/job.sh",
        directory=run.path,
        log=f"{run.path}/job.log",
        resources=run.spec.resources,
    )
    try:
        await bootstrap.write_run(site.shell, run, files, site=site.name)
        return await site.batch.submit(request)
    except BatchUnknown as exc:
        await _remove(site, run)
        raise SiteError(
            "the batch system gave no answer to the submission",
            where=f"site {site.name}",
            evidence=str(exc),
            remedy=f"Try again when it does. If a job with the comment {run.token} exists, it ends by itself.",
        ) from exc
    except Exception:
        await _remove(site, run)
        raise


async def _remove(site: Site, run: Run) -> None:
    """Leave no secret of a run that never was; without its directory a job that was queued unnoticed ends at once."""
    with contextlib.suppress(OSError, SiteError):
        await bootstrap.remove_run(site.shell, run.path)


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
