"""Directions are read from annotations and keywords, and wrong ones are refused at once."""

from __future__ import annotations

from typing import Annotated

import pytest

import hpcnb as hpc
from hpcnb.tasks.directions import Access, Direction, Kind, Parameters


def accesses(parameters, *args, method=False, **kwargs):
    return [(name, direction.access.value) for name, direction in parameters.of(args, kwargs, method=method)]


def test_by_annotation():
    """An annotation says it, itself or inside Annotated, as a string, too; what is not said is read."""

    def step(a: int, b: hpc.InOut, c: Annotated[list, hpc.Out] = (), *rest: hpc.Commutative, d: hpc.InDelete = 0):
        """Do nothing."""

    found = accesses(Parameters(step, {}), 1, 2, 3, 4, 5, d=6)
    assert [access for _, access in found] == ["in", "inout", "out", "commutative", "commutative", "in_delete"]
    assert [name for name, _ in found] == [""] * 5 + ["d"]


def test_by_keyword():
    """A keyword outranks the annotation, also for what only ** takes."""

    def step(a: hpc.InOut, **more):
        """Do nothing."""

    parameters = Parameters(step, {"a": hpc.In, "path": hpc.FileOut})
    assert accesses(parameters, 1, path="p", other=2) == [("", "in"), ("path", "out"), ("other", "in")]


def test_the_object_of_a_method():
    """Only what a method is called on has the direction of a target."""

    def up(self, by):
        """Do nothing."""

    assert accesses(Parameters(up, {}), 1, 2, method=True) == [("", "inout"), ("", "in")]
    assert accesses(Parameters(up, {}), 1, 2) == [("", "in"), ("", "in")]


def test_collections_have_a_depth():
    """A collection is of a direction, of files as well, and has at least one level."""
    assert hpc.Collection(2, hpc.FileOut) == Direction(access=Access.OUT, kind=Kind.FILE, depth=2)
    with pytest.raises(ValueError, match="at least one level, not 0"):
        hpc.Collection(0)


def test_what_is_no_direction():
    """A direction of no parameter, no direction, and an annotation that cannot be read are named."""

    def step(a):
        """Do nothing."""

    with pytest.raises(TypeError, match=r"step\(\) has no parameter 'b'; it has: a"):
        hpc.task(b=hpc.InOut)(step)
    with pytest.raises(TypeError, match="timeout_=3 is neither an option of a task nor a direction"):
        hpc.task(timeout_=3)(step)

    import hpcnb as inner

    def local(a: inner.InOut):
        """Do nothing."""

    with pytest.raises(
        TypeError, match=r"the annotation 'inner.InOut' of 'a' cannot be read here .* give it by keyword"
    ):
        hpc.task(local)


def test_wrong_arguments_are_an_error_of_the_call():
    """Arguments that do not fit are refused where the task is called, in Python's own words."""
    with pytest.raises(TypeError, match="missing a required argument: 'b'"):
        list(Parameters(lambda a, b: 0, {}).of((1,), {}))
