"""The jobs that drain a queue: what each is told, its script, its request, and how it has a successor. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from hpcnb.model import ClusterSpec
from hpcnb.pilot.queue.pilot import QueueRun
from hpcnb.site.batch import JobRequest
from hpcnb.site.environment import Environment, Probe
from hpcnb.site.slurm import CLEAN
from hpcnb.site.slurm_request import sbatch_argv


def queue_job(
    queue: str, token: str, spec: ClusterSpec, found: Probe, batch: str, work: Mapping[str, str]
) -> tuple[QueueRun, JobRequest]:
    """What one job is told, and what the batch system is asked.

    Parameters
    ----------
    queue : str
        The queue's folder at the site.
    token : str
        32 hexadecimal digits.
    found : Probe
        Of the site.
    batch : str
        ``slurm`` or ``process``.
    work : mapping
        `script` and `function` of a `QueueRun`.
    """
    path = f"{queue}/runs/{token}"
    request = JobRequest(
        token=token,
        name=f"{spec.name[:54]}-{token[:8]}",  # of its own, since a successor waits for all of its name
        script=f"{path}/job.sh",
        directory=path,
        log=f"{path}/job.log",
        resources=spec.resources,
    )
    successor, cancel = _succession(request) if batch == "slurm" else ([], [])
    run = QueueRun(
        queue=queue,
        path=path,
        workers=spec.workers_per_node or 1,
        walltime=spec.resources.walltime,
        directory=spec.directory or found.user_home,
        umask=found.umask if spec.umask is None else spec.umask,
        launcher="srun" if batch == "slurm" else "exec",
        successor=successor,
        cancel=cancel,
        **work,
    )
    return run, request


def _succession(request: JobRequest) -> tuple[list[str], list[str]]:
    """What submits the same job again, to begin when this one has ended, and what cancels it."""
    words = sbatch_argv(request)
    clean = ["sh", "-c", CLEAN, "sh"]
    again = [*words[:-1], "--dependency=singleton", "--open-mode=append", words[-1]]
    return [*clean, *again], [*clean, "scancel"]


def queue_files(run: QueueRun, environment: Environment, zip_path: str) -> dict[str, str]:
    """The files of a job's folder."""
    lines = [
        environment.shebang,
        "umask 077",
        code_path(zip_path),
        "export PYTHONUNBUFFERED=1",
        environment.enter("-m", "hpcnb.pilot.queue", "pilot", run.path),
    ]
    return {"run.json": json.dumps(run.to_json(), indent=1), "job.sh": "\n".join(lines) + "\n"}


def code_path(zip_path: str) -> str:
    """The shell line that lets a Python find our code."""
    return f'export PYTHONPATH={shlex.quote(zip_path)}"${{PYTHONPATH:+:$PYTHONPATH}}"'
