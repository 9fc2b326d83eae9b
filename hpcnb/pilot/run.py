"""The run directory: all that one allocation of ours is told, and all that it leaves behind.

Layout (0700, files 0600)::

    run.json        this record
    job.sh          what the batch system starts
    job.log         stdout and stderr of the job
    tls/            ca.pem, <role>.pem, <role>.key, link.secret
    dask/           configuration of the scheduler and the workers
    claim/          made by the first job that starts with this directory; a second one stops there
    pilot.json      where the gateway listens, once it does
    scheduler.json  Dask's scheduler file
    dashboard.json  where the pages of Dask's dashboard are served
    sessions.json   where the session host listens
    logs/           scheduler.log, sessions.log, worker-<name>.log and what says whose lines these are, worker-<name>.tasks
    rendezvous/     where the agent leaves word when it cannot reach the gateway
    memory-<node>.json  the most memory that the processes of a node had, when that was much
    history.json    what its nodes have done so far, for pictures
    ended.json      how it ended, written last
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcnb.model import ClusterSpec, Record
from hpcnb.pilot.written import write_whole


@dataclass(frozen=True, kw_only=True)
class Run(Record):
    """What one allocation is told.

    Parameters
    ----------
    id : str
        The cluster's id.
    token : str
        This run's own, 32 hexadecimal digits; also the batch job's comment.
    path : str
        The run directory, absolute, at the site.
    spec : ClusterSpec
    index : int
        0 for the allocation that leads (it runs the scheduler), then 1, 2, … for those that add nodes.
    scheduler : str
        Address of the scheduler to join; empty for the leader.
    directory : str
        Where sessions and workers start.
    umask : int
        For what the user's code writes; all that is ours is private.
    software, features : tuple of str
        What workers offer to tasks that ask for it by name.
    cache : int
        Bytes that results by content may have together; 0: the default.
    launcher : str
        ``srun`` inside Slurm, ``exec`` where one process is one node.
    """

    id: str
    token: str
    path: str
    spec: ClusterSpec
    index: int = 0
    scheduler: str = ""
    directory: str
    umask: int = 0o077
    software: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    cache: int = 0
    launcher: str = "exec"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Read the record of a run directory."""
        return cls.from_json(json.loads((Path(path) / "run.json").read_text()))

    def file(self, name: str) -> Path:
        return Path(self.path) / name

    @property
    def leads(self) -> bool:
        return self.index == 0

    @property
    def secret(self) -> bytes:
        """What joins the link; read from its own file, never part of the record."""
        return bytes.fromhex(self.file("tls/link.secret").read_text().strip())

    def publish(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file."""
        write_whole(self.file(name), json.dumps(value).encode())
