"""A queue's task as its user sees it, and a user's task as a queue keeps it."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.states import TaskState
from hpcnb.units import parse_duration, shown


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedTask:
    """One task of a queue, as it was when it was asked for.

    Parameters
    ----------
    id : int
    state : str
        Waiting, Pending, Running, Succeeded, Failed or Killed.
    priority : int
    attempts : int
        How often it was begun.
    """

    id: int
    state: str
    priority: int
    attempts: int
    _payload: str
    _result: str | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> QueuedTask:
        id, state, priority, attempts, payload, result = row
        title = TaskState(state).title
        return cls(id=id, state=title, priority=priority, attempts=attempts, _payload=payload, _result=result)

    @property
    def task(self) -> Any:
        """What was added: a command line, or a value."""
        return json.loads(self._payload)

    @property
    def result(self) -> Any:
        """What its function returned."""
        return None if self._result is None else json.loads(self._result)

    def to_json(self) -> dict[str, Any]:
        names = ("id", "state", "priority", "attempts", "task", "result")
        return {name: getattr(self, name) for name in names}


def payload(task: Any) -> str:
    """A task as JSON.

    Raises
    ------
    TypeError
        It is neither a command line nor a value that JSON has.
    """
    try:
        return json.dumps(task, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(
            f"a task is a command line or a value that JSON has, not {shown(task)}: {exc}; nothing was added"
        ) from None


def policy(retries: int = 0, retry_delay: str | float = 0, retry_on: str = "") -> list[Any] | None:
    """What is done when a task fails, as a request has it; None is nothing.

    Raises
    ------
    QueueError
        `retry_on` is no regular expression.
    """
    if retries < 0:
        raise QueueError(f"retries={retries}", remedy="Give a whole number, 0 or more.")
    try:
        re.compile(retry_on)
    except re.error as exc:
        raise QueueError(f"retry_on={retry_on!r} is no regular expression: {exc}") from None
    return [int(retries), parse_duration(retry_delay), retry_on] if retries else None


def check_ways(func: Callable[[Any], Any] | None, script: str) -> None:
    """Raise `QueueError` unless tasks can be carried out by at most one of both, or by that template whatever they are."""
    if func is not None and script:
        raise QueueError("func= and script= together", remedy="Give one of them: each says how a task is carried out.")
    if (func is not None and not callable(func)) or not isinstance(script, str):
        raise QueueError(
            f"func={shown(func)}, script={shown(script)}", remedy="Give a function, or a template as text."
        )
    try:
        list(string.Formatter().parse(script))
    except ValueError as exc:
        remedy = "Write {a} for a task's value of that name, and {{ or }} for a brace that is meant itself."
        raise QueueError(f"script={script!r} is no template: {exc}", remedy=remedy) from None


def plain_lines(tasks: Iterable[Any]) -> Iterator[str]:
    """Tasks as the lines of a request; raises `TypeError` for a single one, whose letters or keys would be taken for tasks."""
    if isinstance(tasks, str | bytes | Mapping):
        raise TypeError(f"{shown(tasks)} is one task, and not several: use `add`, or a list; nothing was added")
    return (payload(task) + "\n" for task in tasks)


def lines_with_edges(tasks: Iterable[Any], requires: Sequence[Any], after: Sequence[Any]) -> Iterator[str]:
    """Tasks, each with what it waits for, as the lines of a request."""
    tasks = list(tasks)
    for word, each in (("requires", requires), ("after", after)):
        if each and len(each) != len(tasks):
            raise ValueError(f"{len(tasks)} tasks, but {word}= has {len(each)} lists of ids; nothing was added")
    for index, task in enumerate(tasks):
        row = [payload(task), ids(requires[index] if requires else ()), ids(after[index] if after else ())]
        yield json.dumps(row) + "\n"


def per_task(edges: Any) -> bool:
    """Whether this is a list of ids for each task, and not one list for all."""
    return isinstance(edges, Sequence) and len(edges) > 0 and not isinstance(edges[0], int | str | QueuedTask)


def ids(wanted: Any) -> list[int]:
    """Ids of tasks as a list: an id, a task, or several."""
    several = isinstance(wanted, Iterable) and not isinstance(wanted, str)
    return [id_of(one) for one in (wanted if several else [wanted])]


def id_of(task: Any) -> int:
    """The id of one task, which may be that id."""
    found = task.id if isinstance(task, QueuedTask) else task
    if not isinstance(found, int) or isinstance(found, bool):
        raise TypeError(f"{shown(found)} is no id of a task")
    return found
