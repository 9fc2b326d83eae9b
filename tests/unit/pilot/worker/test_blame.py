"""Which part of an object cannot be pickled, as its user would type it."""

from __future__ import annotations

import functools
import threading

import pytest

from hpcnb.errors import CannotSerialize
from hpcnb.pilot.worker.blame import blame, check


class Slotted:
    """One without a dictionary."""

    __slots__ = ("inner",)


class Plain:
    """One with attributes."""


def holding(part):
    """An object with slots around a part."""
    made = Slotted()
    made.inner = part
    return made


def nested():
    """A part deep in several kinds of things."""
    made = Plain()
    made.table = {"rows": [1, (holding(threading.Lock()),)]}
    return made


def captures(part):
    """A function with a part in its closure."""
    return lambda: part


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (threading.Lock(), "x "),
        ({"a": [0, threading.Lock()]}, "x['a'][1] "),
        (nested(), "x.table['rows'][1][0].inner "),
        (captures(threading.Lock()), "x → part "),
        (functools.partial(print, 1, end=threading.Lock()), "x.keywords['end'] "),
        ({threading.Lock(): 1}, "x key "),
    ],
)
def test_the_guilty_part_is_named(value, path):
    """The innermost part that fails by itself, with its type."""
    said = str(blame(value, "x", TypeError("cannot pickle"), where="here"))
    assert said.startswith(path)
    assert "(_thread.lock) cannot be pickled: TypeError" in said


@pytest.mark.parametrize("value", [1, "text", [1, {"a": (2,)}], Plain(), lambda: 3, b"x" * 1000])
def test_what_can_travel_passes(value):
    """Whatever pickle, cloudpickle or Dask can send is no error."""
    check(value, "x")


def test_what_cannot_travel_is_an_error():
    """It is raised as the library's own type."""
    with pytest.raises(CannotSerialize, match=r"x\[1\] \(generator\)"):
        check([1, (n for n in "ab")], "x")
