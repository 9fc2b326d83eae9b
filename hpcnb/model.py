"""The plain records that cross process borders: requests, states, snapshots.

Standard library only: the pilot reads these inside the allocation. Everything here turns
into JSON with `to_json` and back with the class's `from_json`.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Self


class Record:
    """JSON there and back for a frozen dataclass of plain values, enums and records."""

    def to_json(self) -> dict[str, Any]:
        return typing.cast("dict[str, Any]", _plain(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        hints = typing.get_type_hints(cls)
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        # A field that a newer peer added is left out, so that versions can differ by a little.
        return cls(**{k: _revive(hints[k], v) for k, v in data.items() if k in known})


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Record):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _revive(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if value is None:
        return None
    if origin in (types.UnionType, typing.Union):
        return _revive(next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        return tuple(_revive(args[0], v) for v in value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json(value)
    return value


class State(enum.StrEnum):
    """Where a cluster is in its life; `MOVES` names every legal step."""

    REQUESTED = "requested"  # accepted by the agent; nothing submitted yet
    QUEUED = "queued"  # the batch system has the job and has not started it
    STARTING = "starting"  # the job runs; the pilot is bringing the cluster up
    READY = "ready"  # the link is up and the scheduler answers
    UNREACHABLE = "unreachable"  # the job runs, but the path to it is cut
    DRAINING = "draining"  # told to end; work that runs is being finished or stopped
    ENDED = "ended"  # over, for the reason in `ClusterStatus.ending`


MOVES: dict[State, frozenset[State]] = {  # a requeued job goes back to the queue
    State.REQUESTED: frozenset({State.QUEUED, State.DRAINING, State.ENDED}),
    State.QUEUED: frozenset({State.STARTING, State.DRAINING, State.ENDED}),
    State.STARTING: frozenset({State.READY, State.QUEUED, State.DRAINING, State.ENDED}),
    State.READY: frozenset({State.UNREACHABLE, State.QUEUED, State.DRAINING, State.ENDED}),
    State.UNREACHABLE: frozenset({State.READY, State.QUEUED, State.DRAINING, State.ENDED}),
    State.DRAINING: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}


class IllegalMove(ValueError):
    """A state was asked to become one that cannot follow it: a fault of ours, not the user's."""


def move(old: State, new: State) -> State:
    """Return `new` if it may follow `old` (or equals it), else raise `IllegalMove`."""
    if new is not old and new not in MOVES[old]:
        raise IllegalMove(f"a cluster cannot go from {old} to {new}")
    return new


