"""`task`: a function that runs on the cluster when it is called, and says what it does with its arguments."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from types import MethodType
from typing import Any, overload

from hpcnb.future.constraints import Constraints, Tags
from hpcnb.tasks.directions import Direction, InOut, Parameters
from hpcnb.tasks.failure import Options
from hpcnb.tasks.program import Implementation
from hpcnb.tasks.programs import program

__all__ = ["Task", "implements", "io", "local", "task"]


class Task:
    """A function with `task` above it: a call submits it.

    Parameters
    ----------
    fn : callable
    options : Options
    directions : dict of str to Direction
    target : Direction
        Of the object that a method is called on.
    """

    def __init__(
        self, fn: Callable[..., Any], options: Options, directions: dict[str, Direction], target: Direction
    ) -> None:
        functools.update_wrapper(self, fn)  # first: it copies whatever attributes the function has
        self.fn, self.options = fn, options
        self._others: list[Implementation] = []
        self._parameters = Parameters(fn, directions, target)

    @property
    def directions(self) -> dict[str, Direction]:
        """What it does with its parameters, by their names."""
        return self._parameters.directions

    @property
    def versions(self) -> list[Implementation]:
        """The functions by which it can be done, the best first, and how each is run."""
        mine = self.options
        others = [
            (fn, replace(mine, constraints=its.constraints, timeout=its.timeout, isolate=its.isolate))
            for fn, its in self._others
        ]
        return [*others, (self.fn, mine)]

    def add(self, fn: Callable[..., Any], options: Options) -> None:
        """Let it be done by another function, too, of whose options count what it needs, its time and its isolation.

        Raises
        ------
        TypeError
            Its parameters are not the same.
        """
        mine, its = (list(inspect.signature(one).parameters) for one in (self.fn, fn))
        if mine != its:
            raise TypeError(
                f"{fn.__name__}({', '.join(its)}) cannot do what {self.fn.__name__}({', '.join(mine)}) does: the parameters must be the same"
            )
        self._others.append((fn, options))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a call; gives its future, or a tuple of futures where it returns several values."""
        return self._call(args, kwargs, method=False)

    def __get__(self, target: object, owner: type | None = None) -> Any:
        return self if target is None else MethodType(_Method(self), target)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, method: bool) -> Any:
        passed = list(self._parameters.of(args, kwargs, method=method))
        return program().call(self.versions, passed, [*args, *kwargs.values()])

    def __repr__(self) -> str:
        return f"<task {self.fn.__qualname__}>"


class _Method:
    """A task that is called on an object, which it may change."""

    def __init__(self, of: Task) -> None:
        functools.update_wrapper(self, of.fn)
        self._task = of

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._task._call(args, kwargs, method=True)  # noqa: SLF001 - its own other half


def returned_by(fn: Callable[..., Any]) -> int:
    """Whether a function returns anything (1) or never says what (0), as its code tells.

    Examples
    --------
    >>> returned_by(lambda: 1)
    1
    >>> def procedure(a):
    ...     a.append(1)
    >>> returned_by(procedure)
    0
    """
    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is None or code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
        return 1
    steps = list(dis.get_instructions(code))
    for before, step in zip([None, *steps], steps, strict=False):
        source = step if step.opname == "RETURN_CONST" else before
        if step.opname in ("RETURN_VALUE", "RETURN_CONST") and not (
            source is not None and source.opname in ("LOAD_CONST", "RETURN_CONST") and source.argval is None
        ):
            return 1
    return 0


