"""Read what Slurm's commands print. Pure; what makes no sense raises `ValueError`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping

from hpcnb.model import Ending, JobState, JobStatus, Reason

SEPARATOR = "\x1f"
"""Between the columns of every table that we ask for; no value that Slurm prints there can hold it."""

JOBS = ("%i", "%T", "%r", "%N", "%L", "%S", "%P", "%Q", "%C")
TOKENS = ("%i", "%k", "%o")
HISTORY = "JobIDRaw,State,ExitCode,NodeList"
"""Columns of `squeue`, and of `sacct`."""

MOST_NODES = 100_000

_WAITS = (
    *("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"),
    *("SPECIAL_EXIT", "POWER_UP_NODE", "EXPEDITING"),
)
# COMPLETING: the nodes are still being cleared and Slurm does not tell yet how it ended.
_RUNS = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "UPDATE_DB")

ENDINGS: Mapping[str, tuple[Reason, str]] = {
    "COMPLETED": (Reason.COMPLETED, "the batch job ended by itself, without an error"),
    "CANCELLED": (Reason.CANCELLED, "the batch job was cancelled"),
    "TIMEOUT": (Reason.TIMEOUT, "the walltime of the batch job ran out"),
    "DEADLINE": (Reason.TIMEOUT, "the batch job reached the deadline it had been given"),
    "OUT_OF_MEMORY": (Reason.OUT_OF_MEMORY, "the batch job used more memory than it had asked for"),
    "NODE_FAIL": (Reason.NODE_FAIL, "a node of the batch job failed"),
    "BOOT_FAIL": (Reason.NODE_FAIL, "a node of the batch job could not be started"),
    "LAUNCH_FAILED": (Reason.NODE_FAIL, "a node could not start the batch job"),
    "RECONFIG_FAIL": (Reason.NODE_FAIL, "a node could not be prepared for the batch job"),
    "PREEMPTED": (Reason.PREEMPTED, "the batch job had to make room for a more important one"),
    "REVOKED": (Reason.CANCELLED, "another cluster of the federation took the batch job over"),
    "FAILED": (Reason.FAILED, "the batch job failed"),
}

STATES: Mapping[str, JobState] = {
    **dict.fromkeys(_WAITS, JobState.PENDING),
    **dict.fromkeys(_RUNS, JobState.RUNNING),
    **dict.fromkeys(ENDINGS, JobState.ENDED),
}
"""Slurm's words in ours; any other word is `JobState.UNKNOWN`."""

_NOT_STARTED = 53
"""What Slurm puts in the place of a signal when a node could not open the job's log or directory."""

_UNTOLD = ("", "None", "NonZeroExitCode", "JobLaunchFailure")


def submitted(text: str) -> str | None:
    """Return the job id in the answer of ``sbatch --parsable``, whatever a chatty shell printed before it."""
    lines = text.strip().split("\n")
    found = re.fullmatch(r"([0-9]+)(?:;\S+)?", lines[-1].strip())
    return found[1] if found else None


def start(text: str) -> float | None:
    """When ``sbatch --test-only`` says that a job would start; None where it does not say.

    Examples
    --------
    >>> start("sbatch: Job 7 to start at 1700000000 using 2 processors on nodes n1 in partition main")
    1700000000.0
    """
    found = re.search(r"to start at ([0-9]{1,12})(?= |$)", text, re.MULTILINE)
    return float(found[1]) if found else None


def table(text: str, heading: str, columns: int) -> list[list[str]]:
    """Return the rows below the heading that proves a table to be one: an empty answer is none.

    Raises
    ------
    ValueError
        There is no heading, or a row has another number of columns.
    """
    rows = [line.split(SEPARATOR) for line in text.split("\n")]
    start = next((i for i, row in enumerate(rows) if len(row) == columns and row[0].strip() == heading), None)
    if start is None:
        raise ValueError(f"an answer without its heading: {text[:200]!r}")
    body = [row for row in rows[start + 1 :] if row != [""]]
    if odd := next((row for row in body if len(row) != columns), None):
        raise ValueError(f"a row of {len(odd)} columns instead of {columns}: {odd!r}")
    return [[cell.strip() for cell in row] for row in body]


def jobs(text: str, job_ids: Collection[str]) -> dict[str, JobStatus]:
    """Read some jobs in a `squeue` answer of the columns `JOBS`; what else is in it is others' business."""
    return {row[0]: _job(row) for row in table(text, "JOBID", len(JOBS)) if row[0] in job_ids}


