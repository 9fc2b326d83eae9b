"""Say in a sentence why a Slurm job waits, and what could be done. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hpcnb.model import JobStatus

_SOONER = "fewer nodes or a shorter walltime may start sooner"

_CAUSES: Mapping[str, str] = {
    "AccountNotAllowed": "its account may not use this partition; change the account or the partition",
    "BadConstraints": "no node has what its options ask for; change them",
    "BeginTime": "is not to start yet; a job that was put back into the queue waits for about two minutes",
    "BurstBufferResources": "waits for room in the burst buffer",
    "BurstBufferStageIn": "its data are being copied to the burst buffer",
    "Cleaning": "what its last attempt left is being cleared",
    "DependencyNeverSatisfied": "depends on a job that failed and will never start; cancel it",
    "Dependency": "waits for another job that it depends on",
    "InvalidAccount": "its account does not exist; change the account",
    "InvalidQOS": "its quality of service does not exist; change it",
    "JobArrayTaskLimit": "as many jobs of its array run as may",
    "JobHeldAdmin": "is held by the site's administrators; ask them",
    "JobHeldUser": "is held; `scontrol release` lets it go",
    "JobHoldMaxRequeue": "was put back into the queue too often and is held; cancel it",
    "Licenses": "waits for a licence that others use",
    "MaxJobs": "as many of your jobs run as may; it starts when one of them ends",
    "NodeDown": "a node that it needs is down",
    "Nodes required": f"the nodes that it needs are down or reserved; another partition may start sooner, or {_SOONER}",
    "PartitionConfig": "asks for more than the partition's nodes have and may never start; ask for less per node",
    "PartitionDown": "its partition starts no jobs now; choose another one, or wait for the site",
    "PartitionInactive": "its partition starts no jobs now; choose another one, or wait for the site",
    "PartitionNodeLimit": "asks for more nodes than its partition gives one job and will never start; ask for fewer",
    "PartitionTimeLimit": "its walltime is above its partition's limit and it will never start; ask for less",
    "Priority": f"jobs with a higher priority go first; {_SOONER}",
    "Prolog": "its nodes are being prepared",
    "QOSNotAllowed": "its quality of service may not be used there; change it or the partition",
    "ReqNodeNotAvail": "nodes that it needs are down or reserved, perhaps for maintenance; "
    "a walltime that ends before the maintenance may start now",
    "ReservationDeleted": "its reservation was deleted; cancel it and submit without",
    "Reservation": "waits for its reservation to begin",
    "Resources": f"waits for nodes to become free; {_SOONER}",
    "SystemFailure": "Slurm failed to start it; ask the site's administrators",
}
"""By the beginning of Slurm's word, which may go on with details; the longer of two comes first."""

_GOODS = (
    *(("Wall", "a shorter walltime"), ("Node", "fewer nodes"), ("GRES", "fewer GPUs"), ("Gres", "fewer GPUs")),
    *(("Mem", "less memory"), ("Cpu", "fewer cores"), ("CPU", "fewer cores"), ("Jobs", "fewer jobs")),
)


def explain_pending(job: JobStatus) -> str:
    """Return a sentence about a job that waits: its place, the cause, the remedy, and Slurm's own word.

    Examples
    --------
    >>> from hpcnb.model import JobState
    >>> explain_pending(JobStatus(job_id="7", state=JobState.PENDING, reason="Licenses", position=3))
    '3rd in its partition; waits for a licence that others use (Licenses)'
    """
    if not job.reason:
        return "waits for Slurm to look at it"
    place = f"{_ordinal(job.position)} in its partition; " if job.position else ""
    cause = next((text for word, text in _CAUSES.items() if job.reason.startswith(word)), "") or _limit(job.reason)
    word = job.reason if len(job.reason) <= 60 else f"{job.reason[:59]}…"
    return f"{place}{cause} ({word})" if cause else f"{place}Slurm says: {job.reason}"


def _limit(reason: str) -> str:
    """Explain the families ``QOSMaxNodePerUserLimit``, ``AssocGrpCPUMinutesLimit`` and their like."""
    owner = "its quality of service" if reason.startswith("QOS") else "its account" if "Assoc" in reason else ""
    if not owner:
        return ""
    if "Min" in reason.removeprefix("QOS")[:3]:
        return f"asks for less than {owner} wants a job to ask for; ask for more"
    less = next((advice for word, advice in _GOODS if word in reason), "less")
    if "PerJob" in reason:
        return f"asks for more than {owner} allows one job and will never start; ask for {less}"
    if "Minutes" in reason or "Threshold" in reason:
        return f"the computing time of {owner} is used up, or would be by this job; a shorter walltime may help"
    whose = "all jobs" if "Grp" in reason else "your jobs"
    return f"{whose} of {owner} together are at a limit; it may start when others end, or ask for {less}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
