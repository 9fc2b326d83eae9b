"""What is imported when: nothing heavy before it is needed, and every name that is promised."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hpcnb
from hpcnb import errors

HEAVY = {
    *("IPython.display", "asyncio", "bokeh", "click", "cryptography", "dask", "distributed", "ipywidgets", "jinja2"),
    *("matplotlib", "numpy", "pandas", "paramiko", "platformdirs", "psutil", "pydantic", "rich", "sklearn", "tornado"),
    *("websocket", "yaml"),
}

KERNEL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "hpcnb")
print(*sorted(set(sys.modules) - before))
"""


def printed(code):
    """The words that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_hpcnb_imports_nothing_heavy():
    """`import hpcnb` brings itself, its errors, and what the standard library needs for that."""
    found = printed("import sys, hpcnb; print(*sys.modules)")
    assert {name for name in found if name.split(".")[0] in HEAVY or name in HEAVY} == set()
    assert {name for name in found if name.startswith("hpcnb")} == {"hpcnb", "hpcnb.errors"}


def test_loading_the_extension_imports_nothing_heavy():
    """`%load_ext hpcnb` registers the magics, and imports nothing of what they will need; the record must hear from now on."""
    found = printed(KERNEL)
    assert {name for name in found if name.split(".")[0] in HEAVY} == set()
    assert {name for name in found if name.startswith("hpcnb")} == {
        "hpcnb",
        "hpcnb.errors",
        "hpcnb.notebook",
        "hpcnb.notebook.record",
        "hpcnb.printed",
    }


def test_the_magics_are_there():
    """Both the line and the cell magic are registered."""
    code = (
        KERNEL + "print(*(kind for kind in shell.magics_manager.magics if 'hpc' in shell.magics_manager.magics[kind]))"
    )
    assert {"line", "cell"} <= printed(code)


@pytest.mark.parametrize(
    "module", ["hpcnb.handle", "hpcnb.agent.client", "hpcnb.cli", "hpcnb.cli.clusters", "hpcnb.server.app"]
)
def test_the_command_line_needs_no_dask(module):
    """A command that only speaks to the agent imports neither Dask's engine nor SSH."""
    found = {name.split(".")[0] for name in printed(f"import sys, {module}; print(*sys.modules)")}
    assert found & {"distributed", "paramiko", "pandas", "numpy", "IPython", "bokeh"} == set()


def test_every_name_is_there():
    """Each promised name can be had, and is the one its module has."""
    for name in hpcnb.__all__:
        value = getattr(hpcnb, name)
        assert getattr(value, "__name__", name).rsplit(".")[-1] == name


def test_all_is_sorted_and_complete():
    """`__all__` is sorted, without doubles, and says what `dir` and a star import give."""
    assert hpcnb.__all__ == sorted(set(hpcnb.__all__))
    assert {*dir(hpcnb)} == {*hpcnb.__all__, "__version__"}
    space = {}
    exec("from hpcnb import *", space)
    assert {name for name in space if not name.startswith("__")} == {*hpcnb.__all__}


def test_every_error_is_exported():
    """What can be raised can be caught by its name at the top."""
    assert {*errors.__all__} - {"error_from_json"} <= {*hpcnb.__all__}
    for name in errors.__all__:
        assert getattr(hpcnb, name) is getattr(errors, name)


def test_a_name_that_does_not_exist():
    """A misspelt name is an `AttributeError` that says so."""
    with pytest.raises(AttributeError, match="module 'hpcnb' has no attribute 'Klaster'"):
        hpcnb.Klaster  # noqa: B018


def test_importing_twice_is_the_same():
    """A lazily imported name is the same object each time."""
    assert hpcnb.Cluster is hpcnb.Cluster
