"""PyCOMPSs programs, unchanged: `activate` gives the modules ``pycompss.api.*`` and ``pycompss.interactive`` their names.

Covered are the decorators ``task``, ``local``, ``on_failure``, ``constraint``, ``implement``, ``binary``, ``mpi``, ``container``, ``IO`` and
``reduction``; all parameters but streams of data, with the standard streams and prefixes of binaries; synchronisation, deletion, groups and the
number of resources; ``pycompss.interactive.start`` and ``stop``. Of constraints: computing units, memory, storage, processors, host,
queue (a partition), architecture and operating system (features of nodes), software (named in the site's entry).

Not covered, and an error or a warning that says so: ``prolog``, ``epilog``, ``http``, ``compss``, ``ompss``, ``opencl``, ``julia``, ``decaf``,
``multinode``, ``mpmd_mpi``, ``software`` and ``data_transformation``; ``<parameter>_layout`` of ``mpi``; Python functions in a container; other constraints.

What only tunes their runtime (``is_distributed``, ``is_replicated``, ``cache_returns``, ``numba``, tracing, monitoring, XML files) is
taken and does nothing.

Reference: the PyCOMPSs user guide, "Application development: Python".

Examples
--------
>>> from hpcnb.compat import pycompss
>>> pycompss.activate()
>>> from pycompss.api.task import task
>>> from pycompss.api.api import compss_wait_on
>>> @task(returns=1)
... def add(a, b):
...     return a + b
>>> compss_wait_on(add(1, 2))                       # doctest: +SKIP
3
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

from hpcnb.compat.pycompss import calls, decorators, implementations, interactive, parameters, programs
from hpcnb.errors import ConfigError

__all__ = ["MODULES", "activate"]

MODULES: dict[str, dict[str, Any]] = {
    "pycompss": {},
    "pycompss.api": {},
    "pycompss.api.task": {"task": decorators.task},
    "pycompss.api.local": {"local": decorators.local},
    "pycompss.api.constraint": {"constraint": decorators.constraint, "Constraint": decorators.constraint},
    "pycompss.api.on_failure": {"on_failure": decorators.on_failure},
    "pycompss.api.implement": {"implement": implementations.implement, "Implement": implementations.implement},
    "pycompss.api.binary": {"binary": programs.binary, "Binary": programs.binary},
    "pycompss.api.mpi": {"mpi": programs.mpi, "Mpi": programs.mpi, "MPI": programs.mpi},
    "pycompss.api.container": {"container": programs.container, "Container": programs.container},
    "pycompss.api.IO": {"IO": programs.io, "io": programs.io},
    "pycompss.api.reduction": {"reduction": programs.reduction, "Reduction": programs.reduction},
    "pycompss.api.parameter": {name: getattr(parameters, name) for name in parameters.__all__},
    "pycompss.api.api": {name: getattr(calls, name) for name in calls.__all__},
    "pycompss.api.exceptions": {"COMPSsException": calls.COMPSsException},
    "pycompss.interactive": {name: getattr(interactive, name) for name in interactive.__all__},
}
"""Module → the names in it: all that is covered."""


def activate() -> None:
    """Have ``import pycompss…`` find the names of `MODULES`, in this process and in the tasks of its programs.

    Raises
    ------
    ConfigError
        PyCOMPSs itself is installed here: it would be a riddle which of the two a program uses.
    """
    present = sys.modules.get("pycompss")
    if getattr(present, "__hpcnb__", False):
        return
    found = None if present else importlib.util.find_spec("pycompss")
    if present is not None or (found is not None and found.origin):  # a mere folder of that name has no origin
        raise ConfigError(
            "PyCOMPSs itself is installed in this Python",
            evidence=str(getattr(present, "__file__", "") if present else found and found.origin),
            remedy="Use an environment without it, or leave out activate() to use it.",
        )
    for name, names in MODULES.items():
        module = ModuleType(name, f"The names of PyCOMPSs' {name}, on hpcnb.")
        vars(module).update(names, __hpcnb__=True, __path__=[])
        sys.modules[name] = module
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