def _job(row: list[str]) -> JobStatus:
    job_id, raw, reason, nodes, left, start, partition, _, cores = row
    state = STATES.get(raw, JobState.UNKNOWN)
    pending, running = state is JobState.PENDING, state is JobState.RUNNING
    begins = float(start) if start.isdecimal() else None
    return JobStatus(
        job_id=job_id,
        state=state,
        raw=raw,
        reason=reason if pending and reason != "None" else "",
        nodes=expand_nodes(nodes),
        partition=partition,
        cores=_number(cores),
        time_left=seconds(left) if running else None,
        started=begins if running else None,
        estimated_start=begins if pending else None,
        # Kept only if the job has ended; the exit status comes from another answer.
        ending=ending(job_id, raw, reason=reason, nodes=nodes) if state is JobState.ENDED else None,
    )


def _number(text: str) -> int:
    """Read a count as Slurm writes it: ``96``, ``4K`` for 4096."""
    unit = text[-1:] if text[-1:] in "KMG" else ""
    return int(text.removesuffix(unit)) << 10 * " KMG".index(unit or " ")


def carriers(text: str, token: str) -> list[str]:
    """Return the ids of the jobs with a token, in a `squeue` answer of the columns `TOKENS`.

    The path of the script counts too, since some sites put a comment of their own in the place of ours. What the
    user's other jobs are called is not ours to judge.
    """
    before, heading, body = text.partition(f"JOBID{SEPARATOR}COMMENT{SEPARATOR}COMMAND\n")
    if not heading:
        raise ValueError(f"an answer without its heading: {before[:200]!r}")
    rows = (line.split(SEPARATOR) for line in body.split("\n"))
    return [row[0] for row in rows if row[0].isdecimal() and any(token in cell for cell in row[1:])]


_ASIDE = ("Dependency", "BeginTime", "JobHeld", "JobHold")


def places(text: str, job_ids: Collection[str]) -> dict[str, tuple[int, int]]:
    """How many jobs go before each of some, and how many of these ask for fewer cores.

    Before a job go those that wait for a partition of its own with a higher priority, or with the same and for longer.
    Who is held, or waits for a time or for another job, stands in nobody's way and has no place.

    Parameters
    ----------
    text : str
        A `squeue` answer of the columns `JOBS` with all that wait for these partitions.
    job_ids : collection of str
    """
    queue = [row for row in table(text, "JOBID", len(JOBS)) if STATES.get(row[1]) is JobState.PENDING]
    queue = [row for row in queue if int(row[7]) and not row[2].startswith(_ASIDE)]
    # Of two with the same priority the older one goes first, and ids grow.
    queue.sort(key=lambda row: (-int(row[7]), len(row[0]), row[0]))
    found = {}
    for place, (job_id, *_, partition, _, cores) in enumerate(queue):
        if job_id in job_ids:
            wanted = set(partition.split(","))
            ahead = [_number(row[8]) for row in queue[:place] if wanted & set(row[6].split(","))]
            found[job_id] = len(ahead), sum(other < _number(cores) for other in ahead)
    return found


def hides_jobs(text: str) -> bool:
    """Whether users see only their own jobs, by the answer of ``scontrol show config``.

    Raises
    ------
    ValueError
        It does not say.
    """
    told = re.search(r"^PrivateData\s*=\s*(\S+)", text, re.MULTILINE)
    if not told:
        raise ValueError(f"a configuration without PrivateData: {text[:200]!r}")
    return "jobs" in told[1].split(",")


def version(text: str) -> str:
    """Which Slurm it is, by the answer of ``scontrol show config``.

    Raises
    ------
    ValueError
        It does not say.
    """
    told = dict(re.findall(r"^(SLURM_VERSION|ClusterName)\s*=\s*(\S+)", text, re.MULTILINE))
    if "SLURM_VERSION" not in told:
        raise ValueError(f"a configuration without SLURM_VERSION: {text[:200]!r}")
    cluster = f" of cluster {told['ClusterName']}" if "ClusterName" in told else ""
    return f"Slurm {told['SLURM_VERSION']}{cluster}"


def records(text: str) -> dict[str, Ending | None]:
    """Read how jobs ended in the answers of ``scontrol --oneliner show job``; None for one that has not."""
    found: dict[str, Ending | None] = {}
    for line in text.split("\n"):
        # The first of a name counts: what a user may have written (paths, the comment) comes last.
        fields = dict(reversed(re.findall(r"(\w+)=(\S*)", line)))
        job_id, raw = fields.get("JobId", ""), fields.get("JobState", "")
        if STATES.get(raw) is JobState.ENDED:
            nodes = fields.get("BatchHost") or fields.get("NodeList", "")
            code, reason = fields.get("ExitCode", ""), fields.get("Reason", "")
            found[job_id] = ending(job_id, raw, reason=reason, nodes=nodes, code=code)
        elif job_id and raw:
            found[job_id] = None
    return found


