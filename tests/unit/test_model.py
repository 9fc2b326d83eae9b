"""The records that cross process borders, and the states of a cluster."""

from __future__ import annotations

import dataclasses
import json
import types
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb import model
from hpcnb.model import MOVES, ClusterStatus, IllegalMove, State, move

RECORDS = [
    value
    for value in vars(model).values()
    if isinstance(value, type) and issubclass(value, model.Record) and value is not model.Record
]
each_record = pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
FIXED = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
}


def values(hint):
    """A strategy for the values of a type hint that records use."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(values, args))
    if hint is type(None):
        return st.none()
    if origin is tuple:
        return st.lists(values(args[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{field.name: values(hints[field.name]) for field in dataclasses.fields(hint)})
    return FIXED[hint] if hint in FIXED else st.sampled_from(hint)


@each_record
@given(data=st.data())
def test_a_record_survives_json(cls, data):
    """A record written as JSON text and read back is equal, enums and nested records included."""
    record = data.draw(values(cls))
    assert cls.from_json(json.loads(json.dumps(record.to_json()))) == record


@each_record
def test_a_record_is_frozen_and_keyword_only(cls):
    """Records are values: made by keyword, never changed."""
    assert cls.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls))


@each_record
@given(data=st.data())
def test_a_newer_peers_field_is_left_out(cls, data):
    """A field that this version does not know is ignored, so that versions may differ by a little."""
    record = data.draw(values(cls))
    assert cls.from_json(record.to_json() | {"from_the_future": 1}) == record


def test_states_are_in_order_and_all_have_moves():
    """The states are the seven of ARCHITECTURE.md, and each says what may follow it."""
    assert [*MOVES] == [*State]
    assert " ".join(State) == "requested queued starting ready unreachable draining ended"


@given(st.lists(st.sampled_from(State), max_size=30))
def test_a_walk_of_states_is_legal_or_refused(asked):
    """However states are asked for, a cluster only makes legal moves, and nothing follows the end."""
    state = State.REQUESTED
    for new in asked:
        if new is state or new in MOVES[state]:
            assert state is not State.ENDED or new is State.ENDED
            state = move(state, new)
            assert state is new
        else:
            with pytest.raises(IllegalMove, match=f"from {state} to {new}"):
                move(state, new)


@pytest.mark.parametrize("state", [state for state in State if state is not State.ENDED])
def test_every_state_can_end(state):
    """From anywhere, a cluster can end at once."""
    assert move(state, State.ENDED) is State.ENDED


def test_every_state_is_reached():
    """No state is without a way to it from the first."""
    reached, new = set(), {State.REQUESTED}
    while new:
        reached |= new
        new = {after for state in new for after in MOVES[state]} - reached
    assert reached == {*State}


def test_a_snapshot_names_its_error_as_plain_values():
    """The error in a snapshot is plain JSON, so that a reader needs no class for it."""
    hint = typing.get_type_hints(ClusterStatus)["error"]
    assert hint == dict[str, str] | None
