"""What a task needs, in the amounts that workers offer, and what is said when none has it."""

from __future__ import annotations

import pytest

import hpcnb as hpc
from hpcnb.future.constraints import Constraints, refusal

OFFERS = [
    {"cores": 4, "memory": 2**30, "storage": 2**30, "gpus": 0, "node:n1": 1},
    {"cores": 2, "memory": 2**32, "storage": 2**30, "gpus": 1, "node:n2": 1, "partition:main": 1},
]


def test_a_task_that_says_nothing_needs_nothing():
    """A task of one core is not weighed: each worker has one."""
    assert Constraints().needed() == {}


def test_every_kind():
    """Cores, memory, storage, GPUs and the node are amounts of what workers offer."""
    asked = Constraints(cores=2, memory="1GiB", storage="10MB", gpus=1, where="n2")
    assert asked.needed() == {"cores": 2, "gpus": 1, "memory": 2**30, "storage": 10**7, "node:n2": 0}
    asked = Constraints(partition="main", feature="haswell", software=["a", "b"])
    assert asked.needed() == {"partition:main": 0, "feature:haswell": 0, "software:a": 0, "software:b": 0}


def test_values_are_read_again_at_each_call():
    """A function in the place of a value is asked at each call."""
    cores = iter([2, 3])
    asked = Constraints(cores=lambda: next(cores))
    assert [asked.needed(), asked.needed()] == [{"cores": 2}, {"cores": 3}]


def test_names_of_variables_are_read_again_at_each_call(monkeypatch):
    """So is what names a variable of the module, or of the environment; one that is not there is named."""
    asked = Constraints(cores="n", memory="much", gpus="$GPUS")
    monkeypatch.setenv("GPUS", "2")
    assert asked.needed({"n": 2, "much": "1kB"}) == {"cores": 2, "gpus": 2, "memory": 1000}
    assert asked.needed({"n": 3, "much": "2kB"}) == {"cores": 3, "gpus": 2, "memory": 2000}
    with pytest.raises(TypeError, match="cores='n': there is no such variable"):
        asked.needed()
    with pytest.raises(TypeError, match="software=3: a task asks for names"):
        Constraints(software=3).needed()


@pytest.mark.parametrize("wrong", [{"cores": "4.5"}, {"gpus": -1}, {"cores": True}, {"cores": 1.5}], ids=str)
def test_wrong_numbers(wrong):
    """What is no number of cores or GPUs is refused."""
    with pytest.raises(TypeError, match="a task needs a whole number of"):
        Constraints(**wrong).needed()


def test_memory_needs_a_unit():
    """Memory is given with its unit, as everywhere."""
    with pytest.raises(hpc.ConfigError, match="'4' is not an amount of memory"):
        Constraints(memory="4").needed()


@pytest.mark.parametrize(
    "asked", [{"cores": 4}, {"cores": 2, "memory": 2**32}, {"gpus": 1, "node:n2": 0}, {"node:n1": 0}], ids=str
)
def test_what_a_worker_has(asked):
    """Who asks for what one worker has all of is not refused; nor is anybody while there is no worker."""
    assert refusal([asked], OFFERS, "here") is None
    assert refusal([asked], [], "here") is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cores": 8}, "8 cores"),
        ({"cores": 4, "gpus": 1}, "4 cores, 1 GPU"),
        ({"memory": 2**33}, "8192 MiB of memory"),
        ({"storage": 2**31}, "2048 MiB of storage"),
        ({"node:n3": 0}, "node n3"),
        ({"software:gromacs": 0, "partition:debug": 0}, "software gromacs, partition debug"),
    ],
)
def test_what_no_worker_has(asked, said):
    """The message names what was asked for and what each node offers."""
    message = str(refusal([asked], OFFERS, "site x"))
    assert message.startswith(f"no worker has what the task needs: {said} (site x)\n")
    assert "node n1: 4 cores, 1024 MiB of memory, 1024 MiB of storage\n" in message
    assert "node n2: 2 cores, 4096 MiB of memory, 1024 MiB of storage, 1 GPU, partition main\n" in message


def test_of_several_versions_one_is_enough():
    """A task in several versions is refused if no worker has what one of them needs."""
    assert refusal([{"gpus": 8}, {"cores": 4}], OFFERS, "here") is None
    assert "needs: 8 GPUs; or 8 cores (here)" in str(refusal([{"gpus": 8}, {"cores": 8}], OFFERS, "here"))
