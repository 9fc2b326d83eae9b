"""The names of PyCOMPSs, and what they are taken for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hpcnb as hpc
from hpcnb.compat import pycompss
from hpcnb.compat.pycompss import decorators, parameters, programs
from hpcnb.tasks.directions import Access, Kind


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No module of theirs is known, before and after."""
    for name in [name for name in sys.modules if name.split(".")[0] == "pycompss"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "modules", dict(sys.modules) | {})


def test_modules_have_their_names() -> None:
    """After `activate` each module that is covered can be imported, with all its names; a second time does nothing."""
    with pytest.raises(ImportError):
        importlib.import_module("pycompss")
    pycompss.activate()
    for name, names in pycompss.MODULES.items():
        assert set(names) <= set(vars(sys.modules[name]))
    pycompss.activate()


def test_the_real_one_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyCOMPSs itself is there, nothing is hidden by us."""
    monkeypatch.setitem(sys.modules, "pycompss", ModuleType("pycompss"))
    with pytest.raises(hpc.ConfigError, match="PyCOMPSs itself is installed"):
        pycompss.activate()


def test_a_folder_of_that_name_is_not_the_real_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory with programs, beside which a program runs, is no reason to refuse."""
    (tmp_path / "pycompss").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    pycompss.activate()
    assert importlib.import_module("pycompss.api.task").task is decorators.task


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (parameters.FILE_INOUT, (Access.INOUT, Kind.FILE, 0)),
        ({parameters.Type: parameters.FILE}, (Access.IN, Kind.FILE, 0)),
        ({parameters.Type: parameters.FILE, parameters.Direction: parameters.OUT}, (Access.OUT, Kind.FILE, 0)),
        ({parameters.Type: parameters.COLLECTION_INOUT, parameters.Depth: 3}, (Access.INOUT, Kind.OBJECT, 3)),
        ({parameters.Type: parameters.COLLECTION_FILE_IN, parameters.Weight: "2"}, (Access.IN, Kind.FILE, 1)),
        ({parameters.Direction: parameters.COMMUTATIVE}, (Access.COMMUTATIVE, Kind.OBJECT, 0)),
        ({parameters.Type: parameters.FILE_OUT_STDOUT}, (Access.OUT, Kind.FILE, 0)),
    ],
    ids=["constant", "type", "both", "depth", "hint", "direction", "stream"],
)
def test_parameters(said: Any, expected: tuple[Any, ...]) -> None:
    """A constant, or a dictionary of type, direction and depth."""
    found = parameters.direction(said, "p")
    assert (found.access, found.kind, found.depth) == expected


@pytest.mark.parametrize("said", [1, "INOUT", {"Colour": 1}], ids=["number", "word", "key"])
def test_what_is_not_covered_is_said(said: Any) -> None:
    """What would be misunderstood is an error that names it."""
    with pytest.raises(TypeError, match="p"):
        parameters.direction(said, "p")


def test_constraints_are_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number, an environment variable, an expression of the module's variables, a list of processors."""

    def f() -> None:
        """Nothing."""

    made = decorators.constraint(computing_units="$UNITS * 2", memory_size="1.5", host="n1")(decorators.task()(f))
    needed = made.options.constraints.needed
    for units in ("2", "4"):
        monkeypatch.setenv("UNITS", units)
        assert needed() == {"cores": 2 * int(units), "memory": 1.5e9, "node:n1": 0}
    gpu = [{"ProcessorType": "GPU", "ComputingUnits": "2"}, {"ProcessorType": "CPU", "ComputingUnits": 3}]
    made = decorators.constraint(processors=gpu)(decorators.task()(f))
    assert made.options.constraints.needed() == {"cores": 3, "gpus": 2}


def test_a_constraint_that_does_nothing_warns() -> None:
    """Nobody shall believe that a constraint holds which does not."""
    with pytest.warns(UserWarning, match="do nothing: processor_speed"):
        decorators.constraint(processor_speed=3)


def test_constraints_by_name() -> None:
    """Software, queue, architecture and operating system, in either spelling, are names that workers offer."""

    def f() -> None:
        """Nothing."""

    said = {"appSoftware": "NAMD,VMD", "host_queues": "debug", "processorArchitecture": "amd64"}
    made = decorators.constraint(**said, operating_system_type="Linux")(decorators.task()(f))
    tags = ["partition:debug", "feature:x86_64", "feature:Linux", "software:NAMD", "software:VMD"]
    assert made.options.constraints.needed() == dict.fromkeys(tags, 0)


def test_what_programs_cannot_be_is_said() -> None:
    """A container without a program in it, ranks whose data is laid out, a reduction of nothing: errors that name it."""

    def f(c: Any) -> None:
        """Nothing."""

    with pytest.raises(TypeError, match=r"f\(\) is a Python function, which is not run in a container here"):
        programs.container(image="i")(decorators.task()(f))
    with pytest.raises(TypeError, match="c_layout is not covered"):
        programs.mpi(processes=2, c_layout={})
    with pytest.raises(ValueError, match="chunk_size='1'"):
        programs.reduction(chunk_size="1")
    with pytest.raises(TypeError, match="cannot change c"):
        programs.binary(binary="cat")(decorators.task(c=parameters.INOUT)(f))
