"""The README's commands, cells, configuration and links are true."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import dask.config
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from hpcnb.config import load

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/jupyterhub.md"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, ...]]:
    lines = [line for document in DOCUMENTS for block in blocks(document, "console") for line in block.splitlines()]
    return sorted({tuple(shlex.split(line[2:], comments=True)) for line in lines if line.startswith("$ ")})


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_exists(command):
    """A command that a document shows is a Makefile target, a subcommand of hpcnb, or pip with a folder."""
    program, *arguments = command
    if program == "make":
        assert set(arguments) <= TARGETS
    elif program == "hpcnb":
        if find_spec("hpcnb.cli") is None:
            pytest.fail("the README shows hpcnb's command line, which is not there")
        asked = [sys.executable, "-c", "from hpcnb.cli import main; main()", arguments[0], "--help"]
        subprocess.run(asked, check=True, capture_output=True, timeout=60)
    else:
        assert command == ("pip", "install", ".")
        assert (ROOT / "pyproject.toml").exists()


def test_every_target_says_what_it_does():
    """`make` without a target lists every target that a document shows."""
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    shown = {argument for program, *arguments in commands() if program == "make" for argument in arguments}
    assert shown <= {line.split()[0] for line in listed.splitlines()}


def test_the_notebook_is_python():
    """The README's cells are valid IPython, and about ten lines."""
    cells = blocks("README.md", "python")
    for cell in cells:
        source = "\n".join(cell.splitlines()[1:]) if cell.startswith("%%hpc") else cell
        ast.parse(TransformerManager().transform_cell(source))
    assert 8 <= sum(len(cell.splitlines()) for cell in cells) <= 12


def test_the_configuration_loads(tmp_path, monkeypatch):
    """The README's configuration is accepted as it is printed."""
    (tmp_path / "hpcnb.yaml").write_text(blocks("README.md", "yaml")[0])
    monkeypatch.setattr(dask.config, "paths", [str(tmp_path)])
    site = load().site()
    assert (site.name, site.batch, site.walltime) == ("octopus", "slurm", 3600)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    """A link to a file of the repository finds it."""
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []
