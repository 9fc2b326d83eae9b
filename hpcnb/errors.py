"""Every error that hpcnb raises: what happened, where, the evidence, and what to do next.

HPCError
├── SiteError
│   ├── ConfigError            a key, a value or a file of the configuration
│   ├── ConnectionFailed       the login node could not be reached
│   ├── AuthenticationFailed   the login node refused us
│   ├── HostKeyMismatch        the login node is not the one we know
│   └── EnvironmentMismatch    the Python there cannot work with the one here
├── BatchError
│   ├── SubmissionRejected     the batch system said no
│   ├── JobFailed              the job ended by itself, or was cancelled
│   ├── JobTimeout             the walltime ran out
│   ├── JobOutOfMemory         the job used more memory than it asked for
│   ├── NodeFailed             a node of the job died
│   └── JobPreempted           a more important job took the nodes
├── ClusterError
│   ├── NotReady               the cluster does not run (yet)
│   └── Unreachable            the cluster runs, but the path to it is cut
├── TaskError
│   ├── TaskFailed, TaskLost, TaskTimeout
│   └── CannotSerialize        an object that cannot travel, by name
├── QueueError
│   └── NoSuchQueue
└── EnsembleError
    └── MemberLost
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AuthenticationFailed",
    "BatchError",
    "CannotSerialize",
    "ClusterError",
    "ConfigError",
    "ConnectionFailed",
    "EnsembleError",
    "EnvironmentMismatch",
    "HPCError",
    "HostKeyMismatch",
    "JobFailed",
    "JobOutOfMemory",
    "JobPreempted",
    "JobTimeout",
    "MemberLost",
    "NoSuchQueue",
    "NodeFailed",
    "NotReady",
    "QueueError",
    "SiteError",
    "SubmissionRejected",
    "TaskError",
    "TaskFailed",
    "TaskLost",
    "TaskTimeout",
    "Unreachable",
    "error_from_json",
]


class HPCError(Exception):
    """The root of every error that hpcnb raises.

    Parameters
    ----------
    what : str
        What happened, in one sentence.
    where : str, optional
        The place: site, job id, node.
    evidence : str, optional
        What was seen, verbatim: the last log lines, the answer of a command.
    remedy : str, optional
        What to do next.

    Examples
    --------
    >>> print(SiteError("no answer", where="octopus", remedy="Check the host name."))
    no answer (octopus)
    → Check the host name.
    """

    def __init__(self, what: str, *, where: str = "", evidence: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.evidence = evidence
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [f"{self.what} ({self.where})" if self.where else self.what]
        lines += [f"  | {line}" for line in self.evidence.splitlines()]
        lines += [f"→ {self.remedy}"] if self.remedy else []
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of our frames, which would tell the user nothing."""
        return [f"{type(self).__name__}: {self}"]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.to_json())

    def to_json(self) -> dict[str, str]:
        """The error as plain values; `error_from_json` is the inverse."""
        return {
            # The other side may not know a class that is private to one part.
            "type": next(cls.__name__ for cls in type(self).__mro__ if cls.__module__ == __name__),
            "what": self.what,
            "where": self.where,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }


class SiteError(HPCError):
    """A site cannot be used as asked."""


class ConfigError(SiteError):
    """The configuration is wrong; the message names the file, the key and what is allowed."""


class ConnectionFailed(SiteError):
    """The login node could not be reached."""


class AuthenticationFailed(SiteError):
    """The login node refused the user."""


class HostKeyMismatch(SiteError):
    """The login node shows another key than the one on record, or one nobody vouched for."""


class EnvironmentMismatch(SiteError):
    """The Python at the site is missing, lacks a package, or differs from the one here."""


class BatchError(HPCError):
    """The batch system refused or ended a job."""


class SubmissionRejected(BatchError):
    """The batch system refused the request."""


class JobFailed(BatchError):
    """The batch job ended by itself with an error, or was cancelled."""


class JobTimeout(BatchError):
    """The batch job reached its walltime."""


class JobOutOfMemory(BatchError):
    """The batch job used more memory than it asked for."""


class NodeFailed(BatchError):
    """A node of the batch job died."""


class JobPreempted(BatchError):
    """The batch job had to make room for a more important one."""


class ClusterError(HPCError):
    """A cluster cannot do what was asked."""


class NotReady(ClusterError):
    """The cluster does not run yet, or no longer."""


class Unreachable(ClusterError):
    """The cluster runs, but the path to it is cut."""


class TaskError(HPCError):
    """A task or a cell could not be carried out."""


class TaskFailed(TaskError):
    """A task ended with an error."""


class TaskLost(TaskError):
    """The worker or the session that ran a task is gone."""


class TaskTimeout(TaskError):
    """A task took longer than it was allowed to."""


class CannotSerialize(TaskError):
    """An object cannot be sent; the message names it."""


class QueueError(HPCError):
    """A persistent queue cannot do what was asked."""


class NoSuchQueue(QueueError):
    """There is no queue of that name."""


class EnsembleError(HPCError):
    """An ensemble cannot do what was asked."""


class MemberLost(EnsembleError):
    """A member of an ensemble is gone."""


def error_from_json(data: dict[str, str]) -> HPCError:
    """Rebuild an error that crossed a process border; an unknown type becomes `HPCError`."""
    cls = globals().get(data.get("type", ""), HPCError)
    if not (isinstance(cls, type) and issubclass(cls, HPCError)):
        cls = HPCError
    return _rebuild(cls, data)


def _rebuild(cls: type[HPCError], data: dict[str, str]) -> HPCError:
    fields = {key: data.get(key, "") for key in ("where", "evidence", "remedy")}
    return cls(data.get("what", ""), **fields)
