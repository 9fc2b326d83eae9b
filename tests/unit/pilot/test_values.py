"""Variables travel by value, keep what they share, and are named when they cannot."""

from __future__ import annotations

import builtins
import pickle

import numpy as np
import pytest

from hpcnb.errors import CannotSerialize
from hpcnb.pilot.values import pack, size, unpack


def typed_in(source: str) -> dict:
    """What a notebook's namespace is after a cell."""
    namespace = {"__name__": "__main__", "__builtins__": builtins}
    exec(source, namespace)
    return namespace


def fresh() -> dict:
    """A namespace in which nothing was typed yet."""
    return typed_in("")


def test_values_come_back_as_they_were():
    """Plain values and arrays survive the journey."""
    values = {"a": [1, {"b": (2, None)}], "x": np.arange(12).reshape(3, 4)}
    found = unpack(pack(values))
    assert found["a"] == values["a"]
    assert (found["x"] == values["x"]).all()


def test_arrays_are_not_copied_when_packed_and_writable_when_unpacked():
    """An array travels as a frame of its own, and the other side may change it."""
    array = np.zeros(1000)
    frames = pack({"array": array})
    assert len(frames) == 2
    array[0] = 5
    found = unpack([bytes(frame) for frame in frames])["array"]
    assert found[0] == 5
    found[1] = 6
    assert array[1] == 0


def test_what_variables_share_stays_shared():
    """Two names of one list are two names of one list there."""
    shared = [1]
    found = unpack(pack({"a": shared, "b": {"inner": shared}}))
    assert found["a"] is found["b"]["inner"]


def test_a_function_lives_in_the_namespace_it_arrives_in():
    """It sees later changes of globals there, and brings along those that are missing."""
    here = typed_in("k = 3\ndef g(x): return x + k\ndef f(x): return g(x) * 2")
    there = fresh()
    there.update(unpack(pack({"f": here["f"]}), there))
    assert there["f"](1) == 8
    assert there["k"] == 3
    there["k"] = 10
    assert there["f"](1) == 22
    assert there["__builtins__"] is builtins


def test_a_function_does_not_overwrite_what_is_there():
    """Globals of the receiver win over those that a function brings."""
    here = typed_in("k = 3\ndef f(): return k")
    there = typed_in("k = 4")
    assert unpack(pack({"f": here["f"]}), there)["f"]() == 4


def test_methods_closures_and_recursion_find_their_globals():
    """Classes, inner functions and functions that call themselves work after the journey."""
    here = typed_in(
        "base = 1\n"
        "class C:\n    def m(self): return base\n"
        "def make(n):\n    def inner(): return n + base\n    return inner\n"
        "add = make(5)\n"
        "def fact(n): return n * fact(n - 1) if n else base"
    )
    there = fresh()
    there.update(unpack(pack({name: here[name] for name in ("C", "add", "fact")}), there))
    assert (there["C"]().m(), there["add"](), there["fact"](5)) == (1, 6, 120)


def test_a_class_keeps_its_identity_there_and_back():
    """An instance that comes back is one of the class that was sent."""
    here = typed_in("class C: pass")
    there = unpack(pack({"C": here["C"]}), fresh())
    assert isinstance(unpack(pack({"c": there["C"]()}), here)["c"], here["C"])


def test_functions_of_modules_are_not_touched():
    """Only what was typed in belongs to the namespace."""
    there = fresh()
    found = unpack(pack({"dumps": pickle.dumps, "mean": np.mean}), there)
    assert found["mean"] is np.mean
    assert set(there) == {"__name__", "__builtins__"}


class Unwilling:
    def __reduce__(self):
        raise RuntimeError("I stay")


@pytest.mark.parametrize(
    ("value", "words"),
    [((i for i in ()), "culprit (generator)"), (Unwilling(), "Unwilling) cannot be sent: RuntimeError: I stay")],
)
def test_what_cannot_travel_is_named(value, words):
    """The message says which variable of several it is, of what type, and what to do."""
    with pytest.raises(CannotSerialize) as caught:
        pack({"fine": 1, "culprit": value})
    assert words in str(caught.value)
    assert "Create culprit in the cell" in caught.value.remedy


@pytest.mark.parametrize("large", [np.zeros(2000), "x" * 20_000, [0.5] * 20_000])
def test_what_is_too_large_is_named(large):
    """With a limit the large variable is named, and how to allow it."""
    with pytest.raises(CannotSerialize, match="large .* is larger than") as caught:
        pack({"small": 1, "large": large}, limit=10_000)
    assert "-i large" in caught.value.remedy


def test_small_variables_that_are_too_large_together_are_refused():
    """The limit is for all of them; the largest is named."""
    with pytest.raises(CannotSerialize, match="the largest is b"):
        pack({"a": "x" * 600, "b": "y" * 700}, limit=1000)


def test_size_counts_all_frames():
    """The stream and its buffers."""
    assert 8000 < size(pack({"a": np.zeros(1000)})) < 8400
