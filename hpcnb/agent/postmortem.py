"""How a batch job or a worker died: one verdict, one sentence, one suggestion, from all that is known. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from signal import Signals
from typing import Any

from hpcnb.model import Ending, JobStatus, Reason, Resources
from hpcnb.units import format_duration, format_memory

SUGGESTIONS: Mapping[Reason, str] = {
    Reason.CANCELLED: "Start the cluster again, unless you meant it.",
    Reason.TIMEOUT: "Ask for a longer walltime (--walltime), or save intermediate results.",
    Reason.OUT_OF_MEMORY: "Ask for more memory (--memory-per-node), or use fewer workers per node.",
    Reason.NODE_FAIL: "Start the cluster again; the fault was the machine's.",
    Reason.PREEMPTED: "Start the cluster again, or use a partition whose jobs are not preempted.",
    Reason.FAILED: "The lines above are the end of the job's log; `%hpc logs` shows more.",
}
"""What to do where nothing better is known."""

SENTENCES: Mapping[Reason, str] = {
    Reason.CANCELLED: "the batch job was cancelled",
    Reason.TIMEOUT: "the walltime of the batch job ran out",
    Reason.OUT_OF_MEMORY: "the batch job used more memory than it had asked for",
    Reason.NODE_FAIL: "a node of the batch job failed",
    Reason.PREEMPTED: "the batch job had to make room for a more important one",
}

REQUEUED = "the batch job was put back into the queue; what it ran is lost"

_DUE: Mapping[str, tuple[Reason, str]] = {
    "TIME LIMIT": (Reason.TIMEOUT, SENTENCES[Reason.TIMEOUT]),
    "PREEMPTION": (Reason.PREEMPTED, SENTENCES[Reason.PREEMPTED]),
    "NODE FAILURE": (Reason.NODE_FAIL, SENTENCES[Reason.NODE_FAIL]),
    "JOB REQUEUE": (Reason.CANCELLED, REQUEUED),
}

# Only Slurm's own lines count: what a user's program prints is no evidence.
_SLURM_SAYS = r"^(?:slurmstepd(?:-\S+)?|srun): error: "
_CANCELLED = re.compile(
    _SLURM_SAYS + r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ DUE TO ([A-Z ]+?)(?:,.*| \*\*\*.*)?$", re.MULTILINE
)
_EXCEEDED = re.compile(_SLURM_SAYS + r".*exceeded (?:job )?memory limit \(([0-9]+) > ([0-9]+)\)", re.MULTILINE)
_NO_MEMORY = re.compile(
    _SLURM_SAYS + r".*(?:oom[-_]kill|Exceeded (?:job|step) memory limit|out-of-memory handler)", re.MULTILINE
)

_CLAIMED = re.compile(r"/claim\b.*: File exists$", re.MULTILINE)
"""What the job's script says when the job starts a second time (`hpcnb.site.bootstrap.job_script`)."""

