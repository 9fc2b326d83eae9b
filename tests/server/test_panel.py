"""JupyterLab's panel: its own tests, what the wheel carries, and an installation without Node.js."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PANEL = ROOT / "labextension"
SHARE = "hpcnb-0.1.0.data/data/share/jupyter/labextensions/hpcnb/"


@pytest.mark.skipif(not (PANEL / "lib").exists(), reason="the panel was not built: apt-get install npm")
def test_its_own_tests():
    """What the panel keeps and says, without a browser."""
    done = subprocess.run(["npm", "test"], cwd=PANEL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def tree(folder):
    """A copy of what a wheel is built from."""
    kept = ("hpcnb", "etc", "labextension")
    for name in kept:
        leave = shutil.ignore_patterns("node_modules", "dist", "lib", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_without_node_the_rest_is_installed(tmp_path):
    """A source tree on a machine without Node.js gives a wheel without the panel, and it is said once."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "made")]
    done = subprocess.run(
        command,
        cwd=tree(tmp_path / "tree"),
        env=os.environ | {"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout + done.stderr).count("There is no Node.js here") == 1
    with zipfile.ZipFile(*(tmp_path / "made").glob("*.whl")) as wheel:
        names = wheel.namelist()
    assert "hpcnb/server/openapi.yaml" in names
    assert not [name for name in names if name.startswith(SHARE)]


@pytest.mark.skipif(not (PANEL / "dist").exists(), reason="the panel was not built: apt-get install npm")
def test_it_is_enabled_by_being_installed(tmp_path):
    """`jupyter labextension list` and `jupyter server extension list` know it, without anybody having enabled it."""
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_DATA_DIR": str(tmp_path)}
    said = {}
    for kind in "labextension", "server extension":
        command = [sys.executable, "-m", "jupyter", *kind.split(), "list"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said[kind] = done.stdout + done.stderr
    assert "hpcnb v0.1.0 \x1b[32menabled\x1b[0m" in said["labextension"]
    assert "hpcnb.server \x1b[32menabled\x1b[0m" in said["server extension"]
    built = json.loads((PANEL / "dist" / "package.json").read_text())
    assert (built["name"], built["version"]) == ("hpcnb", "0.1.0")