def history(text: str) -> dict[str, JobStatus]:
    """Read the jobs that have ended in a ``sacct --parsable2`` answer of the columns `HISTORY`."""
    found = {}
    for line in text.split("\n"):
        cells = line.split("|")
        if len(cells) != HISTORY.count(",") + 1:
            continue  # not a row: a site's own words
        job_id, state, code, nodes = cells
        raw = state.partition(" ")[0]  # CANCELLED by 1000
        if STATES.get(raw) is JobState.ENDED:
            how = ending(job_id, raw, nodes=nodes, code=code)
            found[job_id] = JobStatus(
                job_id=job_id, state=JobState.ENDED, raw=raw, nodes=expand_nodes(nodes), ending=how
            )
    return found


def ending(job_id: str, raw: str, *, reason: str = "", nodes: str = "", code: str = "") -> Ending:
    """Say how a job ended, from Slurm's state, reason, nodes and exit code (``status:signal``)."""
    why, message = ENDINGS[raw]
    told = re.fullmatch(r"([0-9]+):([0-9]+)", code)
    status, signal = (int(told[1]), int(told[2])) if told else (None, 0)
    names = expand_nodes(nodes)
    node = names[0] if names else ""
    if why is Reason.FAILED:
        message = _failure(status, signal, reason, node)
    if why is Reason.NODE_FAIL and len(names) > 1:
        # Slurm does not say which of them.
        node, message = "", f"{message} (one of {nodes})"
    return Ending(
        reason=why,
        job_id=job_id,
        node=node,
        exit_code=None if signal else status,
        signal=signal if 0 < signal < _NOT_STARTED else None,
        message=message,
    )


def _failure(status: int | None, signal: int, reason: str, node: str) -> str:
    if signal == _NOT_STARTED:
        return f"node {node or '(unknown)'} could not open the batch job's log or enter its directory"
    if signal and reason in _UNTOLD:
        memory = "; at sites without cgroups so ends a job that uses too much memory" if signal == 9 else ""
        return f"the batch job was killed by signal {signal}{memory}"
    if reason not in _UNTOLD:
        return f"the batch job failed: {reason}"
    return "the batch job failed" if status is None else f"the batch job ended with exit status {status}"


def seconds(text: str) -> int | None:
    """Read ``[days-][[hours:]minutes:]seconds``; None for ``UNLIMITED`` and other words.

    Examples
    --------
    >>> seconds("1-02:03:04"), seconds("10:00"), seconds("infinite")
    (93784, 600, None)
    """
    found = re.fullmatch(r"(?:([0-9]+)-)?(?:([0-9]+):)??(?:([0-9]+):)?([0-9]+)", text)
    if not found:
        return None
    return sum(int(part or 0) * size for part, size in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


def expand_nodes(text: str) -> tuple[str, ...]:
    """Return the names in Slurm's short form of a list of nodes.

    Examples
    --------
    >>> expand_nodes("a[01-02,7],b")
    ('a01', 'a02', 'a7', 'b')
    """
    if text in ("", "(null)", "None assigned", "None"):
        return ()
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if ",".join(parts) != text:
        raise ValueError(f"not a list of nodes: {text[:200]!r}")
    names = list(itertools.islice(itertools.chain.from_iterable(map(_expand, parts)), MOST_NODES))
    return tuple(names)


def _expand(part: str) -> Iterable[str]:
    # Every second piece is what stood in brackets.
    pieces = re.split(r"\[([^\]]*)\]", part)
    choices = [_numbers(piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    if math.prod(map(len, choices)) > MOST_NODES:
        raise ValueError(f"too many nodes to be true: {part[:200]!r}")
    return map("".join, itertools.product(*choices))


def _numbers(group: str) -> list[str]:
    numbers: list[str] = []
    for span in group.split(","):
        found = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", span)
        if not found:
            raise ValueError(f"not a range of nodes: {span[:200]!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 0 <= last - first < MOST_NODES:
            raise ValueError(f"not a range of nodes: {span!r}")
        numbers += (f"{n:0{len(found[1])}}" for n in range(first, last + 1))
    return numbers
