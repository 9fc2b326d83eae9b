"""Who may import whom: the table of CONTRIBUTING.md, held against the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hpcnb

ROOT = Path(hpcnb.__file__).parent

FLOORS = [
    {"errors", "model", "units", "config"},
    {"pilot"},
    {"link"},
    {"site"},
    {"agent"},
    {
        "cell",
        "cluster",
        "compat",
        "dropbox",
        "farewell",
        "kept",
        "queue",
        "facts",
        "scaling",
        "notebook_name",
        "objects",
        "past",
        "report",
        "printed",
        "said",
        "serializing",
        "session",
        "future",
        "tasks",
        "handle",
        "choice",
        "views",
        "comm",
    },
    {"notebook", "cli", "server", "kernels"},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}

# The two that stand apart: what they may import is said, not derived.
APART = {
    "pilot": FLOORS[0] - {"config"} | {"pilot", "link"},
    "sandbox": FLOORS[0] | {"site", "sandbox"},
}

# What runs inside an allocation finds there the standard library, these, and nothing else.
AT_THE_SITE = {"pilot", "link", "errors", "model", "units"}
THERE = {
    "IPython",
    "cloudpickle",
    "dask",
    "distributed",
    "ipykernel",
    "jupyter_client",
    "psutil",
    "tblib",
    "tornado",
    "traitlets",
    "zmq",
}

# Libraries that one part of the package hides from the others.
KNOWN_ONLY_TO = {
    "paramiko": {"site"},
    "pydantic": {"config"},
    "yaml": {"config", "dropbox", "queue"},
    "click": {"cli", "notebook"},
    "rich": {"cli", "notebook"},
    "IPython": {"", "notebook", "pilot"},
}


def part_of(path: Path) -> str:
    """The first name below hpcnb: ``site`` for hpcnb/site/shell.py, empty for hpcnb/__init__.py."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path: Path) -> list[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its floor"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def ours(path: Path) -> set[str]:
    """The parts of hpcnb that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("hpcnb.")}


def others(path: Path) -> set[str]:
    """The libraries that a file imports, by their first names."""
    return {name.split(".")[0] for name in imports(path)} - {"hpcnb", "__future__"} - sys.stdlib_module_names


SOURCES = sorted(ROOT.rglob("*.py"))
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT.parent)))


def test_the_table_is_the_one_contributors_read():
    """CONTRIBUTING.md shows the same floors with the same parts as this test."""
    text = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \w+ \| ([^|]+) \|", text, re.MULTILINE)
    assert {int(number): set(re.findall(r"`hpcnb\.(\w+)`", parts)) for number, parts in rows} == dict(enumerate(FLOORS))


@each_source
def test_imports_go_down_only(path):
    """No module imports from a floor above its own."""
    part = part_of(path)
    if part == "":
        return  # the face of the package names what it exports
    assert part in FLOOR or part in APART, f"{part} is on no floor: say in FLOORS and CONTRIBUTING.md where it belongs"
    allowed = APART.get(part) or {other for other, floor in FLOOR.items() if floor <= FLOOR[part]}
    if part == "cli":
        allowed |= {"sandbox"}
    assert ours(path) - allowed - {"__version__", "__main__"} == set()


@each_source
def test_libraries_stay_where_they_are_known(path):
    """What paramiko is, is known in hpcnb.site alone, pydantic in hpcnb.config, and so on."""
    used = others(path)
    assert [library for library, parts in KNOWN_ONLY_TO.items() if library in used and part_of(path) not in parts] == []


@each_source
def test_what_runs_at_the_site_needs_little(path):
    """The code that is shipped into an allocation imports nothing that a site does not have."""
    if part_of(path) in AT_THE_SITE:
        assert others(path) - THERE == set()


def test_importing_hpcnb_is_cheap():
    """`import hpcnb` brings in none of the heavy libraries."""
    code = "import sys, hpcnb; print(*{'dask', 'distributed', 'paramiko', 'pydantic', 'IPython', 'asyncio'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