ROOM = 1.2
"""How much more than the peak is suggested: there may have been more to come."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most memory that the processes of a node had, in bytes, and what they might have.

    Parameters
    ----------
    used, limit : int
    node : str
    largest : str
        Whose processes had most of it.
    """

    used: int
    limit: int
    node: str = ""
    largest: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a job that is over; any of it may be missing.

    Parameters
    ----------
    told : Ending
        By the batch system.
    resources : Resources
        What was asked for.
    said : Ending or None
        By the pilot, when it had the time.
    log : str
        The end of the job's log.
    peaks : tuple of Peak
        Of the nodes, as their supervisors measured them.
    canceller : str
        Who cancelled it, where the batch system keeps account.
    """

    told: Ending
    resources: Resources
    said: Ending | None = None
    log: str = ""
    peaks: tuple[Peak, ...] = ()
    canceller: str = ""


def verdict(evidence: Evidence) -> Ending:
    """How the job ended."""
    ending = _cause(evidence)
    peak = _peak(evidence)
    if ending.reason is Reason.OUT_OF_MEMORY or (ending.signal == Signals.SIGKILL and peak):
        return _out_of_memory(ending, peak)
    if ending.reason is Reason.CANCELLED and ending.message != REQUEUED:
        ending = _cancelled(ending, evidence.canceller)
    return replace(ending, suggestion=_suggestion(ending, evidence))


def _cause(evidence: Evidence) -> Ending:
    told, said = replace(evidence.told, tail=evidence.log.strip()), evidence.said
    vague = told.reason in (Reason.FAILED, Reason.COMPLETED)
    due = _CANCELLED.findall(evidence.log)
    if due and due[-1] in _DUE and (vague or told.reason is Reason.CANCELLED):
        reason, message = _DUE[due[-1]]
        return replace(told, reason=reason, message=message)
    if told.reason is Reason.COMPLETED and _CLAIMED.search(evidence.log):
        return replace(told, reason=Reason.CANCELLED, message=REQUEUED)
    if told.reason is Reason.FAILED and _NO_MEMORY.search(evidence.log):
        return replace(told, reason=Reason.OUT_OF_MEMORY, message=SENTENCES[Reason.OUT_OF_MEMORY])
    if vague and said:
        return replace(told, reason=said.reason, message=said.message, tail=said.tail or told.tail)
    return replace(told, message=told.message or SENTENCES.get(told.reason, _failure(told)))


def _failure(ending: Ending) -> str:
    if ending.signal:
        return f"the batch job was killed by signal {ending.signal}"
    if ending.exit_code is not None:
        return f"the batch job ended with exit status {ending.exit_code}"
    return "the batch job failed"


def _peak(evidence: Evidence) -> Peak | None:
    """Of the node that was nearest to its limit, or above it."""
    peaks = [peak for peak in evidence.peaks if peak.limit > 0 and peak.used > 0.9 * peak.limit]
    if found := _EXCEEDED.findall(evidence.log):
        used, limit = max((int(used), int(limit)) for used, limit in found)
        largest = next((peak.largest for peak in peaks), "")
        peaks = [Peak(used=used, limit=limit, node=evidence.told.node, largest=largest)] if limit else peaks
    return max(peaks, key=lambda peak: peak.used / peak.limit, default=None)


def _out_of_memory(ending: Ending, peak: Peak | None) -> Ending:
    if peak is None:
        return replace(ending, suggestion=SUGGESTIONS[Reason.OUT_OF_MEMORY])
    where = f" on {peak.node}" if peak.node else ""
    whose = "the kernels of cells" if peak.largest == "sessions" else peak.largest
    largest = f", most of it by {whose}" if whose else ""
    message = f"{ending.message}: {_of(peak.used, peak.limit)}{where}{largest}"
    return replace(ending, message=message, node=ending.node or peak.node, suggestion=more_memory(peak))


def more_memory(peak: Peak) -> str:
    """How much to ask for after a peak.

    Examples
    --------
    >>> more_memory(Peak(used=int(9.8 * 2**30), limit=8 * 2**30))
    'Ask for 12 GiB (--memory-per-node 12GiB): the peak was 9.8 of 8 GiB.'
    """
    return _ask(peak, "memory-per-node")


def _ask(peak: Peak, option: str) -> str:
    # What was stopped at its limit wanted more than that, nobody knows how much.
    wanted = max(ROOM * peak.used, 1.5 * peak.limit)
    unit = 2**30 if wanted >= 2**30 else 2**20
    asked = format_memory(math.ceil(wanted / unit) * unit)
    return f"Ask for {asked} (--{option} {asked.replace(' ', '')}): the peak was {_of(peak.used, peak.limit)}."


def _of(used: int, limit: int) -> str:
    """``9.8 of 8 GiB``."""
    one, other = format_memory(used), format_memory(limit)
    number, _, unit = one.partition(" ")
    return f"{number if other.endswith(f' {unit}') else one} of {other}"


def _cancelled(ending: Ending, by: str) -> Ending:
    if by:
        return replace(ending, message=f"{SENTENCES[Reason.CANCELLED]} by {by}")
    if ending.message == SENTENCES[Reason.CANCELLED]:
        return replace(ending, message=f"{ending.message}, by hand or by the site: by whom is not recorded")
    return ending


def _suggestion(ending: Ending, evidence: Evidence) -> str:
    if ending.reason is Reason.COMPLETED:
        return ""
    if ending.reason is Reason.TIMEOUT:
        longer = format_duration(2 * evidence.resources.walltime)
        return f"Ask for a longer walltime (--walltime {longer}), or save intermediate results."
    if ending.reason is Reason.NODE_FAIL and ending.node:
        return f"Start the cluster again; --option=--exclude={ending.node} keeps it away from that node."
    if ending.message == REQUEUED:
        return "Start the cluster again."
    return SUGGESTIONS[ending.reason]


def of_worker(event: Mapping[str, Any], jobs: Sequence[JobStatus]) -> Ending:
    """How a worker ended, from what its node's supervisor said.

    Parameters
    ----------
    event : mapping
        A ``worker-exit``: ``worker`` (index, node, number), ``how``, ``tail``, ``code`` (None: not known), perhaps
        ``memory``: used, limit, and whose it is (``worker``, ``node``).
    jobs : list of JobStatus
        The cluster's, the leading one first.
    """
    name, code = str(event["worker"]), event.get("code", 0)
    node = name.removeprefix("worker-").partition("-")[2].rpartition("-")[0]
    ours = jobs[:1] if name.startswith("worker-0-") else jobs[1:]
    there = [job.job_id for job in ours if node in job.nodes] or [job.job_id for job in jobs]
    ending = Ending(
        reason=Reason.COMPLETED if code == 0 else Reason.FAILED,
        job_id=there[0] if there else "",
        node=node,
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        message=f"{name} {event['how']}; it was started again",
        tail=str(event.get("tail", "")),
        suggestion=f"`%hpc logs {name}` shows what it has written." if code else "",
    )
    if not event.get("memory"):
        return ending
    used, limit, whose = event["memory"]
    suggestion = _ask(Peak(used=used, limit=limit), f"memory-per-{whose}")
    return replace(ending, reason=Reason.OUT_OF_MEMORY, suggestion=suggestion)
