"""Many values become one, some at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from hpcnb.tasks.task import Task, task

__all__ = ["reduction"]


def reduction(chunk: int, **options: Any) -> Callable[[Callable[[list[Any]], Any]], Callable[[Iterable[Any]], Any]]:
    """Make a function that reduces a list a tree of tasks, each of which reduces a few values.

    Parameters
    ----------
    chunk : int
        How many values each task takes, at least 2.
    **options
        Those of `task`.

    Returns
    -------
    callable
        Takes values and futures, gives the future of what is left.

    Examples
    --------
    >>> @reduction(chunk=4)
    ... def total(values):
    ...     return sum(values)
    >>> total(futures).result()                     # doctest: +SKIP
    45
    """
    if chunk < 2:
        raise ValueError(f"chunk={chunk}: a task that takes less than two values reduces nothing")

    def made(fn: Callable[[list[Any]], Any]) -> Callable[[Iterable[Any]], Any]:
        step: Task = task(returns=1, **options)(fn)

        @functools.wraps(fn)
        def reduced(values: Iterable[Any]) -> Any:
            return tree(values, chunk, step)

        return reduced

    return made


def tree(values: Iterable[Any], chunk: int, step: Callable[[list[Any]], Any]) -> Any:
    """What is left of values that a step takes so many of at a time, level by level."""
    left = list(values)
    while len(left) > chunk:
        groups = [left[start : start + chunk] for start in range(0, len(left), chunk)]
        left = [step(group) if len(group) > 1 else group[0] for group in groups]
    return step(left)
