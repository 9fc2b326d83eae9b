"""Two environments on one machine share the agent, and each notebook's work runs in its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import hpcnb as hpc

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import hpcnb as hpc
with hpc.Cluster(name="theirs") as cluster:
    print(cluster.client.submit(lambda: sys.prefix).result())
    cell = cluster.session.wait(cluster.session.execute("import sys; prefix = sys.prefix", on_message=print))
    print(cluster.session.pull(["prefix"])["prefix"])
"""


@pytest.mark.timeout(120)
def test_work_runs_in_the_notebooks_own_environment(isolated, tmp_path):
    """Whichever environment started the agent: tasks and cells find the modules that the notebook has."""
    with hpc.Cluster(name="ours") as cluster:  # from here on an agent of this environment runs
        ours = cluster.client.submit(lambda: sys.prefix).result()
        assert ours == sys.prefix
        other = tmp_path / "other"
        venv.create(other)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(other)}))
        root = Path(hpc.__file__).parents[1]
        (site / "same.pth").write_text(f"{sysconfig.get_path('purelib')}\n{root}\n")
        done = subprocess.run(
            [other / "bin" / "python", "-c", PROGRAM],
            env=os.environ | isolated.environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(other)] * 2
