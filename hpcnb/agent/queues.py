"""What the agent does for a site's queues: ask there, and submit the jobs that drain one."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcnb.agent.sites import Site
from hpcnb.errors import SiteError
from hpcnb.model import ClusterSpec
from hpcnb.site.batch import BatchUnknown
from hpcnb.site.queue_jobs import code_path, queue_files, queue_job
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


async def launch(
    site: Site, spec: ClusterSpec, queue: str, tokens: Sequence[str], work: dict[str, str], asker: Ask
) -> list[str]:
    """Submit a job for each token; return their ids. Asking again with the same tokens submits none twice.

    Raises
    ------
    HPCError
        One was refused, and why; how many were submitted before is said.
    """
    found = await site.open(spec, asker)
    jobs: list[str] = []
    for token in tokens:
        run, request = queue_job(queue, token, spec, found, site.batch.kind, work)
        try:
            if token in await _there(site, queue):
                jobs += await site.batch.find(token)
                continue
            await site.shell.mkdir(run.path)
            for name, text in queue_files(run, site.environment(spec), site.zip_path).items():
                await site.shell.write(f"{run.path}/{name}", text.encode())
            jobs.append(await site.batch.submit(request))
        except BatchUnknown as exc:
            raise SiteError(
                f"the batch system has not said whether it has job {len(jobs) + 1} of {len(tokens)}",
                where=f"site {site.name}",
                evidence=str(exc),
                remedy=f"Look for {request.name}; if it is there, it drains the queue.",
            ) from exc
        except OSError as exc:
            raise SiteError(f"cannot write {run.path}", where=f"site {site.name}", evidence=str(exc)) from exc
    return jobs


async def _there(site: Site, queue: str) -> list[str]:
    try:
        return await site.shell.list(f"{queue}/runs")
    except FileNotFoundError:
        return []
