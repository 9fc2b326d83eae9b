"""Fifty clusters one after the other leave nothing behind."""

from __future__ import annotations

import psutil
import pytest

import hpcnb as hpc
from hpcnb import handle
from hpcnb.model import Reason
from tests.isolation import Isolation
from tests.unit.pilot.host import wait_for

CYCLES = 50


def _listening(processes: list[psutil.Process]) -> int:
    return sum(c.status == psutil.CONN_LISTEN for p in processes for c in p.net_connections())


async def _cycle() -> None:
    cluster = handle.Handle.new(handle.spec_for("local", name="cycle"))
    await cluster.request()
    await cluster.ready()
    await cluster.credentials()
    await cluster.close()
    ending = cluster.status.ending
    assert ending is not None
    assert ending.reason is Reason.COMPLETED


def alone(isolated: Isolation) -> list[psutil.Process]:
    """The one process that stays when the last of a cluster's have gone."""
    wait_for(lambda: len(isolated.processes()) == 1)
    return isolated.processes()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_cycles_of_up_and_down_leak_no_process_port_descriptor_or_file(
    isolated: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After fifty clusters there are as many processes, ports, descriptors and temporary files as after the first three."""
    temporary = isolated.folder / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    for _ in range(3):
        handle.run(_cycle())
    (agent,) = alone(isolated)
    before = agent.num_fds(), psutil.Process().num_fds(), _listening([agent])
    for _ in range(CYCLES - 3):
        handle.run(_cycle())
    assert alone(isolated) == [agent]
    wait_for(lambda: (agent.num_fds(), psutil.Process().num_fds(), _listening([agent])) == before)
    assert list(temporary.iterdir()) == []
    assert [path.name for path in isolated.runtime.iterdir() if path.is_dir()] == []
    # Of each run its logs stay, for a while; its secrets do not.
    assert list(isolated.home.glob("runs/*/tls")) == []


def test_large_temporary_files_go_where_the_site_says(isolated: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's directory lies below the site's scratch, whose variable is looked up on the node."""
    (isolated.folder / "big").mkdir()
    monkeypatch.setenv("BIG_DISK", str(isolated.folder / "big"))
    isolated.configure("hpcnb: {sites: {local: {scratch: $BIG_DISK}}}")
    with hpc.Cluster("local", workers_per_node=1) as cluster:
        (where,) = cluster.client.run(lambda dask_worker: dask_worker.local_directory).values()
    assert where.startswith(str(isolated.folder / "big"))
    assert list((isolated.folder / "big").iterdir()) == []
