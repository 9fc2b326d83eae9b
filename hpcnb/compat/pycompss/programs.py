"""``pycompss.api.binary``, ``mpi``, ``container``, ``IO`` and ``reduction``, above a task."""

from __future__ import annotations

import copy
import functools
import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hpcnb import tasks
from hpcnb.compat.pycompss.decorators import Activated, amount, changed
from hpcnb.tasks.binary import Command, apart, inside, running
from hpcnb.tasks.mpi import Launch, before, environ, run_function
from hpcnb.tasks.reduction import tree

__all__ = ["binary", "container", "io", "mpi", "reduction"]

Decorated = Callable[[tasks.Task], tasks.Task]
PLAIN_ENGINES = ("", "SINGULARITY", "APPTAINER")
NOT_NEEDED = frozenset({"computing_nodes", "scale_by_cu", "runner", "flags", "processes_per_node", "processes"})


def binary(
    *,
    binary: str,
    working_dir: str | None = None,
    args: str | None = None,
    params: str | None = None,
    fail_by_exit_value: Any = False,
    engine: str = "",
    image: str = "",
) -> Decorated:
    """``@binary(binary="grep", working_dir=".")`` above a task: its parameters, in order, are the program's arguments.

    A parameter may have a prefix, or be a stream of the program; ``args`` may name parameters as ``{{name}}``.
    """

    def decorate(of: tasks.Task) -> tasks.Task:
        fail = _fails(fail_by_exit_value)
        made = _of_program(of, binary, args=args or params, working_dir=working_dir, fail=fail)
        return container(engine=engine, image=image)(made) if image else made

    return decorate


def mpi(
    *,
    binary: str = "",
    runner: str = "",
    processes: Any = 1,
    processes_per_node: Any = None,
    working_dir: str | None = None,
    args: str | None = None,
    params: str | None = None,
    fail_by_exit_value: Any = False,
    **more: Any,
) -> Decorated:
    """``@mpi(runner="mpirun", binary="app.x", processes=4)`` above a task; without a binary its own body runs in each rank.

    Raises
    ------
    TypeError
        The data of ranks is to be laid out in a way that is not covered.
    """
    if unknown := sorted(set(more) - NOT_NEEDED):
        raise TypeError(f"mpi: {', '.join(unknown)} is not covered")
    launch = Launch(
        ranks=int(amount(processes, {})),
        ranks_per_node=int(amount(processes_per_node, {})) if processes_per_node else None,
        launcher=os.path.expandvars(runner),
    )

    def decorate(of: tasks.Task) -> tasks.Task:
        if binary:
            return _of_program(
                of,
                binary,
                args=args or params,
                working_dir=working_dir,
                fail=_fails(fail_by_exit_value),
                before=functools.partial(before, launch),
                environ=environ,
            )
        return _with_body(of, running(of.fn, functools.partial(run_function, launch, of.fn)))

    return decorate


def container(*, engine: str = "", image: str, options: str = "") -> Decorated:
    """``@container(engine="SINGULARITY", image="app.sif")`` above a binary or an MPI program.

    There is no Docker at a computing centre: its images are run by apptainer or singularity, as ``docker://image``.
    """
    if engine.upper() not in PLAIN_ENGINES and "://" not in image:
        image = f"docker://{image}"

    def decorate(of: tasks.Task) -> tasks.Task:
        command = getattr(of.fn, "command", None)
        if command is None:
            raise TypeError(
                f"{of.fn.__name__}() is a Python function, which is not run in a container here: put @binary or @mpi(binary=…) below @container"
            )
        made: Command = copy.copy(command)
        made.before = functools.partial(_within, command.before, tuple(shlex.split(options)), os.path.expandvars(image))
        return _with_body(of, running(of.fn, made.run), made)

    return decorate


def io() -> Decorated:
    """``@IO()`` above a task that keeps no core busy."""
    return lambda of: changed(of, constraints=replace(of.options.constraints, cores=0))


def reduction(*, chunk_size: Any) -> Callable[[tasks.Task], Callable[..., Any]]:
    """``@reduction(chunk_size="2")`` above a task that takes a collection: a tree of tasks, which take so many each."""
    chunk = int(amount(chunk_size, {}))
    if chunk < 2:
        raise ValueError(f"chunk_size={chunk_size!r}: a task that takes less than two values reduces nothing")

    def decorate(of: tasks.Task) -> Callable[..., Any]:
        signature = inspect.signature(of.fn)
        taken = next((name for name, way in of.directions.items() if way.depth), next(iter(signature.parameters)))

        @functools.wraps(of.fn)
        def reduced(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            collection = bound.arguments[taken]

            def step(group: list[Any]) -> Any:
                bound.arguments[taken] = group
                return of(*bound.args, **bound.kwargs)

            return tree(collection.values() if isinstance(collection, Mapping) else collection, chunk, step)

        return reduced

    return decorate


def _of_program(of: tasks.Task, program: str, *, args: str | None, working_dir: str | None, **more: Any) -> tasks.Task:
    marks = getattr(of.fn, "marks", {})
    streams = {stream: name for name, (stream, _) in marks.items() if stream}
    command = Command(
        os.path.expandvars(program),
        args=None if args is None else re.sub(r"\{\{\s*(\w+)\s*\}\}", r"{\1}", args),
        working_dir=working_dir and os.path.expandvars(working_dir),
        prefixes={name: prefix for name, (_, prefix) in marks.items() if prefix},
        **streams,
        **more,
    )
    return _with_body(of, running(of.fn, command.run), command)


def _with_body(of: tasks.Task, body: Callable[..., Any], command: Command | None = None) -> tasks.Task:
    made: Any = copy.copy(of)
    made.fn = Activated(body, getattr(of.fn, "marks", {}))
    made.fn.command = command
    return apart(made)


def _within(
    launch: Callable[[dict[str, Any]], Any] | None, options: tuple[str, ...], image: str, arguments: dict[str, Any]
) -> list[str]:
    return [*(launch(arguments) if launch else ()), *inside(image, "", options, arguments)]


def _fails(said: Any) -> bool:
    return str(said).lower() == "true"
