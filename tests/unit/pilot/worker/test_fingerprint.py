"""What a call is known by."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcnb.errors import CannotSerialize
from hpcnb.pilot.worker.fingerprint import environment, fingerprint


def defined(source: str, name: str = "f", **given: Any) -> Any:
    """What a notebook's cell defines."""
    space = {"__name__": "__main__", **given}
    exec(compile(textwrap.dedent(source), f"<cell {id(space)}>", "exec"), space)
    return space[name]


BASE = """
def f(x):
    return [g(y) + k for y in x]
def g(x):
    return x * 2
k = 3
"""


def test_code_is_known_by_what_it_does() -> None:
    """Neither the cell's name nor the line on which a function begins counts."""
    moved = (
        "\n\nk = 3\n\ndef g(x):\n    return x * 2\n\ndef f(x):\n    # says nothing\n    return [g(y) + k for y in x]\n"
    )
    assert fingerprint(defined(BASE)) == fingerprint(defined(moved))


@pytest.mark.parametrize(
    ("old", "new"),
    [("x * 2", "x * 3"), ("k = 3", "k = 4"), ("+ k", "- k"), ("def f(x)", "def f(x, z=1)"), ("g(y)", "g(y, *[])")],
)
def test_one_change_is_another_function(old: str, new: str) -> None:
    """A change of the code, of what it calls, of a global or of a default is seen."""
    assert old in BASE
    assert fingerprint(defined(BASE)) != fingerprint(defined(BASE.replace(old, new)))


def test_what_a_closure_holds_counts() -> None:
    """Two closures of one code are two functions."""
    make = defined("def f(k):\n    def inner(x):\n        return x + k\n    return inner")
    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))


def test_what_an_installed_decorator_holds_counts() -> None:
    """Two functions that one decorator of a package wraps, without saying so, are two functions."""
    decorator = defined("def f(fn):\n    def inner(x):\n        return fn(x)\n    return inner\nf.__module__ = 'json'")
    one, other = decorator(defined("def f(x):\n    return x + 1")), decorator(defined("def f(x):\n    return x + 2"))
    one.__module__ = other.__module__ = "json"
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(one)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    import far_from_it\n    return far_from_it.g(x)",
        "def f(x):\n    from near_it import h\n    return h(x)",
        "import near_it\ndef f(x):\n    return near_it.h(x)",
    ],
    ids=["import", "from-import", "module"],
)
def test_a_module_that_is_imported_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """What a function imports when it runs, and what the user's module imports in turn, count by their bytes, too."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "near_it.py").write_text("from far_from_it import g\ndef h(x):\n    return g(x)\n")
    prints = []
    for factor in (2, 2, 3):
        (tmp_path / "far_from_it.py").write_text(f"def g(x):\n    return x * {factor}\n")
        for name in ("near_it", "far_from_it"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        prints.append(fingerprint(defined(source)))
    assert prints[0] == prints[1] != prints[2]


def test_no_package_is_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a function imports from a package counts by the package's version, and nobody waits for its import."""
    monkeypatch.delitem(sys.modules, "playwright", raising=False)
    fingerprint(defined("def f():\n    import playwright\n    return playwright"))
    assert "playwright" not in sys.modules


def test_recursion_ends() -> None:
    """Functions that call each other, and lists that hold themselves."""
    source = "def f(x):\n    return g(x - 1) if x else 0\ndef g(x):\n    return f(x - 1) if x else 1"
    assert fingerprint(defined(source)) == fingerprint(defined(source))
    itself: list[Any] = []
    itself.append(itself)
    assert fingerprint(itself) == fingerprint([itself][0])


CLASS = """
import dataclasses, enum
class Colour(enum.Enum):
    RED = 1
    BLUE = 2
@dataclasses.dataclass
class C:
    y: int = 1
    colour: Colour = Colour.RED
    @property
    def twice(self):
        return self.y * 2
    @staticmethod
    def new():
        return C()
"""


def test_classes_of_a_notebook_and_their_objects() -> None:
    """A class is its code; an object its class and its state; a member of an enumeration its value."""
    one, same, other = (defined(s, "C") for s in (CLASS, CLASS, CLASS.replace("* 2", "* 3")))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    assert fingerprint(one(4)) == fingerprint(same(4)) != fingerprint(one(5))
    assert fingerprint(one(4)) != fingerprint(other(4))
    red, blue = (defined(CLASS, "Colour")[name] for name in ("RED", "BLUE"))
    assert fingerprint(red) == fingerprint(defined(CLASS, "Colour").RED) != fingerprint(blue)


def test_a_module_beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts by its bytes; a function taken from it by its code."""
    monkeypatch.syspath_prepend(tmp_path)
    prints = []
    for factor in (2, 2, 3):
        (tmp_path / "beside_it.py").write_text(f"def g(x):\n    return x * {factor}\n")
        monkeypatch.delitem(sys.modules, "beside_it", raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        module = __import__("beside_it")
        whole = defined("def f(x):\n    return beside_it.g(x)", beside_it=module)
        prints.append((fingerprint(whole), fingerprint(module.g)))
    assert prints[0] == prints[1]
    assert prints[0][0] != prints[2][0]
    assert prints[0][1] != prints[2][1]


def test_values_are_known_by_content() -> None:
    """Equal content is one print, one changed byte another; 1, 1.0 and True are three things."""
    array = np.arange(1000)
    changed = array.copy()
    changed[500] += 1
    assert fingerprint(array) == fingerprint(array.copy()) != fingerprint(changed)
    assert len({fingerprint(x) for x in (1, 1.0, True, "1", b"1", [1], (1,), {1}, {1: 1}, None)}) == 10
    assert fingerprint({"b", "a", "c"}) == fingerprint({"c", "b", "a"})
    assert fingerprint([[1], [1]]) == fingerprint([[1]] * 2)
    assert fingerprint(functools.partial(pow, 2)) != fingerprint(functools.partial(pow, 3))


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    """The same content at another path is the same; one byte more is not."""
    one, other, longer = tmp_path / "one", tmp_path / "sub", tmp_path / "longer"
    for path, content in ((one, "abc"), (other, "abc"), (longer, "abcd")):
        path.write_text(content)
    assert fingerprint(one) == fingerprint(other) != fingerprint(longer)
    assert fingerprint(str(one)) != fingerprint(str(other))


def test_another_process_comes_to_the_same(tmp_path: Path) -> None:
    """Whatever the hash seed of strings and the address of objects."""
    script = tmp_path / "it.py"
    script.write_text(
        "from hpcnb.pilot.worker.fingerprint import *\n"
        + BASE
        + CLASS
        + "print(fingerprint(f, C(3), {'a', 'b', 'c'}, environment()))"
    )
    root = str(Path(__file__).parents[4])
    said = {
        subprocess.run(
            [sys.executable, script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_what_has_no_content_is_an_error() -> None:
    """A lock is nothing that could be met again; the message says what to do."""

    @dataclasses.dataclass
    class Guarded:
        lock: Any

    with pytest.raises(CannotSerialize, match="cache=True"):
        fingerprint(threading.Lock())
    with pytest.raises(CannotSerialize, match="lock cannot be compared"):
        fingerprint([Guarded(threading.Lock())])


def test_the_environment_is_python_and_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of one package is another environment."""
    before = environment()
    environment.cache_clear()
    assert environment() == before
    environment.cache_clear()
    found = [*importlib.metadata.distributions()]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found[1:])
    assert environment() != before
    environment.cache_clear()
