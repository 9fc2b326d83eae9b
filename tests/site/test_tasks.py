"""Tasks that need a real Slurm: MPI over two nodes, started by srun beside the workers."""

from __future__ import annotations

import os
import subprocess
import sys

import cloudpickle
import pytest

import hpcnb as hpc
from hpcnb.sandbox import Sandbox
from tests.site.account import slurm
from tests.unit.pilot.host import wait_for

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(240)]
pytest.importorskip("mpi4py")
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PMI = ("--mpi=pmi2",)
"""What the MPI of the tests and the Slurm of the tests have in common."""
UNSURE = 4
"""This Slurm's PMI now and then garbles what this MPI says to it, on one start of eight: the task is tried again."""
STUCK = 30
"""Seconds after which ranks that wait for each other, as they may do then, are started again."""


@pytest.fixture(scope="module", autouse=True)
def cluster(debian, short_path, account):
    """Two nodes of a real Slurm."""
    with Sandbox(short_path(), nodes=2, cores_per_node=2) as sandbox:
        slurm(sandbox, "scontrol", "update", "nodename=n2", "availablefeatures=big,new", "activefeatures=big")
        account.sites(box=sandbox.site_entry() | {"home": str(account.home), "software": ["mpich"]})
        with hpc.Cluster("box", nodes=2, cores_per_node=2, workers_per_node=1) as cluster:
            yield hpc.use(cluster)
        account.end()


def test_partition_features_and_software():
    """A task goes to the node that has the feature; what no node has is an error that names what each has."""

    @hpc.task(feature="big", partition="main", software="mpich")
    def where():

        return os.environ["SLURMD_NODENAME"]

    @hpc.task(feature="new")
    def nowhere():
        """Never run."""

    assert hpc.wait_on([where() for _ in range(4)]) == ["n2"] * 4
    with pytest.raises(
        hpc.TaskError, match=r"needs: feature new .*\n.*node n1: .*, partition main, software mpich, .*\n.*feature big,"
    ):
        nowhere()


def test_an_mpi_function_of_four_ranks():
    """An MPI function of four ranks returns four values; the ranks are where the layout says."""

    @hpc.mpi(ranks=4, ranks_per_node=2, launcher_options=PMI, returns=4, retries=UNSURE, timeout=STUCK)
    def rank(offset):

        from mpi4py import MPI

        world = MPI.COMM_WORLD
        print("ranks may print")  # noqa: T201
        return world.rank + offset, world.allreduce(world.rank), os.environ["SLURMD_NODENAME"]

    values = hpc.wait_on(list(rank(10)))
    assert [value[:2] for value in values] == [(10 + number, 6) for number in range(4)]
    assert sorted(node for *_, node in values) == ["n1", "n1", "n2", "n2"]


def test_an_mpi_function_that_raises():
    """An error in one rank ends all of them, and is the task's; with another launcher."""

    @hpc.mpi(ranks=2, launcher=f"{sys.prefix}/bin/mpiexec", launcher_options=("-launcher", "fork", "-rmk", "user"))
    def rank():
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == 1:
            raise KeyError("rank one")
        MPI.COMM_WORLD.barrier()

    with pytest.raises(KeyError, match="rank one"):
        hpc.wait_on(rank())


def test_an_mpi_program(tmp_path):
    """An MPI program is started in so many ranks, and its exit status is the task's."""

    @hpc.mpi(ranks=3, program="sh", args="-c {script}", stdout="out", launcher_options=PMI)
    def program(script, out: hpc.FileOut):
        """Never run."""

    assert program("echo $PMI_RANK", tmp_path / "out").result() == 0
    hpc.wait_on_file(tmp_path / "out")
    assert sorted((tmp_path / "out").read_text().split()) == ["0", "1", "2"]


def test_an_mpi_program_that_fails():
    """The exit status of an MPI program is an error that shows the launcher's words."""

    @hpc.mpi(ranks=1, program="sh", args="-c {script}", launcher_options=PMI)
    def program(script):
        """Never run."""

    with pytest.raises(hpc.TaskFailed, match="^srun .* ended with exit status 5"):
        program("exit 5").result()


def test_a_cancelled_mpi_program_leaves_no_rank():
    """The ranks are Slurm's children, not the launcher's: they end with the task nevertheless, on both nodes."""

    @hpc.mpi(ranks=2, ranks_per_node=1, program="sleep", args="{seconds}")
    def nap(seconds):
        """Never run."""

    def ranks():
        lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in lines if line.endswith("sleep 98765") and "srun" not in line]

    future = nap("98765")
    wait_for(lambda: len(ranks()) == 2, 60)
    assert future.cancel()
    wait_for(lambda: ranks() == [])
