"""What the agent does for a site's queues: ask there, and submit the jobs that drain one."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcnb.agent.sites import Site
from hpcnb.errors import SiteError, SubmissionRejected
from hpcnb.model import ClusterSpec, JobState
from hpcnb.site.batch import BatchUnknown
from hpcnb.site.bootstrap import code_path
from hpcnb.site.queue_jobs import queue_files, queue_request, queue_run
from hpcnb.site.shell import Ask

PATIENCE = 600.0
"""Seconds for a request: a million tasks have a long way."""


async def ask(site: Site, spec: ClusterSpec, request: str, asker: Ask) -> dict[str, Any]:
    """Have a request, which lies in a file here, carried out at the site (see `hpcnb.pilot.queue.desk`).

    Raises
    ------
    SiteError
        The site cannot be reached, or gave no answer.
    """
    data = await asyncio.to_thread(Path(request).read_bytes)
    found = await site.open(spec, asker)
    environment, mark = site.environment(spec), f"<<<{secrets.token_hex(16)}>>>"
    lines = [code_path(site.zip_path), environment.enter("-m", "hpcnb.pilot.queue.desk", found.home, mark)]
    try:
        done = await site.shell.run(environment.argv("\n".join(lines)), stdin=data, timeout=PATIENCE)
    except OSError as exc:
        raise SiteError("the site's queues gave no answer", where=f"site {site.name}", evidence=str(exc)) from exc
    words = done.out.split(mark)
    if len(words) < 3:
        evidence = (done.err or done.out).strip()[-2000:]
        raise SiteError("the site's queues gave no answer", where=f"site {site.name}", evidence=evidence)
    answer: dict[str, Any] = json.loads(words[-2])
    return answer


async def room(site: Site, spec: ClusterSpec, asker: Ask) -> tuple[int | None, int | None]:
    """Cores of a node, and nodes at most, of such a job; None: it is not known."""
    await site.open(spec, asker)
    try:
        return await site.batch.room(spec.resources)
    except BatchUnknown as exc:
        raise _unanswered(site, exc) from exc


async def soonest(
    site: Site, specs: Sequence[ClusterSpec], queue: str, token: str, asker: Ask
) -> list[tuple[float | None, str]]:
    """When the batch system would start such a job of each shape (POSIX time), or what it says against it."""
    found: list[tuple[float | None, str]] = []
    for spec in specs:
        await site.open(spec, asker)
        try:
            found.append((await site.batch.starts(queue_request(queue, token, spec)), ""))
        except SubmissionRejected as exc:
            found.append((None, exc.what))
        except BatchUnknown as exc:
            raise _unanswered(site, exc) from exc
    return found


def _unanswered(site: Site, exc: BatchUnknown) -> SiteError:
    return SiteError("the batch system gave no answer", where=f"site {site.name}", evidence=str(exc))


async def launch(
    site: Site,
    spec: ClusterSpec,
    queue: str,
    tokens: Sequence[str],
    work: dict[str, str],
    asker: Ask,
    *,
    queued: int,
) -> list[str]:
    """Submit a job for each token, but at most `queued` of them (0: all); each of those submits one of the others once it has begun.

    Returns the ids of those that were submitted. Asking again with the same tokens submits none twice.

    Raises
    ------
    HPCError
        One was refused, and why; how many were submitted before is said.
    """
    found = await site.open(spec, asker)
    requests = [queue_request(queue, token, spec) for token in tokens]
    step = queued or len(requests)
    there = await _there(site, queue)
    jobs: list[str] = []
    try:
        for index in reversed(range(len(requests))):  # what is submitted finds the next one ready
            run = queue_run(queue, requests[index::step][:2], spec, found, site.batch.kind, work)
            await site.shell.mkdir(run.path)
            for name, text in queue_files(run, site.environment(spec), site.zip_path).items():
                await site.shell.write(f"{run.path}/{name}", text.encode())
        for request in requests[:step]:
            known = await site.batch.find(request.token) if request.token in there else []
            jobs += known or [await site.batch.submit(request)]
    except BatchUnknown as exc:
        raise SiteError(
            f"the batch system has not said whether it has job {len(jobs) + 1} of {step}",
            where=f"site {site.name}",
            evidence=str(exc),
            remedy=f"Look for {request.name}; if it is there, it drains the queue.",
        ) from exc
    except OSError as exc:
        raise SiteError(f"cannot write {queue}/runs", where=f"site {site.name}", evidence=str(exc)) from exc
    return jobs


async def alive(site: Site, spec: ClusterSpec, token: str, asker: Ask) -> list[str]:
    """The ids of the jobs with this token, and those that came after one, that wait or run.

    Raises
    ------
    SiteError
        The batch system could not be asked.
    """
    await site.open(spec, asker)
    try:
        jobs = await site.batch.find(token)
        known = await site.batch.list(jobs)
    except BatchUnknown as exc:
        what = "the batch system has not said which jobs it has"
        raise SiteError(what, where=f"site {site.name}", evidence=str(exc)) from exc
    return [job for job in jobs if job not in known or known[job].state is not JobState.ENDED]


async def _there(site: Site, queue: str) -> list[str]:
    try:
        return await site.shell.list(f"{queue}/runs")
    except FileNotFoundError:
        return []
