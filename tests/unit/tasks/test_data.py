"""Versions: who finds which, when an entry goes, and how an object becomes what it has become."""

from __future__ import annotations

import array
import gc

import numpy as np
import pytest

from hpcnb.tasks.data import Datum, Ledger, Version, refreshed
from hpcnb.tasks.directions import Access


def version(*writers: int) -> Version:
    return Version(future=object(), writers=writers)


def after(datum, versions):
    """What comes before or after tasks that write beside each other, for a datum."""
    return version(*(writer for one in versions or [datum.version] for writer in one.writers))


def test_who_writes_makes_the_next_version():
    """Each finds what was written last before it."""
    datum = Datum(key=1)
    assert datum.seen_by(Access.INOUT, after) is None
    assert not datum.changed
    for number in range(2):
        datum.written(Access.INOUT, version(number))
        assert datum.seen_by(Access.IN, after).writers == (number,)
    assert datum.changed


def test_concurrent_writers_find_what_was_before_them():
    """Those that write beside each other find one version; who comes after them finds what all of them have made."""
    datum = Datum(key=1, version=version(0))
    for number in (1, 2):
        assert datum.seen_by(Access.CONCURRENT, after).writers == (0,)
        datum.written(Access.CONCURRENT, version(number))
    assert datum.seen_by(Access.COMMUTATIVE, after).writers == (1, 2)
    assert datum.seen_by(Access.IN, after).writers == (1, 2)


def test_an_entry_goes_with_its_object():
    """What nothing refers to any more is forgotten; a list is held, so that its identity stays its own."""
    ledger = Ledger()

    class Thing:
        """Can be referred to weakly."""

    thing, things = Thing(), []
    assert ledger.object(thing) is ledger.object(thing) is ledger.find(thing)
    ledger.object(things)
    known = id(thing)
    del thing
    gc.collect()
    assert known not in ledger._objects
    assert ledger.find(things).hold is things
    ledger.forget(ledger.find(things))
    assert ledger.find(things) is None


def test_what_cannot_be_changed():
    """A number, a text or a tuple cannot be written in place: an error that says what to do."""
    for value in (1, "a", (1, 2), None):
        with pytest.raises(TypeError, match="cannot be changed in place.* have the task return the new"):
            Ledger().object(value)


def test_a_file_is_known_by_its_path(tmp_path, monkeypatch):
    """However it is named, a file is one."""
    monkeypatch.chdir(tmp_path)
    ledger = Ledger()
    assert ledger.path("a/../b") is ledger.path(tmp_path / "b")


class Plain:
    def __init__(self, a):
        self.a = a


class Slotted(Plain):
    __slots__ = ("b",)


@pytest.mark.parametrize(
    ("old", "new"), [([1], [2, 3]), ({1: 1}, {2: 2}), ({1}, {2}), (bytearray(b"1"), bytearray(b"23"))], ids=str
)
def test_what_is_refreshed_in_place(old, new):
    """Lists, dictionaries, sets and byte arrays become what they have become."""
    assert refreshed(old, new) is old
    assert old == new


def test_what_else_is_refreshed_in_place():
    """So do arrays of one shape and type, and objects whose class is plain."""
    array = np.zeros(2)
    assert refreshed(array, np.ones(2)) is array
    assert array[1] == 1
    plain = Plain(1)
    assert refreshed(plain, Plain(2)) is plain
    assert plain.a == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (np.zeros(2), np.ones(3)),
        (np.zeros(2), np.zeros(2, int)),
        (Slotted(1), Slotted(2)),
        (Plain(1), [1]),
        (array.array("i", [1]), array.array("i", [2])),
    ],
    ids=["shape", "type", "slots", "class", "unknown"],
)
def test_what_is_replaced(old, new):
    """Whatever cannot be made the other as a whole is left alone, and the new one is given."""
    assert refreshed(old, new) is new
