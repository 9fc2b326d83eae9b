"""What a task does to its own queue: tasks, children, detours, values for its children. Entered with its end, or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpcnb.errors import QueueError

_encoded = json.JSONEncoder(allow_nan=False).encode
ADDED = ("add", "child", "detour")
"""What a line may add: a task of its own; one that requires who adds it; one that, besides, the children he has wait for."""
_OPTIONS = {"requires": list, "after": list, "priority": int, "unique": bool}
_SAID: dict[str, type] = {"values": dict, "push": dict, "defuse": bool, "result": object}
LARGEST = 2**62
"""Priorities are numbers up to this."""
FILE, VALUES = "HPCNB_ACTIONS", "HPCNB_VALUES"
"""Where a command leaves its lines, and finds what was passed to it."""


class Action:
    """What a queue's function returns when it has more to say than its result.

    All of it is entered together with the end of its task, once: an attempt that fails or dies adds nothing. What a task that succeeded
    and is carried out again (`Queue.rerun`) adds as it did before is what it added then, and is carried out again, too, once it has ended.

    Parameters
    ----------
    result : object
        What the function would have returned otherwise.

    Examples
    --------
    >>> def split(task):
    ...     action = Action()
    ...     parts = [action.child({"file": task["file"], "part": number}) for number in range(100)]
    ...     action.child({"merge": task["file"]}, requires=parts)
    ...     action.values(parts=100)
    ...     return action
    """

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.lines: list[dict[str, Any]] = []
        self._tasks = 0

    def add(self, task: Any, **more: Any) -> int:
        """Add a task that waits for nothing of this; returns its number in this action.

        Parameters
        ----------
        task : object
            A command line, or a value that JSON has.
        requires, after : sequence of int
            Numbers of what this action has added: what has to succeed, and what has to finish, before.
        priority : int
            By default, as the retries, that of the task that adds it.
        unique : bool
            Not if there is such a task already, whatever became of it: that one is meant then.
        """
        return self._added("add", task, more)

    def child(self, task: Any, **more: Any) -> int:
        """Add a task that requires this one, and gets the values that it passes; else as `add`."""
        return self._added("child", task, more)

    def detour(self, task: Any, **more: Any) -> int:
        """Add a child for which those that already wait for this task wait, too; else as `add`."""
        return self._added("detour", task, more)

    def values(self, **values: Any) -> None:
        """Pass values to the children: a task that is a dict gets them as keys, a command in the file ``$HPCNB_VALUES``."""
        self.lines.append({"values": values})

    def push(self, **values: Any) -> None:
        """Pass values to children with several parents, which get a list of what each of them has pushed."""
        self.lines.append({"push": values})

    def defuse(self) -> None:
        """Have all that waits for this task, and for what waits for it, not carried out: it is Killed, until it is revived."""
        self.lines.append({"defuse": True})

    def _added(self, kind: str, task: Any, more: dict[str, Any]) -> int:
        line = {
            kind: task,
            **{word: list(value) if _OPTIONS.get(word) is list else value for word, value in more.items()},
        }
        checked(line, self._tasks)
        self.lines.append(line)
        self._tasks += 1
        return self._tasks


def told(said: Any) -> dict[str, Any]:
    """What a function has returned, as an outcome has it; raises when that is nothing that JSON has."""
    if not isinstance(said, Action):
        return {"result": _encoded(said)}
    _encoded(said.lines)
    return {"result": _encoded(said.result), "action": said.lines}


def checked(line: Any, before: int) -> None:
    """Raise `ValueError` unless this is one line of an action, of which so many have added tasks."""
    if not isinstance(line, Mapping) or not line:
        raise ValueError(f"{_shown(line)} is no object with one of {', '.join([*ADDED, *_SAID])}")
    kind = next((word for word in (*ADDED, *_SAID) if word in line), "")
    known: dict[str, type] = {kind: object, **_OPTIONS} if kind in ADDED else {kind: _SAID.get(kind, object)}
    for word, value in line.items():
        if word not in known:
            raise ValueError(f"{_shown(line)}: {word!r} is not known there")
        if not isinstance(value, known[word]):
            what = f"{_shown(line)}: {word!r} is no {known[word].__name__}"
            raise ValueError(what)  # noqa: TRY004 - of what somebody has written into a file
    _check_numbers(line, before)


def _check_numbers(line: Mapping[str, Any], before: int) -> None:
    if not -LARGEST <= line.get("priority", 0) <= LARGEST:
        raise ValueError(f"{_shown(line)}: 'priority' is beyond {LARGEST:,}")
    for word in ("requires", "after"):
        for number in line.get(word, ()):
            if not isinstance(number, int) or not 0 < number <= before:
                raise ValueError(f"{_shown(line)}: {word} {number!r}, but {before} tasks were added before it")


def _shown(line: Any) -> str:
    text = json.dumps(line, default=repr)
    return text if len(text) <= 80 else f"{text[:79]}…"


def read(text: str) -> list[dict[str, Any]]:
    """The lines that a command has left.

    Raises
    ------
    ValueError
        One is none.
    """
    lines: list[dict[str, Any]] = []
    before = 0
    for number, row in enumerate(text.splitlines(), 1):
        if not row.strip():
            continue
        try:
            line = json.loads(row)
            checked(line, before)
        except ValueError as exc:
            raise ValueError(f"line {number} of ${FILE}: {exc}") from None
        lines.append(line)
        before += added([line])
    return lines


def added(lines: Iterable[Mapping[str, Any]]) -> int:
    """How many tasks lines add."""
    return sum(any(word in line for word in ADDED) for line in lines)


def leave(line: dict[str, Any]) -> int:
    """From within a command: have this done with its end; returns how many tasks it has added by then."""
    if not (path := os.environ.get(FILE)):
        remedy = "In there it is the queue that the command is a task of; elsewhere name the queue."
        raise QueueError("`.` means something only in a command that a queue carries out", remedy=remedy)
    with open(path, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # a command may do several things at once
        file.seek(0)
        try:
            before = added(read(file.read()))
            checked(line, before)
        except ValueError as exc:
            raise QueueError(str(exc), remedy="Nothing was left by this.") from None
        file.write(json.dumps(line) + "\n")
    return before + added([line])


def merged(said: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """What several parents have passed, in their order, as one: the last value counts, and what was pushed is a list.

    Examples
    --------
    >>> merged([({"a": 1}, {"b": 2}), ({"a": 3}, {"b": 4})])
    {'a': 3, 'b': [2, 4]}
    """
    values: dict[str, Any] = {}
    pushed: dict[str, list[Any]] = {}
    for given, rows in said:
        values |= given
        for word, value in rows.items():
            pushed.setdefault(word, []).append(value)
    return values | pushed


def with_values(task: Any, values: dict[str, Any] | None) -> Any:
    """A task with what was passed to it, where it is a dict; others find it elsewhere."""
    return task | values if values and isinstance(task, dict) else task
