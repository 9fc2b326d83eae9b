"""What a task is, before it is called; and that the code of tasks can be read at a site."""

from __future__ import annotations

import subprocess
import sys

import cloudpickle
import pytest

import hpcnb as hpc
from hpcnb.tasks.task import returned_by


def gives(a):
    if a:
        return a
    return None


def procedure(a):
    if a:
        return
    a.append(1)


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
