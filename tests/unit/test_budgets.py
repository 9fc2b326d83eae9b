"""Budgets: how long a function and a module may be, how a module is named and begins, and that tests say what they test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import hpcnb

ROOT = Path(hpcnb.__file__).parent
TESTS = Path(__file__).parents[1]

LONGEST_FUNCTION = 60
LONG_FUNCTION, SHARE_OF_LONG = 40, 0.02
LONGEST_MODULE = 400
ARGUMENTS = 6
FORBIDDEN = {"utils", "util", "helpers", "common", "misc", "base", "manager"}


def sources(root: Path = ROOT) -> list[Path]:
    return sorted(root.rglob("*.py"))


def functions(root: Path = ROOT) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function below a folder, with the place that a message names."""
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(root.parent)}:{node.lineno} {node.name}", node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code: a docstring is worth its length."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None and first.end_lineno:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def test_no_function_is_too_long():
    """A function that needs more than 60 lines is two functions."""
    assert [place for place, node in functions() if length(node) > LONGEST_FUNCTION] == []


def test_few_functions_are_long():
    """At most two functions in a hundred have more than 40 lines."""
    every = list(functions())
    long = [place for place, node in every if length(node) > LONG_FUNCTION]
    assert len(long) <= SHARE_OF_LONG * len(every), long


def test_no_function_takes_too_many_arguments():
    """More than six arguments are given by keyword."""
    many = [
        place
        for place, node in functions()
        if len([arg for arg in node.args.posonlyargs + node.args.args if arg.arg not in {"self", "cls"}]) > ARGUMENTS
    ]
    assert many == []


def test_no_module_is_too_long():
    """A module that needs more than 400 lines has two jobs."""
    assert [
        str(path) for path in sources() if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_MODULE
    ] == []


def test_every_module_says_its_job():
    """A module with code in it starts with a docstring whose first line is a sentence of its own."""
    silent = []
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and not (ast.get_docstring(tree) or "").split("\n\n")[0].endswith((".", ":")):
            silent.append(str(path))
    assert silent == []


def test_no_module_is_a_drawer():
    """No module is named after nothing: utils, helpers, common."""
    assert [str(path) for path in sources() if path.stem in FORBIDDEN or path.parent.name in FORBIDDEN] == []


def test_every_test_says_what_it_tests():
    """Every test function has a docstring."""
    silent = [
        place for place, node in functions(TESTS) if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []
