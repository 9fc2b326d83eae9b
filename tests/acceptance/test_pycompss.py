"""PyCOMPSs programs and notebooks, unchanged, on a real cluster of the embedded site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hpcnb as hpc
from tests.isolation import Isolation

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).parent / "pycompss"
NOTEBOOK = """
from hpcnb.compat import pycompss
pycompss.activate()
import pycompss.interactive as ipycompss
ipycompss.start(graph=True, monitor=1000)
from pycompss.api.task import task
@task(returns=1)
def f(x):
    from pycompss.api.parameter import INOUT
    return x + 1
y = f(f(1))
ipycompss.stop(sync=True)
print(y)
import hpcnb
print(len(hpcnb.clusters()))
"""


def run(place: Isolation, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python as a user does in a terminal."""
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | place.environ | {"UNITS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_programs_run_unchanged(place: Isolation, tmp_path: Path) -> None:
    """Blocks, collections, constraints; files, methods, groups, exceptions and ignored failures give what the program says."""
    with hpc.Cluster("local", workers_per_node=2, cores_per_worker=2) as cluster:
        cluster.wait_until_ready()
        ran = run(place, "-m", "hpcnb.compat.pycompss", PROGRAMS / "matmul.py", "3", "8")
        assert (ran.returncode, ran.stderr) == (0, "")
        words, rest = ran.stdout.split(", ")
        assert float(words.removeprefix("error ")) < 1e-12
        assert rest == "trace True\n"
        ran = run(place, "-m", "hpcnb.compat.pycompss", PROGRAMS / "words.py", tmp_path)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.splitlines() == [
            "[('a', 3), ('b', 2), ('c', 1)]",
            "6 6",
            "a b a da b a d",
            "[True, False] True False",
            "[0, 1, -1, 3]",
            "7",
            "caught: as told",
        ]


APPTAINER = """#!/bin/sh
# What apptainer does with these words, but for the container.
test "$1" = exec || exit 2; shift
while :; do case $1 in --bind) shift 2;; --*) shift;; *) break;; esac; done
export APPTAINER_CONTAINER=$1; shift
exec "$@"
"""


def test_programs_of_programs_run_unchanged(place: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Binaries with streams, prefixes and exit codes, a container, several versions, I/O tasks and reductions."""
    engine = tmp_path / "bin" / "apptainer"
    engine.parent.mkdir()
    engine.write_text(APPTAINER)
    engine.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("PATH", f"{engine.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SHELL_HERE", "sh")
    place.configure("hpcnb: {sites: {local: {batch: process, software: [gromacs]}}}")
    with hpc.Cluster("local", workers_per_node=1, cores_per_worker=2) as cluster:
        cluster.wait_until_ready()
        ran = run(place, "-m", "hpcnb.compat.pycompss", PROGRAMS / "tools.py", work)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "['two', 'three']",
        "3 ['/'] -1",
        "0",
        "['lines', 'where']",
        "['tools.sif']",
        "well Ada 14",
        "15",
    ]


def test_a_notebook_starts_and_stops(place: Isolation) -> None:
    """`start` has a cluster, `stop(sync=True)` brings the variables and ends the cluster that `start` has started."""
    ran = run(place, "-c", NOTEBOOK)
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", "3\n0\n")
