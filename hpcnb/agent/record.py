"""What the agent must not forget about a cluster, in a file that a later agent reads."""

from __future__ import annotations

import json
import logging
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

from hpcnb.agent import places
from hpcnb.model import ClusterSpec, ClusterStatus, Record, State
from hpcnb.pilot.written import write_whole
from hpcnb.site.authority import Authority
from hpcnb.site.environment import Probe

log = logging.getLogger(__name__)

KEPT = 20
"""How many ended clusters are remembered, so that their logs can still be asked for."""


@dataclass(frozen=True, kw_only=True)
class JobRecord(Record):
    """One allocation of a cluster: its place among them, its run, its batch job (empty until it is known), whether we ended it."""

    index: int
    token: str
    path: str
    job_id: str = ""
    dismissed: bool = False


@dataclass(frozen=True, kw_only=True)
class ClusterRecord(Record):
    """A cluster with its secrets; the file is 0600 in a 0700 directory.

    Parameters
    ----------
    status : ClusterStatus
        As last known.
    jobs : tuple of JobRecord
        The first leads.
    last : int
        The highest index that a job ever had: a run directory is used once.
    home : str
        hpcnb's directory at the site; empty until the site has been probed.
    user_home : str
        The user's directory there.
    umask : int
        The user's own there.
    zip_path : str
        The shipped code there.
    authority_certificate, authority_key, secret : str
    """

    status: ClusterStatus
    jobs: tuple[JobRecord, ...] = ()
    last: int = 0
    home: str = ""
    user_home: str = ""
    umask: int = 0o077
    zip_path: str = ""
    authority_certificate: str
    authority_key: str
    secret: str

    def __repr__(self) -> str:
        return f"ClusterRecord({self.status.id}, {self.status.spec.name!r}, {self.status.state})"

    def at(self, found: Probe, *, zip_path: str) -> ClusterRecord:
        """The record with what its site has answered."""
        return replace(self, home=found.home, user_home=found.user_home, umask=found.umask, zip_path=zip_path)

    def with_job(self, job: JobRecord) -> ClusterRecord:
        """The record with a job added, or replaced by its new self."""
        jobs = {j.index: j for j in self.jobs} | {job.index: job}
        return replace(self, jobs=tuple(jobs[i] for i in sorted(jobs)), last=max(self.last, job.index))

    def without_job(self, index: int) -> ClusterRecord:
        return replace(self, jobs=tuple(j for j in self.jobs if j.index != index))

    def without_secrets(self) -> ClusterRecord:
        """What may be kept of a cluster that has ended."""
        return replace(self, authority_key="", secret="")


def new(cluster: str, spec: ClusterSpec) -> ClusterRecord:
    """The record of a cluster that was just asked for."""
    authority = Authority.create(cluster)
    now = time.time()
    return ClusterRecord(
        status=ClusterStatus(id=cluster, spec=spec, state=State.REQUESTED, created=now, changed=now),
        authority_certificate=authority.certificate,
        authority_key=authority.key,
        secret=secrets.token_hex(32),
    )


def save(record: ClusterRecord) -> None:
    """Write a record."""
    write_whole(places.records() / f"{record.status.id}.json", json.dumps(record.to_json()).encode())


def load_all() -> list[ClusterRecord]:
    """Every record that can be read, oldest first; of those that have ended only the last `KEPT` are kept at all."""
    found = [(kept, path) for path in places.records().glob("*.json") if (kept := _read(path))]
    found.sort(key=lambda pair: pair[0].status.created)
    ended = [pair for pair in found if pair[0].status.state is State.ENDED]
    for pair in ended[:-KEPT]:
        pair[1].unlink()
        found.remove(pair)
    return [record for record, _ in found]


def _read(path: Path) -> ClusterRecord | None:
    try:
        return ClusterRecord.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as exc:
        # One that a later version wrote, or a broken disk: the others, and the agent, go on without it.
        log.warning("%s is no record of a cluster: %s", path, exc)
        return None
