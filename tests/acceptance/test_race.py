"""`hpc.race`: the same call on two sites of this machine."""

from __future__ import annotations

import sys
import time

import cloudpickle
import distributed
import pytest

import hpcnb as hpc
from tests.unit.pilot.tiny import wait_for

pytestmark = pytest.mark.slow

LONG = 60.0
SITES = """
hpcnb:
  sites:
    quick: {batch: process, software: [quick], workers-per-node: 1, cores-per-worker: 1}
    slow: {batch: process, software: [slow], workers-per-node: 1, cores-per-worker: 1}
"""
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def run(folder, fails=()):
    """Return where it runs: on the quick site as soon as the slow one has begun, too."""
    (site,) = (name[9:] for name in distributed.get_worker().state.total_resources if name.startswith("software:"))
    (folder / site).touch()
    if site in fails:
        raise KeyError(site)
    while site == "slow" or not (folder / "slow").exists():
        time.sleep(0.01)
    return site


def names():
    return sorted(cluster.name for cluster in hpc.clusters())


def test_the_first_result_wins(isolated, tmp_path):
    """The other call is cancelled, and its cluster, which was started for the race, is closed; one that was there stays."""
    isolated.configure(SITES)
    with hpc.use(hpc.Cluster("quick")) as cluster:
        ran = hpc.race(run, tmp_path, sites=["slow", "quick"])
        assert (ran.result(LONG), ran.site) == ("quick", "quick")
        assert ran.futures["slow"].cancelled()
        wait_for(lambda: names() == ["quick"])
        # A site that fails is out; if each does, the first error is raised.
        assert hpc.race(run, tmp_path, sites=["slow", cluster], fails=["slow"]).result(LONG) == "quick"
        with pytest.raises(KeyError, match="quick"):
            hpc.race(run, tmp_path, sites=[cluster], fails=["quick"]).result(LONG)
        cancelled = hpc.race(time.sleep, LONG, sites=["quick"])
        assert cancelled.cancel()
        assert cancelled.futures["quick"].cancelled()
        with pytest.raises(hpc.ConfigError, match="there is no site 'none'"):
            hpc.race(run, tmp_path, sites=["quick", "none"])
        with pytest.raises(TypeError, match="on one site only"):
            hpc.race(run, hpc.submit(abs, 1), sites=["quick"])
        wait_for(lambda: names() == ["quick"])
