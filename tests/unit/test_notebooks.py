"""The notebooks are kept clean, and their runner tells how they went."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    """A notebook is kept without outputs, counts and machine's metadata, so that a change shows what changed."""
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.fixture
def run(tmp_path):
    """A function that runs cells by a copy of the runner, in a folder of its own."""
    runner = tmp_path / "run.py"
    runner.write_bytes((NOTEBOOKS / "run.py").read_bytes())

    def run(*cells):
        path = tmp_path / "trial.ipynb"
        notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path.write_text(nbformat.writes(notebook))
        return subprocess.run([sys.executable, runner, path], capture_output=True, text=True, timeout=100, check=False)

    return run


def test_the_runner_shows_progress_results_and_the_page(run, tmp_path):
    """Each cell is announced, its text shown, and the executed notebook saved as HTML."""
    done = run("print('first')", "display({'text/plain': 'old'}, raw=True, display_id='d')\n1 + 1")
    assert done.returncode == 0, done.stderr
    for line in ("[1/2] print('first')", "    first", "[2/2] display(", "    2"):
        assert line in done.stdout
    page = tmp_path / "_output" / "trial.html"
    assert f"done: {page}" in done.stdout
    assert "first" in page.read_text()


def test_the_runner_fails_with_the_cell_and_its_traceback(run, tmp_path):
    """A failing cell ends the run: exit status 1, the cell, the traceback without colours, and the page up to there."""
    done = run("x = 0", "1 / x", "print('never')")
    assert done.returncode == 1
    assert "✗ [2/3] 1 / x" in done.stdout
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "\x1b[" not in done.stdout
    assert (tmp_path / "_output" / "trial.html").exists()
