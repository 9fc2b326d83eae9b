"""Submit the jobs that drain a queue: each a pilot that needs nobody once it is submitted."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

from hpcnb import handle
from hpcnb.config import SiteConfig
from hpcnb.errors import CannotSerialize
from hpcnb.model import ClusterSpec
from hpcnb.pilot.queue.pilot import QueueRun
from hpcnb.pilot.queue.place import Place, refused
from hpcnb.queue.drain import certify
from hpcnb.site import bootstrap
from hpcnb.site.batch import Batch, JobRequest
from hpcnb.site.environment import Environment, judge, probe, versions
from hpcnb.site.local import LocalShell
from hpcnb.site.process import Process
from hpcnb.site.slurm import CLEAN, Slurm
from hpcnb.site.slurm_request import sbatch_argv


def launch(
    place: Place,
    site: SiteConfig,
    jobs: int,
    workers: int,
    *,
    call: Callable[[Any], Any] | None,
    script: str,
    wishes: dict[str, Any],
) -> list[str]:
    """Submit so many jobs of so many workers on each node; return their ids."""
    spec = handle.spec_for(site.name, name=f"queue-{place.name}"[:60], **wishes)
    certify(place)
    function = _kept(place, call) if call else ""
    return list(handle.run(_submit(place, site, spec, [(workers, script, function)] * jobs)))


def _kept(place: Place, call: Callable[[Any], Any]) -> str:
    """Leave a function where the workers find it."""
    try:
        data = cloudpickle.dumps(call)
    except Exception as exc:  # whatever it refers to may refuse, in its own way
        raise CannotSerialize(
            f"{call!r} cannot be sent to the workers", evidence=f"{type(exc).__name__}: {exc}"
        ) from exc
    folder = place / "functions"
    path = folder / f"{secrets.token_hex(8)}.pkl"
    with refused(path):
        folder.mkdir(mode=0o700, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    return str(path)


async def _submit(place: Place, site: SiteConfig, spec: ClusterSpec, jobs: list[tuple[int, str, str]]) -> list[str]:
    shell = LocalShell()
    try:
        environment = Environment(python=site.python, setup=site.setup)
        found = await probe(shell, environment, site=site.name, home=site.home)
        judge(found, versions(), site=site.name)
        zip_path = await bootstrap.ship_code(shell, found.home, site=site.name)
        batch: Batch = Slurm(shell, site.name) if site.batch == "slurm" else Process(shell, site.name, home=site.home)
        ids: list[str] = []
        for index, (workers, script, function) in enumerate(jobs):
            run, request = _run(place, spec, batch.kind, index, workers=workers, script=script, function=function)
            _write(run, _job_script(run, environment, zip_path))
            try:
                ids.append(await batch.submit(request))
            except Exception as exc:
                if ids:
                    exc.add_note(f"{len(ids)} of {len(jobs)} jobs were submitted before: {', '.join(ids)}")
                raise
        return ids
    finally:
        await shell.close()


def _run(place: Place, spec: ClusterSpec, batch: str, index: int, **task: Any) -> tuple[QueueRun, JobRequest]:
    token = secrets.token_hex(16)
    path = str(place / "runs" / token)
    request = JobRequest(
        token=token,
        name=f"{spec.name}-{token[:3]}{index}"[:64],  # of its own, since a successor waits for all of its name
        script=f"{path}/job.sh",
        directory=path,
        log=f"{path}/job.log",
        resources=spec.resources,
    )
    successor, cancel = _succession(request) if batch == "slurm" else ([], [])
    run = QueueRun(
        queue=str(place.path),
        path=path,
        walltime=spec.resources.walltime,
        directory=spec.directory,
        umask=0o077 if spec.umask is None else spec.umask,
        launcher="srun" if batch == "slurm" else "exec",
        successor=successor,
        cancel=cancel,
        **task,
    )
    return run, request


def _succession(request: JobRequest) -> tuple[list[str], list[str]]:
    """What submits the same job again, to begin when this one has ended, and what cancels it."""
    words = sbatch_argv(request)
    clean = ["sh", "-c", CLEAN, "sh"]
    again = [*words[:-1], "--dependency=singleton", "--open-mode=append", words[-1]]
    return [*clean, *again], [*clean, "scancel"]


def _job_script(run: QueueRun, environment: Environment, zip_path: str) -> str:
    lines = [
        environment.shebang,
        "umask 077",
        f'export PYTHONPATH={shlex.quote(zip_path)}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        "export PYTHONUNBUFFERED=1",
        environment.enter("-m", "hpcnb.pilot.queue", "pilot", run.path),
    ]
    return "\n".join(lines) + "\n"


def _write(run: QueueRun, script: str) -> None:
    folder = Path(run.path)
    with refused(folder):
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        for name, text in (("run.json", json.dumps(run.to_json(), indent=1)), ("job.sh", script)):
            with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(text)
