"""Say in a sentence why a Slurm job waits, and what could be done. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpcnb.model import JobStatus

_SOONER = "fewer nodes or a shorter walltime may start sooner"
_ALREADY = "and was put back into the queue"

_CAUSES: Mapping[str, str] = {
    "AccountNotAllowed": "its account may not use this partition; change the account or the partition",
    "AccountingPolicy": "a limit of its account or quality of service is reached; Slurm does not say which",
    "AssociationJobLimit": "as many jobs of its account run as may; it starts when one of them ends",
    "AssociationResourceLimit": "its account is at a limit; it may start when other jobs end, or ask for less",
    "AssociationTimeLimit": "the computing time of its account is used up, or would be by this job",
    "BadConstraints": "no node has what it asks for and it will never start; change its options",
    "BeginTime": "is not to start yet; a job that was put back into the queue waits for about two minutes",
    "BurstBufferOperation": "the burst buffer failed to prepare it; ask the site's administrators",
    "BurstBufferResources": "waits for room in the burst buffer",
    "BurstBufferStageIn": "its data are being copied to the burst buffer",
    "Cleaning": "what its last attempt left is being cleared",
    "Constraints": "no node has what its options ask for now; change them, or wait",
    "DeadLine": "cannot end before its deadline any more and will never start; cancel it",
    "DependencyNeverSatisfied": "depends on a job that failed and will never start; cancel it",
    "Dependency": "waits for another job that it depends on",
    "FedJobLock": "waits until the clusters of the federation have agreed which of them runs it",
    "FrontEndDown": "the machine that starts jobs is down; wait for the site",
    "InactiveLimit": f"was inactive for too long {_ALREADY}",
    "InvalidAccount": "its account does not exist; change the account",
    "InvalidQOS": "its quality of service does not exist; change it",
    "JobArrayTaskLimit": "as many jobs of its array run as may",
    "JobHeldAdmin": "is held by the site's administrators; ask them",
    "JobHeldUser": "is held; `scontrol release` lets it go",
    "JobHoldMaxRequeue": "was put back into the queue too often and is held; cancel it",
    "JobLaunchFailure": f"could not be started {_ALREADY}; the job's log may say why",
    "Licenses": "waits for a licence that others use",
    "MaxMemPerLimit": "asks for more memory than one core or node may have here; ask for less memory or more cores",
    "NodeDown": "a node that it needs is down",
    "Nodes required": f"the nodes that it needs are down or reserved; another partition may start sooner, or {_SOONER}",
    "NonZeroExitCode": f"its last attempt failed {_ALREADY}; the job's log may say why",
    "OutOfMemory": f"its last attempt used more memory than it had asked for {_ALREADY}; ask for more",
    "PartitionConfig": "asks for more than the partition's nodes have and may never start; ask for less per node",
    "PartitionDown": "its partition starts no jobs now; choose another one, or wait for the site",
    "PartitionInactive": "its partition starts no jobs now; choose another one, or wait for the site",
    "PartitionNodeLimit": "asks for more nodes than its partition gives one job and will never start; ask for fewer",
    "PartitionTimeLimit": "its walltime is above its partition's limit and it will never start; ask for less",
    "PowerNotAvail": "waits until there is enough electric power",
    "PowerReserved": "waits for electric power that others have reserved",
    "Priority": f"jobs with a higher priority go first; {_SOONER}",
    "Prolog": "its nodes are being prepared",
    "QOSJobLimit": "as many jobs of its quality of service run as may; it starts when one of them ends",
    "QOSNotAllowed": "its quality of service may not be used there; change it or the partition",
    "QOSResourceLimit": "its quality of service is at a limit; it may start when other jobs end, or ask for less",
    "QOSTimeLimit": "the computing time of its quality of service is used up, or would be by this job",
    "QOSUsageThreshold": "its account has used too much for its quality of service; change it, or wait",
    "RaisedSignal": f"its last attempt was killed by a signal {_ALREADY}; the job's log may say why",
    "ReqNodeNotAvail": "nodes that it needs are down or reserved, perhaps for maintenance; "
    "a walltime that ends before the maintenance may start now",
    "ReservationDeleted": "its reservation was deleted; cancel it and submit without",
    "ReservationInvalid": "its reservation cannot be used any more; cancel it and submit without",
    "Reservation": "waits for its reservation to begin",
    "Resources": f"waits for nodes to become free; {_SOONER}",
    "SchedDefer": "wants to start at once, which this site does not do; it waits for its turn",
    "SystemFailure": "Slurm failed to start it; ask the site's administrators",
    "TimeLimit": f"its last attempt ran into its walltime {_ALREADY}; ask for a longer one",
    "job requeued in held state": "was put back into the queue and is held; `scontrol release` lets it go",
    "launch failed requeued held": "could not be started and is held; ask the site's administrators",
    "user env retrieval failed requeued held": "your environment could not be read there and it is held; "
    "`scontrol release` lets it try again",
}
"""By the beginning of Slurm's word, which may go on with details; the longer of two comes first."""