class Reason(enum.StrEnum):
    """Why a batch job, and with it a cluster, ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAIL = "node_fail"
    PREEMPTED = "preempted"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Ending(Record):
    """How something ended, with the evidence.

    Parameters
    ----------
    reason : Reason
    job_id, node : str
        Where; empty when there was no job or the node is not known.
    exit_code, signal : int or None
        Of the batch job's script, where the batch system told.
    message, tail : str
        One sentence for the user; the last lines of the log.
    suggestion : str
        What to do about it; empty when nothing is.
    """

    reason: Reason
    job_id: str = ""
    node: str = ""
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    tail: str = ""
    suggestion: str = ""


@dataclass(frozen=True, kw_only=True)
class Resources(Record):
    """What one allocation asks the batch system for.

    Parameters
    ----------
    nodes : int
    walltime : int
        Seconds.
    cores_per_node : int or None
        None: what the batch system gives by default (all of a process site's cores).
    memory_per_node : int or None
        Bytes. None: the batch system's default.
    gpus_per_node : int
    partition, account, qos : str
        Empty: the batch system's default.
    options : dict of str to str
        Further options of the batch system, each one argument (``--name=value``; ``--name`` where the value is empty).
    """

    nodes: int = 1
    walltime: int = 3600
    cores_per_node: int | None = None
    memory_per_node: int | None = None
    gpus_per_node: int = 0
    partition: str = ""
    account: str = ""
    qos: str = ""
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Versions(Record):
    """A Python and the packages in it: ``"3.12.1"``, and the version of each package by name (empty: it is missing)."""

    python: str
    packages: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ClusterSpec(Record):
    """What a user asked for: a name, a site, resources and how to cut nodes into workers.

    Parameters
    ----------
    site : str
    name : str
        ``[A-Za-z0-9._-]{1,64}``; unique among the user's live clusters.
    resources : Resources
    workers_per_node, cores_per_worker : int or None
        None: one worker per core of the allocation, up to 8 per node; the cores are shared out.
    memory_per_worker : int or None
        Bytes; None: an even share of the node's memory.
    gpus_per_worker : int
    idle_timeout : int
        Seconds without an attached client and without work after which the cluster ends.
    directory : str
        Where sessions and workers run on a site that is this machine; empty: the site's home directory.
    python : str
        The interpreter at the site; empty: what the agent finds configured.
    client : Versions or None
        What asks, and what the site's Python must suit.
    umask : int or None
        For the files that cells and tasks make; None: as at a login there.
    notebook : str
        Which one asked; see `hpcnb.notebook_name`.
    """

    site: str
    name: str
    resources: Resources
    workers_per_node: int | None = None
    cores_per_worker: int | None = None
    memory_per_worker: int | None = None
    gpus_per_worker: int = 0
    idle_timeout: int = 1800
    directory: str = ""
    python: str = ""
    client: Versions | None = None
    umask: int | None = None
    notebook: str = ""


class JobState(enum.StrEnum):
    """What a batch system says of one job, in three words and an honest fourth."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"  # or no longer known to a batch system that gave a valid answer
    UNKNOWN = "unknown"  # the batch system could not be asked; changes nothing


@dataclass(frozen=True, kw_only=True)
class JobStatus(Record):
    """One job as the batch system sees it at one moment.

    Parameters
    ----------
    job_id : str
    state : JobState
    raw : str
        The batch system's own word (``PENDING``, ``COMPLETING``, ``BOOT_FAIL``).
    reason : str
        Why it is pending, in the batch system's own word (``Resources``, ``Priority``).
    nodes : tuple of str
    partition : str
    cores : int or None
        Of all its nodes together.
    time_left : int or None
        Seconds of walltime left.
    submitted, started : float or None
        POSIX time; when it was first seen, and when it began.
    estimated_start, first_estimate : float or None
        POSIX time at which it may start, as the batch system has it now and had it first.
    position : int or None
        Place among the pending jobs of its partition, from 1.
    smaller : int
        How many of those before it ask for fewer cores.
    hidden : bool
        The site does not let its users see each other's jobs, so that a place in the queue cannot be told.
    ending : Ending or None
        Only when `state` is ENDED.
    """

    job_id: str
    state: JobState
    raw: str = ""
    reason: str = ""
    nodes: tuple[str, ...] = ()
    partition: str = ""
    cores: int | None = None
    time_left: int | None = None
    submitted: float | None = None
    started: float | None = None
    estimated_start: float | None = None
    first_estimate: float | None = None
    position: int | None = None
    smaller: int = 0
    hidden: bool = False
    ending: Ending | None = None

    def core_seconds(self, now: float) -> float:
        """What it has used by now, as far as that is known."""
        return (self.cores or 0) * max(0.0, now - self.started) if self.started else 0.0


@dataclass(frozen=True, kw_only=True)
class NodeLoad(Record):
    """What the workers of one node do at one moment.

    Parameters
    ----------
    name : str
        Empty: what many more nodes do together.
    nodes, workers, cores : int
    busy : float
        Cores at work.
    memory, limit : int
        Bytes that its workers have in use, and may have; a limit of 0 is none.
    """

    name: str
    nodes: int = 1
    workers: int = 0
    cores: int = 0
    busy: float = 0.0
    memory: int = 0
    limit: int = 0


@dataclass(frozen=True, kw_only=True)
class GroupLoad(Record):
    """How it stands with a group of calls that goes on.

    Parameters
    ----------
    id, label : str
    waiting, running, done, failed, cancelled : int
    rate : float
        Calls that end in a second, of late.
    """

    id: str
    label: str = ""
    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    rate: float = 0.0


@dataclass(frozen=True, kw_only=True)
class WorkerCounts(Record):
    """How many workers, cores and tasks a cluster has at one moment, what its nodes do, and what goes on."""

    workers: int = 0
    cores: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    nodes: tuple[NodeLoad, ...] = ()
    groups: tuple[GroupLoad, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClusterStatus(Record):
    """A snapshot of one cluster, as every view shows it.

    Parameters
    ----------
    id : str
        Opaque, 16 hexadecimal digits.
    spec : ClusterSpec
    state : State
    detail : str
        What is being waited for, or what was last seen, in one line.
    jobs : tuple of JobStatus
        The first is the one that runs the scheduler.
    walltime_left : int or None
        Seconds, of the first job, when the batch system was `heard`.
    heard : float
        POSIX time of the batch system's last answer.
    unknown_since : float or None
        POSIX time since which the batch system has not answered.
    link : str
        The route of the link (``direct``), empty when there is none.
    route : str
        The route that it takes or took last.
    counts : WorkerCounts
    spent : float
        Core-seconds of the jobs that are over.
    ending : Ending or None
    losses : tuple of Ending
        How workers and further jobs were lost lately, oldest first; the cluster goes on without them.
    error : dict or None
        The error (`HPCError.to_json`) that ended it, when one did.
    notices : dict of str to str
        What the user should do something about, by topic: ``login``, ``certificate``, ``idle``, ``lost``.
    created, changed : float
        POSIX time on the user's machine.
    """

    id: str
    spec: ClusterSpec
    state: State
    detail: str = ""
    jobs: tuple[JobStatus, ...] = ()
    walltime_left: int | None = None
    heard: float = 0.0
    unknown_since: float | None = None
    link: str = ""
    route: str = ""
    counts: WorkerCounts = field(default_factory=WorkerCounts)
    spent: float = 0.0
    ending: Ending | None = None
    losses: tuple[Ending, ...] = ()
    error: dict[str, str] | None = None
    notices: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    changed: float = 0.0

    def left(self, now: float) -> float | None:
        """Seconds of walltime left by now."""
        if self.walltime_left is None:
            return None
        return max(0.0, self.walltime_left - (max(0.0, now - self.heard) if self.heard else 0.0))

    def core_seconds(self, now: float) -> float:
        """What its jobs have used by now."""
        return self.spent + sum(job.core_seconds(now) for job in self.jobs if job.state is JobState.RUNNING)
