"""What a program says of its tasks and data: `wait_on`, `wait_on_file`, `barrier`, `group`, `delete`, `graph`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

from hpcnb.tasks.graph import Graph
from hpcnb.tasks.group import Group
from hpcnb.tasks.programs import program

__all__ = ["barrier", "delete", "graph", "group", "wait_on", "wait_on_file"]


def wait_on(*values: Any) -> Any:
    """Wait for what the tasks called so far make of objects, and bring it.

    Lists, arrays, dictionaries, sets and plain objects are changed in place; of anything else go on with what is returned.

    Parameters
    ----------
    *values
        Objects that tasks have written, futures, or lists, tuples, sets and dictionaries with such in them.

    Returns
    -------
    object
        The value; a list of them, if several were given.

    Examples
    --------
    >>> wait_on([1, 2])                             # doctest: +SKIP
    [1, 2]
    """
    found = program().wait_on(list(values))
    return found[0] if len(values) == 1 else found


def wait_on_file(*paths: str | os.PathLike[str]) -> None:
    """Have files and directories at their paths as the tasks called so far leave them."""
    for path in paths:
        program().wait_on_file(path)


def barrier(of: Group | None = None) -> None:
    """Wait for all tasks called so far, or for those of a group.

    Parameters
    ----------
    of : Group, optional

    Raises
    ------
    Exception
        The error of a task that has failed since the last barrier.
    """
    program().barrier(of)


def group(name: str, *, wait: bool = True) -> AbstractContextManager[Group]:
    """Have the tasks that are called within waited for at its end, and fail together.

    An error of one of them cancels the others, and is raised at the end of the ``with``; what the body itself raises cancels them, too.

    Parameters
    ----------
    name : str
    wait : bool
        False: the end is not waited for; ``barrier(group)`` does it later.

    Examples
    --------
    >>> with group("first half"):                   # doctest: +SKIP
    ...     step(a, c)
    """
    return program().group(name, wait=wait)


def delete(*values: Any) -> bool:
    """Forget what tasks have made of objects, or of files given as `Path`: the cluster needs to keep it no longer.

    Returns
    -------
    bool
        Whether there was anything to forget.
    """
    found = [program().delete(value) for value in values]
    return all(found)


def graph() -> Graph:
    """The graph of the tasks of this program; a notebook draws it."""
    return program().graph