_LIMIT = re.compile(
    "(?P<owner>Assoc|QOS)?(?P<kind>Grp|Max|Min)(?P<waiting>Submit)?"
    "(?P<good>WallDuration|Wall|Nodes?|GRES|Memory|Mem|Cpu|CPU|Jobs?|BB|Billing|Energy|License|Unknown)(?:NotSatisfied)?"
    "(?P<running>Run)?(?P<time>Minutes)?(?:Per(?P<each>Job|Node|User|Account))?(?:Limit)?"
)
"""The families ``QOSMaxNodePerUserLimit``, ``AssocGrpCPUMinutesLimit``, ``MaxGRESPerAccount`` and their like."""

_LESS: Mapping[str, str] = {
    **dict.fromkeys(("Wall", "WallDuration"), "a shorter walltime"),
    **dict.fromkeys(("Node", "Nodes"), "fewer nodes"),
    **dict.fromkeys(("Mem", "Memory"), "less memory"),
    **dict.fromkeys(("Cpu", "CPU"), "fewer cores"),
    "GRES": "fewer GPUs",
    "License": "fewer licences",
    "BB": "less of the burst buffer",
}


def explain_pending(job: JobStatus) -> str:
    """Return a sentence about a job that waits: who is ahead, the cause, the remedy, and Slurm's own word.

    Examples
    --------
    >>> from hpcnb.model import JobState
    >>> job = JobStatus(job_id="7", state=JobState.PENDING, reason="Licenses", partition="debug", position=13, smaller=3)
    >>> explain_pending(job)
    '12 ahead in debug, 3 of them smaller; waits for a licence that others use (Licenses)'
    """
    return "; ".join(filter(None, [place(job), cause(job.reason)]))


def place(job: JobStatus) -> str:
    """Who is ahead in the queue, or that the site does not show it; empty if it is not known."""
    where = f" in {' or '.join(job.partition.split(','))}" if job.partition else ""
    if job.hidden:
        return "the site hides other users' jobs, so its place in the queue is not known"
    if job.position is None:
        return ""
    if job.position == 1:
        return f"next{where}"
    fewer = job.smaller
    size = (
        "" if not fewer else ", all of them smaller" if fewer == job.position - 1 > 1 else f", {fewer} of them smaller"
    )
    return f"{job.position - 1:,} ahead{where}{size}"


def cause(reason: str) -> str:
    """What a reason of Slurm's means; one that we do not know is given as it is."""
    if not reason:
        return "waits for Slurm to look at it"
    said = next((text for word, text in _CAUSES.items() if reason.startswith(word)), "") or _limit(reason)
    word = reason if len(reason) <= 60 else f"{reason[:59]}…"
    return f"{said} ({word})" if said else f"Slurm says: {reason}"


def _limit(reason: str) -> str:
    found = _LIMIT.fullmatch(reason)
    if not found:
        return ""
    # The limits of a quality of service for each account have no name before them.
    owner = "its account" if found["owner"] == "Assoc" else "its quality of service"
    less = _LESS.get(found["good"], "less")
    if found["kind"] == "Min":
        return f"asks for less than {owner} wants a job to ask for; ask for more"
    if found["time"]:
        return _time(found, owner, less)
    if found["each"] in ("Job", "Node") or found["good"] == "WallDuration":
        each = "node" if found["each"] == "Node" else "job"
        return f"asks for more than {owner} allows one {each} and will never start; ask for {less}"
    whose = (
        "all jobs" if found["kind"] == "Grp" else "your account's jobs" if found["each"] == "Account" else "your jobs"
    )
    if found["good"].startswith("Job"):
        which = "jobs" if found["kind"] == "Grp" else f"of {whose}"
        do = "run or wait" if found["waiting"] else "run"
        return f"as many {which} with {owner} {do} as may; it starts when one of them ends"
    return f"{whose} with {owner} together are at a limit; it may start when others end, or ask for {less}"


def _time(found: re.Match[str], owner: str, less: str) -> str:
    shorter = "a shorter walltime" if less in ("less", "a shorter walltime") else f"{less} or a shorter walltime"
    if found["each"] == "Job":
        return f"asks for more computing time than {owner} allows one job and will never start; ask for {shorter}"
    if found["running"]:
        return (
            f"running jobs with {owner} have all the computing time that may be given away at once; "
            f"it may start when some end, or ask for {shorter}"
        )
    return f"the computing time of {owner} is used up, or would be by this job; a shorter walltime may help"
