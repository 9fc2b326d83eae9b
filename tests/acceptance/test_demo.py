"""What a newcomer does first, in a fresh clone: `make demo`, then `make lab`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.isolation import Isolation
from tests.site.account import until

ROOT = Path(__file__).parents[2]
THRESHOLDS = re.compile(r"95 % threshold: [0-9.]+ +67 % threshold: [0-9.]+ +\(1,000 permutations\)")
LINK = re.compile(r"(?P<server>http://127\.0\.0\.1:\d+)/lab/tree/quickstart\.ipynb\?token=\w+")


def _make(clone: Path, target: str) -> str:
    done = subprocess.run(["make", target], cwd=clone, env=_environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _environ() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON", "PYTEST"))
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fresh_clone_runs_the_demo_and_runs_it_again(isolated: Isolation, tmp_path: Path) -> None:
    """`make demo` makes its own environment, prints the thresholds, and leaves a page with the plot; twice. Then `make lab` opens it.

    The panel, which takes long to build, is there for `make lab`, and `make demo` neither waits for it nor takes it away.
    """
    clone = tmp_path / "hpcnb"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, capture_output=True)
    for _ in ("first", "again"):
        assert THRESHOLDS.search(_make(clone, "demo"))
        page = (clone / "notebooks" / "_output" / "quickstart.html").read_text(encoding="utf-8")
        assert "data:image/png;base64," in page
        assert "ended" in page  # the cluster's last status
    assert not _panel(clone).exists()
    _make(clone, ".venv/.with-lab")
    _lab(clone, tmp_path)
    assert _panel(clone).exists()
    (clone / ".venv" / ".with-demo").unlink()
    assert THRESHOLDS.search(_make(clone, "demo"))
    assert _panel(clone).exists()


def _panel(clone: Path) -> Path:
    return clone / ".venv" / "share" / "jupyter" / "labextensions" / "hpcnb" / "package.json"


def _lab(clone: Path, folder: Path) -> None:
    """`make lab` opens a browser, and prints a link, which lead to the notebook."""
    settings = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    browser, opened, log = (folder / name for name in ("browser", "opened", "lab.log"))
    browser.write_text(f'#!/bin/sh\ncp "${{1#file://}}" {opened}\n')
    browser.chmod(0o700)
    with log.open("wb") as out:
        lab = subprocess.Popen(
            ["make", "lab"],
            cwd=clone,
            env=_environ() | settings | {"BROWSER": f"{browser} %s", "JUPYTER_PORT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        link = until(lambda: LINK.search(log.read_text()) or lab.poll() is not None)
        assert isinstance(link, re.Match), log.read_text()
        with httpx.Client(timeout=60, follow_redirects=True) as client:
            assert "JupyterLab" in client.get(link[0]).text
            assert client.get(f"{link['server']}/api/contents/quickstart.ipynb").status_code == 200
        assert "/lab/tree/quickstart.ipynb" in until(lambda: opened.exists() and opened.read_text())
    finally:
        os.killpg(lab.pid, signal.SIGTERM)
        lab.wait(60)
