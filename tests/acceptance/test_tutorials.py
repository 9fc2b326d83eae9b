"""The tutorial notebooks run as they are printed, on the embedded site."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.pilot.host import environment

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["queues", "tasks", "watching"])
def test_a_tutorial(isolated, tmp_path, name):
    """Each cell runs, and the page is saved."""
    for file in ("run.py", f"{name}.ipynb"):
        shutil.copy(NOTEBOOKS / file, tmp_path)
    command = [sys.executable, "run.py", f"{name}.ipynb"]
    env = environment() | isolated.environ
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "_output" / f"{name}.html").exists()
