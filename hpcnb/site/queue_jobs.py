"""The jobs that drain a queue: what each is told, its script, its request, and which job comes after it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from hpcnb.model import ClusterSpec
from hpcnb.pilot.queue.pilot import QueueRun
from hpcnb.site import process
from hpcnb.site.batch import JobRequest
from hpcnb.site.bootstrap import code_path
from hpcnb.site.environment import Environment, Probe
from hpcnb.site.slurm import CLEAN
from hpcnb.site.slurm_request import sbatch_argv

_CLEAN = ("sh", "-c", CLEAN, "sh")
_RESTARTS, _SOON = 20, 2
"""How often a pilot that is killed within so many seconds is started again, before that is taken to be no accident."""
_SCRIPT = f"""\
trap : TERM INT
read -r begun rest </proc/uptime
export HPCNB_BEGUN="$begun"
tries=0
while :; do
    read -r before rest </proc/uptime
    (
%s
    )
    status=$?
    [ "$status" -gt 128 ] || exit "$status"
    read -r now rest </proc/uptime
    [ "$((${{now%%%%.*}} - ${{before%%%%.*}}))" -le {_SOON} ] || tries=0
    tries=$((tries + 1))
    echo "the pilot was killed by signal $((status - 128)), and begins again"
    [ "$tries" -lt {_RESTARTS} ] || exit "$status"
done
"""
"""A pilot that is killed alone begins again: what its job has left of its walltime is not given back for that."""

_CANCELLED = """\
for job; do
    for _ in $(seq 60); do
        case $(scontrol --oneliner show job "$job" 2>&1) in
            *" JobState=CANCELLED "*) echo cancelled && exit ;;
            *" JobState=COMPLETING "*) sleep 1 ;;
            *" JobState="* | *"Invalid job id"*) break ;;
            *) sleep 1 ;;
        esac
    done
done"""
"""Slurm lets a successor begin while the job before it is still being cleaned up, and says only later how that has ended; it may not answer, too."""


def queue_request(queue: str, token: str, spec: ClusterSpec) -> JobRequest:
    """What the batch system is asked for one job.

    Parameters
    ----------
    queue : str
        The queue's folder at the site.
    token : str
        32 hexadecimal digits.
    """
    path = f"{queue}/runs/{token}"
    return JobRequest(
        token=token,
        name=f"{spec.name[:54]}-{token[:8]}",  # of its own, since a successor waits for all of its name
        script=f"{path}/job.sh",
        directory=path,
        log=f"{path}/job.log",
        resources=spec.resources,
    )


def queue_run(
    queue: str, requests: Sequence[JobRequest], spec: ClusterSpec, found: Probe, batch: str, work: Mapping[str, str]
) -> QueueRun:
    """What one job is told.

    Parameters
    ----------
    requests : sequence of JobRequest
        Its own; and that of the job that it is to submit once it has begun, if there is one.
    found : Probe
        Of the site.
    batch : str
        ``slurm`` or ``process``.
    work : mapping
        `script` and `function` of a `QueueRun`.
    """
    commands = _slurm(requests) if batch == "slurm" else _process(found.home, requests)
    return QueueRun(
        queue=queue,
        path=requests[0].directory,
        workers=spec.workers_per_node or 1,
        walltime=spec.resources.walltime,
        directory=spec.directory or found.user_home,
        umask=found.umask if spec.umask is None else spec.umask,
        launcher="srun" if batch == "slurm" else "exec",
        script=work["script"],
        function=work["function"],
        **commands,
    )


def _slurm(requests: Sequence[JobRequest]) -> dict[str, list[str]]:
    words = sbatch_argv(requests[0])
    again = [*words[:-1], "--dependency=singleton", "--open-mode=append", words[-1]]
    return {
        "next": [word for request in requests[1:] for word in (*_CLEAN, *sbatch_argv(request))],
        "successor": [*_CLEAN, *again],
        "cancel": [*_CLEAN, "scancel", "--state=PENDING"],
        "cancelled": [*_CLEAN, "sh", "-c", _CANCELLED, "sh"],
    }


def _process(home: str, requests: Sequence[JobRequest]) -> dict[str, list[str]]:
    return {
        "next": [word for request in requests[1:] for word in process.submission(home, request)],
        "successor": process.submission(home, requests[0], "follow"),
        "cancel": process.command(home, "withdraw"),
    }


def queue_files(run: QueueRun, environment: Environment, zip_path: str) -> dict[str, str]:
    """The files of a job's folder."""
    lines = [
        environment.shebang,
        "umask 077",
        code_path(zip_path),
        "export PYTHONUNBUFFERED=1",
        _SCRIPT % environment.enter("-m", "hpcnb.pilot.queue", "pilot", run.path),
    ]
    return {"run.json": json.dumps(run.to_json(), indent=1), "job.sh": "\n".join(lines)}
