"""From submission to the first result on the sandbox's Slurm, against dask-jobqueue's `SLURMCluster`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dask_jobqueue import SLURMCluster
from distributed import Client

import hpcnb as hpc
from hpcnb.sandbox import Sandbox
from tests.benchmarks.ratio import compare

GOAL = 1.0


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A Slurm of our own, configured as site ``sandbox``, with Slurm's commands on our PATH for the peer."""
    place = Path(os.environ["DASK_CONFIG"])
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox, pytest.MonkeyPatch.context() as patch:
        place.mkdir(parents=True, exist_ok=True)
        (place / "bench.yaml").write_text(yaml.safe_dump({"hpcnb": {"sites": {"sandbox": sandbox.site_entry()}}}))
        for name, value in sandbox.slurm_env.items():
            patch.setenv(name, value)
        yield sandbox


def bench_first_result(sandbox: Sandbox, tmp_path: Path) -> None:
    """The first result is there no later than with a peer whose scheduler ran before the job was submitted."""

    def ours() -> None:
        with hpc.Cluster("sandbox", name="bench-start", workers_per_node=1) as cluster:
            assert cluster.client.submit(pow, 2, 10).result() == 1024

    def theirs() -> None:
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
            ) as cluster,
            Client(cluster) as client,
        ):
            cluster.scale(1)
            assert client.submit(pow, 2, 10).result() == 1024

    assert compare("submission to first result", ours, theirs, turns=5, peer="SLURMCluster") <= GOAL
