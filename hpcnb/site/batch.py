"""A batch system gives allocations: submit, list, cancel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from hpcnb.errors import SiteError
from hpcnb.model import JobStatus, Resources
from hpcnb.site.shell import Completed, Shell
from hpcnb.site.slurm_partitions import Partition


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One job to submit.

    Parameters
    ----------
    token : str
        The run id, 32 hexadecimal digits: the job's comment (and what finds the job again when the answer to a submission was lost).
    name : str
        Shown to other users; ``[A-Za-z0-9._-]{1,64}``.
    script : str
        Path at the site of the job's script.
    directory : str
        Path at the site where the script starts.
    log : str
        Path at the site that receives stdout and stderr.
    resources : Resources
    """

    token: str
    name: str
    script: str
    directory: str
    log: str
    resources: Resources


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a batch system is asked: it has other users, too.

    Parameters
    ----------
    soonest : float
        Seconds between two questions just after we have asked for an end, which comes at once.
    steps : tuple of (float, float)
        Up to so many seconds after something happened, so many between two questions.
    calm : float
        Seconds between two questions later on.
    """

    soonest: float
    steps: tuple[tuple[float, float], ...]
    calm: float

    def pause(self, since: float) -> float:
        """Seconds between two questions, so long after something happened."""
        return next((pause for until, pause in self.steps if since < until), self.calm)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a user may choose from at a site; empty where it sets no limits, or does not say.

    Parameters
    ----------
    partitions : tuple of Partition
    accounts : tuple of str
        Who may pay, by name.
    default_account : str
        Who pays when nobody is named; empty where that is not said.
    """

    partitions: tuple[Partition, ...] = ()
    accounts: tuple[str, ...] = ()
    default_account: str = ""


class BatchUnknown(Exception):
    """The batch system could not be asked, or its answer made no sense: nothing is known, nothing changes."""


async def ask(shell: Shell, site: str, argv: Sequence[str], *, timeout: float = 30.0) -> Completed:
    """Run a command of a batch system; what is no answer is `BatchUnknown`."""
    try:
        return await shell.run(argv, timeout=timeout)
    except (SiteError, OSError) as exc:
        raise BatchUnknown(f"site {site}: {exc}") from exc


class Batch(Protocol):
    """What hpcnb asks of a batch system."""

    kind: str
    """The word in the configuration: ``slurm`` or ``process``."""
    pace: Pace
    """How often `list` may be asked."""

    async def version(self) -> str:
        """What answers there, in words: ``Slurm 24.11.5``.

        Raises
        ------
        SubmissionRejected
            There is no such batch system.
        BatchUnknown
            There was no answer.
        """

    async def submit(self, request: JobRequest) -> str:
        """Submit a job, return its id.

        Raises
        ------
        SubmissionRejected
            The batch system said no (or is not there); nothing was submitted. The message names the cause
            and the remedy: for a wrong partition the partitions there, for a wrong account the user's accounts.
        BatchUnknown
            The answer was lost: the job may or may not exist; ask `find`.
        """

    async def starts(self, request: JobRequest) -> float | None:
        """When a job would start if it were submitted now, by the batch system's clock (POSIX time); None: it does not say.

        Raises
        ------
        SubmissionRejected
            It would be refused.
        BatchUnknown
            There was no answer.
        """

    async def room(self, resources: Resources) -> tuple[int | None, int | None]:
        """Cores of a node, and nodes at most, of a job there; None: it is not known. Raises `BatchUnknown`."""

    async def find(self, token: str) -> list[str]:
        """The ids of the jobs, alive or still remembered, that carry a token. Raises `BatchUnknown`."""

    async def list(self, job_ids: Collection[str]) -> dict[str, JobStatus]:
        """The status of each job by one question to the batch system, whatever the number. Raises `BatchUnknown`.

        A job of which nothing new is known is left out.
        """

    async def limits(self) -> Limits:
        """What there is to choose from."""

    async def canceller(self, job_id: str) -> str:
        """Who cancelled a job, where that is recorded; else an empty string. Raises `BatchUnknown`."""

    async def cancel(self, job_ids: Collection[str]) -> None:
        """Cancel jobs; one that has ended already is no error. Raises `BatchUnknown`."""
