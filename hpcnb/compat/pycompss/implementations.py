"""``pycompss.api.implement``: a task is another version of one that may not be defined yet, and is named by module and function."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from hpcnb import tasks

__all__ = ["defined", "implement"]

_waiting: defaultdict[tuple[str, str], list[tasks.Task]] = defaultdict(list)
_known: dict[tuple[str, str], tasks.Task] = {}


def implement(*, source_class: str, method: str) -> Callable[[tasks.Task], tasks.Task]:
    """``@implement(source_class="module", method="function")`` above a task: another version of that function's."""
    place = source_class.rpartition(".")[2], method

    def decorate(version: tasks.Task) -> tasks.Task:
        if (of := _known.get(place)) is not None:
            of.add(version.fn, version.options)
        else:
            _waiting[place].append(version)
        return version

    return decorate


def defined(task: tasks.Task) -> None:
    """Let a task have the versions that were defined before it, and those to come."""
    for place in _places(task):
        _known[place] = task
        for version in _waiting.pop(place, ()):
            task.add(version.fn, version.options)


def _places(task: tasks.Task) -> Iterator[tuple[str, str]]:
    """By what a program may name it: its module, or its class; the program itself is known by its file, too."""
    qualified, _, name = task.fn.__qualname__.rpartition(".")
    module = task.fn.__module__
    if qualified:
        yield qualified.rpartition(".")[2], name
        return
    yield module.rpartition(".")[2], name
    file = getattr(sys.modules["__main__"], "__file__", None) if module == "__main__" else None
    if file or (module == "__main__" and sys.argv[0]):
        yield Path(file or sys.argv[0]).stem, name
