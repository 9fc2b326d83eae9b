"""From the job's start to the first result on the sandbox's Slurm, against dask-jobqueue's `SLURMCluster`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dask_jobqueue import SLURMCluster
from distributed import Client

import hpcnb as hpc
from hpcnb.sandbox import Sandbox
from tests.benchmarks.ratio import ratio
from tests.isolation import Isolation

GOAL = 1.0
TURNS = 5


@pytest.fixture
def sandbox(isolated: Isolation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A Slurm of our own, configured as site ``sandbox``, with Slurm's commands on our PATH for the peer."""
    with Sandbox(isolated.folder / "sandbox") as sandbox:
        entry = sandbox.site_entry() | {"home": str(isolated.home)}
        isolated.configure(yaml.safe_dump({"hpcnb": {"sites": {"sandbox": entry}}}))
        for name, value in sandbox.slurm_env.items():
            monkeypatch.setenv(name, value)
        yield sandbox


def bench_first_result(sandbox: Sandbox, tmp_path: Path) -> None:
    """From the start of the job's script to the first result, no later than the peer, whose scheduler ran before."""
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(_ours())
        theirs.append(_theirs(tmp_path))
    assert ratio("job's start to first result", ours, theirs, peer="SLURMCluster") <= GOAL


def _ours() -> float:
    with hpc.Cluster("sandbox", name="bench-start", workers_per_node=1) as cluster:
        assert cluster.client.submit(pow, 2, 10).result() == 1024
        done = time.time()
        # The script's first act is to make this directory.
        (claim,) = Path(os.environ["HPCNB_HOME"]).glob(f"runs/{cluster.handle.id}/claim")
        return done - claim.stat().st_mtime


def _theirs(tmp_path: Path) -> float:
    started = tmp_path / "started"
    with (
        SLURMCluster(
            cores=1,
            memory="1GB",
            walltime="00:10:00",
            interface="lo",
            python=sys.executable,
            local_directory=str(tmp_path),
            log_directory=str(tmp_path),
            queue="main",
            job_script_prologue=[f"touch {started}"],
            scheduler_options={"dashboard_address": None},
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(1)
        assert client.submit(pow, 2, 10).result() == 1024
        return time.time() - started.stat().st_mtime
