"""A task of ours in Dask's own terms."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import dask
from dask._task_spec import Task, parse_input

from hpcnb.future.batches import Sent

__all__ = ["annotated", "node"]


def node(task: Sent) -> Task:
    """The node of a graph that a task is."""
    named: dict[str, Any] = {name: parse_input(value) for name, value in task.kwargs.items()}
    return Task(task.batch.key, task.fn, *(parse_input(value) for value in task.args), **named)


def annotated(**annotations: Any) -> AbstractContextManager[Any]:
    """Return a context in which what is submitted bears annotations; what is empty is none."""
    marked: Any = dask
    context: AbstractContextManager[Any] = marked.annotate(
        **{name: value for name, value in annotations.items() if value not in {"", None}}
    )
    return context