@overload
def task(fn: Callable[..., Any], /) -> Task: ...
@overload
def task(
    *,
    returns: int | None = None,
    cores: int | str | Callable[[], int] = 1,
    memory: str | Callable[[], str] | None = None,
    storage: str | Callable[[], str] | None = None,
    gpus: int | str | Callable[[], int] = 0,
    where: str | Callable[[], str] | None = None,
    partition: str | Callable[[], str] | None = None,
    feature: Tags = None,
    software: Tags = None,
    timeout: float | None = None,
    retries: int | None = None,
    priority: int = 0,
    isolate: bool = False,
    cache: bool = False,
    on_failure: str | None = None,
    default: Any = None,
    target_direction: Direction = InOut,
    **directions: Direction,
) -> Callable[[Callable[..., Any]], Task]: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    returns: int | None = None,
    cores: int | str | Callable[[], int] = 1,
    memory: str | Callable[[], str] | None = None,
    storage: str | Callable[[], str] | None = None,
    gpus: int | str | Callable[[], int] = 0,
    where: str | Callable[[], str] | None = None,
    partition: str | Callable[[], str] | None = None,
    feature: Tags = None,
    software: Tags = None,
    timeout: float | None = None,
    retries: int | None = None,
    priority: int = 0,
    isolate: bool = False,
    cache: bool = False,
    on_failure: str | None = None,
    default: Any = None,
    target_direction: Direction = InOut,
    **directions: Direction,
) -> Any:
    """Make a function a task: each call of it runs on the cluster, after the calls whose results or changes it uses.

    What it does with an argument is said by annotation (``c: hpc.InOut``) or by keyword (``c=hpc.InOut``). Unsaid, it reads it. What
    it reads is shared with other tasks and must not be changed; what it changes is its own copy, which becomes the object's next version,
    and tasks that read the version before need not have ended. `hpc.wait_on` brings the current one.

    Parameters
    ----------
    returns : int, optional
        How many values it returns; each has a future. By default 1, or none if it has no ``return`` with a value: then its future's
        value is None.
    cores : int
        Of the worker that runs it; 0 for one that only waits (see `io`). As the other needs it may be a function, which is asked at each
        call; a number or an amount also the name of a variable of the function's module, or of the environment (``"$CORES"``).
    memory : str, optional
        ``"4GiB"``: how much of the worker's memory it is given; tasks that say nothing are given none.
    storage : str, optional
        Of the node's scratch.
    gpus : int
    where : str, optional
        The name of a node.
    partition : str, optional
        Of the batch system, for a cluster with nodes of several.
    feature : str or sequence of str, optional
        Of the node, as Slurm names them, or the site's configuration (``features:``); its architecture and operating system are features, too.
    software : str or sequence of str, optional
        What the site's configuration says is there (``software:``).
    timeout : float, optional
        Seconds that a call may take.
    retries : int, optional
        How often a call that fails is tried again, on another worker where there is one; by default not at all. The death of a worker costs none.
    priority : int
        Higher goes first.
    cache : bool
        Keep what it gives at the site, by content: a call with the same code, arguments and packages, of whichever notebook, is not run
        again, and of several at one time only one runs. Files count by their bytes.
    isolate : bool
        Run it in a process of its own.
    on_failure : str, optional
        By default an error is raised where its future, or what it should have written, is used, and by `barrier`. ``RETRY``: it is first
        tried again where it has failed, then elsewhere, twice in all unless `retries` says how often. ``CANCEL_SUCCESSORS``: what needs
        it does not run, and nobody else hears of it. ``FAIL``: all that this program has called and that has not ended is cancelled.
        ``IGNORE``: it returns `default`, what it should have written stays as it was, and files that it should have made are empty.
    default : object
        For ``IGNORE``; for several returned values a tuple of them, or one for all.
    target_direction : Direction
        For a method: what it does with its object.
    **directions
        By the parameters' names.

    Examples
    --------
    >>> @task(c=InOut)
    ... def add(a, c):
    ...     c += a
    >>> add
    <task add>
    """

    def made(fn: Callable[..., Any]) -> Task:
        options = Options(
            returns=returned_by(fn) if returns is None else returns,
            timeout=timeout,
            retries=retries,
            priority=priority,
            isolate=isolate,
            cache=cache,
            on_failure=on_failure,
            default=default,
            constraints=Constraints(
                cores=cores,
                memory=memory,
                storage=storage,
                gpus=gpus,
                where=where,
                partition=partition,
                feature=feature,
                software=software,
            ),
        )
        return Task(fn, options, directions, target_direction)

    return made if fn is None else made(fn)


def implements(
    of: Task, *, timeout: float | None = None, isolate: bool = False, **needs: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a task be done by another function, too, on workers that have what that one needs.

    Calls are those of the task. Each is run by the first of its versions for which its worker has room: those that were added, in
    their order, before the task's own function. With no room for any it waits for the one that others wait for least.

    Parameters
    ----------
    of : Task
        It says all but what follows: directions, what is returned, retries and so on.
    timeout, isolate
        As in `task`.
    **needs
        ``cores``, ``memory``, ``storage``, ``gpus``, ``where``, ``partition``, ``feature``, ``software``, as in `task`.

    Returns
    -------
    callable
        The function as it is.

    Examples
    --------
    >>> @task
    ... def step(a):
    ...     return "slow"
    >>> @implements(step, gpus=1)
    ... def step_on_gpu(a):
    ...     return "fast"
    >>> len(step.versions)
    2
    """
    if not isinstance(of, Task):
        raise TypeError(f"implements() takes a task, not {of!r:.80}")
    options = Options(timeout=timeout, isolate=isolate, constraints=Constraints(**needs))

    def added(fn: Callable[..., Any]) -> Callable[..., Any]:
        of.add(fn, options)
        return fn

    return added


def io(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function that waits for a disk or a network a task that keeps no core busy; the rest is as in `task`.

    Examples
    --------
    >>> @io
    ... def fetch(url):
    ...     return 0
    """
    made: Any = task(cores=0, **options)
    return made if fn is None else made(fn)


def local(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Have a function of the main program called with values: what tasks have made of its arguments is waited for.

    Examples
    --------
    >>> @local
    ... def show(a):
    ...     print(a)
    """

    @functools.wraps(fn)
    def waiting(*args: Any, **kwargs: Any) -> Any:
        values = program().wait_on([*args, *kwargs.values()])
        return fn(*values[: len(args)], **dict(zip(kwargs, values[len(args) :], strict=True)))

    return waiting
