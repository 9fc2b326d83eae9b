"""What a task is, before it is called; and that the code of tasks can be read at a site."""

from __future__ import annotations

import subprocess
import sys

import cloudpickle
import pytest

import hpcnb as hpc
from hpcnb.future import batches
from hpcnb.tasks.data import Ledger
from hpcnb.tasks.program import Program
from hpcnb.tasks.task import returned_by
from hpcnb.tasks.where import Main


def gives(a):
    if a:
        return a
    return None


def procedure(a):
    if a:
        return
    a.append(1)


def test_plain_values_are_not_looked_at_one_by_one(monkeypatch):
    """Of a list of numbers it is seen at once that it holds nothing of the cluster's; of one with other values it is not."""
    looked = []
    monkeypatch.setattr(Ledger, "find", lambda _, value: looked.append(value))
    program = Program(Main())
    for value in (list(range(10_000)), ("a", None, b"c", 1.5), {"k": [1, 2]}):
        assert program._resolved_within(value, set()) == value
        assert list(program._futures(value)) == []
        assert program._replaced(value, iter(())) == value
        assert batches.Arguments().take(value) is value
    assert len(looked) < 20
    program._resolved_within([1, object()], set())
    assert len(looked) >= 2


def generator():
    yield 1


@pytest.mark.parametrize(("fn", "expected"), [(gives, 1), (procedure, 0), (generator, 1), (len, 1), (lambda: None, 0)])
def test_what_a_function_returns(fn, expected):
    """Unless it is said, a function returns one value, or none if it never says which."""
    assert returned_by(fn) == expected


def test_a_task_can_be_sent():
    """A task travels with its function: another task may call it."""

    @hpc.task(returns=2, priority=3)
    def step(a, c: hpc.InOut):
        return a, c

    there = cloudpickle.loads(cloudpickle.dumps(step))
    assert (there.options, there.fn(1, 2), repr(there)) == (step.options, (1, 2), repr(step))


@pytest.mark.parametrize("module", ["hpcnb.tasks.body", "hpcnb.tasks.rank", "hpcnb.compat.pycompss"])
def test_tasks_need_little_at_a_site(module):
    """What a task's body needs brings in nothing of what only we depend on, which a site does not have."""
    code = f"import sys, {module}; print(*{{'paramiko', 'pydantic', 'cryptography', 'platformdirs', 'rich'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
