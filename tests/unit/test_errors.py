"""The tree of errors: as drawn, as exported, and as it travels."""

from __future__ import annotations

import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hpcnb
from hpcnb import errors
from hpcnb.errors import HPCError, JobTimeout, SiteError, error_from_json

CLASSES = [getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)]
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
FIELDS = st.fixed_dictionaries({"where": st.text(), "evidence": st.text(), "remedy": st.text()})


def drawn() -> dict[str, str]:
    """Name → name of its parent, as the tree in the module's docstring draws them."""
    parents, above = {}, {}
    for line in (errors.__doc__ or "").splitlines():
        if not (found := re.match(r"([│├└─ ]*)((?:[A-Z]\w+(?:, )?)+)(?:  |$)", line)):
            continue
        depth = len(found[1]) // 4
        for name in found[2].split(", "):
            parents[name] = above.get(depth - 1, "Exception")
            above[depth] = name
    return parents


def test_the_tree_is_drawn_as_it_is():
    """The drawing at the head of the module has every class, under its own parent."""
    assert drawn() == {cls.__name__: cls.__base__.__name__ for cls in CLASSES}


def test_the_exported_names_are_sorted_and_complete():
    """`__all__` is sorted, names every class, and hpcnb exports the same names."""
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, HPCError)}
    assert errors.__all__ == sorted(errors.__all__)
    assert defined == {cls.__name__ for cls in CLASSES}
    assert all(getattr(hpcnb, name) is getattr(errors, name) for name in errors.__all__)


@each_class
def test_every_class_says_when(cls):
    """Each class has a docstring of its own."""
    assert cls.__doc__
    assert cls is HPCError or cls.__doc__ != cls.__base__.__doc__


@each_class
@given(what=st.text(), fields=FIELDS)
def test_every_class_travels(cls, what, fields):
    """Pickled or as JSON, an error arrives as its own class with all its fields."""
    error = cls(what, **fields)
    for copy in (pickle.loads(pickle.dumps(error)), error_from_json(json.loads(json.dumps(error.to_json())))):
        assert type(copy) is cls
        assert copy.to_json() == error.to_json()
        assert str(copy) == str(error)


def test_a_private_class_travels_as_the_public_one():
    """The other side is told of a class that it knows."""

    class Private(errors.ConnectionFailed):
        pass

    assert type(errors.error_from_json(Private("x").to_json())) is errors.ConnectionFailed


def test_a_message_has_its_four_parts():
    """What, where, the evidence and the remedy appear in this order."""
    error = JobTimeout("the job ran out of walltime", where="octopus, job 7", evidence="a\nb", remedy="Ask for more.")
    assert str(error) == "the job ran out of walltime (octopus, job 7)\n  | a\n  | b\n→ Ask for more."
    assert str(SiteError("no answer")) == "no answer"


@pytest.mark.parametrize("name", ["Exception", "Any", "error_from_json", "", "NewerError", "__all__"])
def test_an_unknown_type_is_an_hpc_error(name):
    """An error of a newer peer, or a name that is no error, is rebuilt as the root."""
    assert type(error_from_json({"type": name, "what": "x"})) is HPCError
