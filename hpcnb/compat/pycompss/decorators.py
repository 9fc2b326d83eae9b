"""The decorators: ``pycompss.api.task``, ``constraint``, ``on_failure``, ``local``, on `hpcnb.tasks`."""

from __future__ import annotations

import copy
import functools
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudpickle import cloudpickle

from hpcnb import tasks
from hpcnb.compat.pycompss import implementations
from hpcnb.compat.pycompss.parameters import direction, mark
from hpcnb.future.constraints import Constraints

__all__ = ["constraint", "local", "on_failure", "task"]

IGNORED = frozenset(
    {
        "is_distributed",
        "is_replicated",
        "is_reduce",
        "chunk_size",
        "cache_returns",
        "numba",
        "numba_flags",
        "numba_signature",
        "numba_declaration",
        "tracing_hook",
        "varargs_type",
        "process_affinity",
        "computing_nodes",
        "weight",
        "streams",
    }
)
"""What only tunes their runtime."""
FEATURES = ("processor_architecture", "operating_system_type")
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
COVERED = frozenset(
    {"computing_units", "memory_size", "storage_size", "processors", "host", "host_queues", "app_software", *FEATURES}
)
URGENT = 10
"""The priority of a task that has one."""

local = tasks.local


class Activated:
    """A function of a PyCOMPSs program: before it is unpickled, or runs, the modules that it imports have their names.

    Parameters
    ----------
    fn : callable
    marks : mapping
        Of its parameters, for the program that it may stand for (see `parameters.mark`).
    """

    def __init__(self, fn: Callable[..., Any], marks: Mapping[str, tuple[str, str]] | None = None) -> None:
        functools.update_wrapper(self, fn)  # first, as in `Task`
        self.fn = fn
        self.marks = dict(marks or {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _activated, (cloudpickle.dumps(self.fn, protocol=5),)


def _activated(pickled: bytes) -> Activated:
    from hpcnb.compat import pycompss

    pycompss.activate()
    return Activated(cloudpickle.loads(pickled))


def task(
    *,
    returns: Any = None,
    priority: bool = False,
    target_direction: Any = tasks.InOut,
    on_failure: str | None = None,
    defaults: Any = None,
    time_out: float | None = None,
    **said: Any,
) -> Callable[[Callable[..., Any]], tasks.Task]:
    """``@task(…)``: parameters by keyword, and the options of `hpcnb.task` by their names there.

    Parameters
    ----------
    returns : int, type, str, or a sequence of types
        A number of values; a type, or the name of one, is one value.
    """
    directions: Any = {name: direction(value, name) for name, value in said.items() if name not in IGNORED}
    decorate = tasks.task(
        returns=number_of(returns),
        priority=URGENT if priority else 0,
        timeout=time_out,
        on_failure=on_failure,
        default=defaults,
        target_direction=direction(target_direction, "target_direction"),
        **directions,
    )
    marks = {name: mark(value, name) for name, value in said.items() if name not in IGNORED}

    def made(fn: Callable[..., Any]) -> tasks.Task:
        found = decorate(Activated(fn, marks))
        implementations.defined(found)
        return found

    return made


def number_of(returns: Any) -> int | None:
    """How many values a task returns.

    Examples
    --------
    >>> [number_of(said) for said in (None, int, 3, "3", "dict", (int, list), [object] * 4)]
    [None, 1, 3, 3, 1, 2, 4]
    """
    if returns is None or (isinstance(returns, int) and not isinstance(returns, bool)):
        return returns
    if isinstance(returns, str):
        return int(returns) if returns.isdigit() else 1
    return len(returns) if isinstance(returns, Sequence) else 1


def on_failure(*, management: str, **default: Any) -> Callable[[tasks.Task], tasks.Task]:
    """``@on_failure(management="IGNORE", returns=0)`` above a task."""
    return lambda of: changed(of, on_failure=management, default=default.get("returns"))


def constraint(**said: Any) -> Callable[[tasks.Task], tasks.Task]:
    """``@constraint(computing_units="4", memory_size=2)`` above a task.

    ``app_software`` is what the site's configuration calls ``software``, ``host_queues`` a partition; the architecture and the operating
    system are features of nodes. A string may name an environment variable (``"$UNITS"``) or be an expression of the module's variables; both are read at each call.
    """
    known = {_snake(name): value for name, value in said.items() if value != "[unassigned]"}
    if unknown := sorted(set(known) - COVERED):
        warnings.warn(f"constraints that are not covered, and do nothing: {', '.join(unknown)}", stacklevel=2)

    def decorate(of: tasks.Task) -> tasks.Task:
        space = getattr(getattr(of.fn, "__wrapped__", of.fn), "__globals__", {})
        return changed(of, constraints=_constraints(known, space))

    return decorate


def changed(of: tasks.Task, **options: Any) -> tasks.Task:
    """The same task with other options."""
    made = copy.copy(of)
    made.options = replace(of.options, **options)
    return made


def _constraints(said: Mapping[str, Any], space: Mapping[str, Any]) -> Constraints:
    units, gpus = said.get("computing_units", 1), 0
    for processor in said.get("processors", ()):
        words = {str(key).lower(): value for key, value in processor.items()}
        number = words.get("computingunits", 1)
        if str(words.get("processortype", "CPU")).upper() == "GPU":
            gpus = number
        else:
            units = number
    return Constraints(
        cores=functools.partial(amount, units, space),
        gpus=functools.partial(amount, gpus, space),
        memory=_size(said.get("memory_size"), space),
        storage=_size(said.get("storage_size"), space),
        where=said.get("host"),
        partition=said.get("host_queues"),
        feature=[ARCHITECTURES.get(tag, tag) for name in FEATURES for tag in _tags(said.get(name))],
        software=_tags(said.get("app_software")),
    )


def _tags(said: str | None) -> list[str]:
    return [tag for tag in re.split(r"[\s,]+", said or "") if tag]


def _snake(name: str) -> str:
    """The newer spelling of a name: ``appSoftware`` is ``app_software``."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()


def _size(said: Any, space: Mapping[str, Any]) -> Callable[[], str] | None:
    """Sizes are gigabytes there."""
    return None if said is None else lambda: f"{amount(said, space)}GB"


def amount(said: Any, space: Mapping[str, Any]) -> Any:
    """A number as PyCOMPSs takes it.

    Examples
    --------
    >>> [amount(said, {"n": 3}) for said in (2, "4", "1.5", "n + 1")]
    [2, 4, 1.5, 4]
    """
    if not isinstance(said, str):
        return said
    text = re.sub(r"\$\{?(\w+)\}?", lambda found: os.environ[found[1]], said)
    value = eval(text, dict(space))  # noqa: S307 - the program's own words
    if not isinstance(value, int | float):
        raise TypeError(f"{said!r} is {value!r}, which is no number")
    return value
