"""What a newcomer does first: `make demo` in a fresh clone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.isolation import Isolation

ROOT = Path(__file__).parents[2]
THRESHOLDS = re.compile(r"95 % threshold: [0-9.]+ +67 % threshold: [0-9.]+ +\(1,000 permutations\)")


def _make(clone: Path, target: str) -> str:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON", "PYTEST"))
    }
    done = subprocess.run(["make", target], cwd=clone, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fresh_clone_runs_the_demo_and_runs_it_again(isolated: Isolation, tmp_path: Path) -> None:
    """`make demo` makes its own environment, prints the thresholds, and leaves a page with the plot; twice."""
    clone = tmp_path / "hpcnb"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, capture_output=True)
    for _ in ("first", "again"):
        assert THRESHOLDS.search(_make(clone, "demo"))
        page = (clone / "notebooks" / "_output" / "quickstart.html").read_text(encoding="utf-8")
        assert "data:image/png;base64," in page
        assert "ended" in page  # the cluster's last status
