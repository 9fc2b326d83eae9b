"""What a task does on a worker: its arguments are laid out, its function called, and what it wrote becomes new versions."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed

from hpcnb.pilot.worker.fingerprint import fingerprint
from hpcnb.tasks.directions import Direction
from hpcnb.tasks.nesting import inner, on_worker
from hpcnb.tasks.staging import Content, Place

__all__ = ["Argument", "Body", "leaves", "only"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Argument:
    """One argument of a call as the worker is told of it.

    Parameters
    ----------
    name : str
        Empty: it is passed by position.
    direction : Direction
    places : object
        Of files and directories, where they lie in the main program; in the shape of the argument, as its value is.
    """

    name: str
    direction: Direction
    places: Any = None


def leaves(value: Any, depth: int) -> Iterator[Any]:
    """The values below so many levels of lists and dictionaries, in order."""
    if depth == 0:
        yield value
        return
    for element in value.values() if isinstance(value, dict) else value:
        yield from leaves(element, depth - 1)


def shaped(value: Any, depth: int, made: Iterator[Any]) -> Any:
    """The same lists and dictionaries, with other values in them."""
    if depth == 0:
        return next(made)
    if isinstance(value, dict):
        return {key: shaped(element, depth - 1, made) for key, element in value.items()}
    return [shaped(element, depth - 1, made) for element in value]


def _placed(value: Any, argument: Argument) -> Iterator[tuple[Content | None, Place]]:
    """Each file or directory of an argument: what it holds, if that has come, and its place."""
    depth = argument.direction.depth
    return zip(leaves(value, depth), leaves(argument.places, depth), strict=True)


class Body:
    """The function of a task with what is known of its arguments and results; called with the arguments' values.

    Parameters
    ----------
    fn : callable
    arguments : sequence of Argument
    returns : int
        How many values it returns.
    waits : bool
        It only waits, and so leaves its core to others.

    Notes
    -----
    It gives a single output bare, several as a tuple: what is returned first, then what was written, in the order of the arguments.
    """

    def __init__(
        self, fn: Callable[..., Any], arguments: Sequence[Argument], *, returns: int, waits: bool = False
    ) -> None:
        self.fn, self.arguments, self.returns = fn, tuple(arguments), returns
        self.waits = waits
        self.__name__ = fn.__name__

    def __call__(self, values: Sequence[Any]) -> Any:
        if self.waits and on_worker():
            distributed.secede()
        with contextlib.ExitStack() as stack:
            settled = stack.enter_context(inner())
            folder = self._folder(stack)
            laid_out = self._lay_out(values, folder)
            args = [value for value, argument in zip(laid_out, self.arguments, strict=True) if not argument.name]
            kwargs = {a.name: value for value, a in zip(laid_out, self.arguments, strict=True) if a.name}
            returned, laid_out = settled([self.fn(*args, **kwargs), laid_out])
            outputs = [*self._returned(returned), *self._written(laid_out)]
        return only(outputs)

    def code(self) -> str:
        """What it does, as a fingerprint; where the files of the main program lie is no part of it."""
        return fingerprint(self.fn, [(a.name, a.direction) for a in self.arguments], self.returns)

    def content(self, values: Sequence[Any]) -> list[Any]:
        """What the arguments are known by: files and directories by what they hold."""
        return [
            [place.content(held, a.direction) for held, place in _placed(value, a)] if a.direction.is_path else value
            for value, a in zip(values, self.arguments, strict=True)
        ]

    def _folder(self, stack: contextlib.ExitStack) -> Path:
        if not any(argument.direction.is_path for argument in self.arguments):
            return Path()
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcnb-task-")))

    def _lay_out(self, values: Sequence[Any], folder: Path) -> list[Any]:
        # To all other tasks here the values that came are what they were: a task changes its own. They are copied together,
        # so that what is one object in two arguments stays one.
        writes = [argument.direction.writes and not argument.direction.is_path for argument in self.arguments]
        own = iter(copy.deepcopy([value for value, copied in zip(values, writes, strict=True) if copied]))
        given = [next(own) if copied else value for value, copied in zip(values, writes, strict=True)]
        return [
            self._staged(value, argument, folder / str(number)) if argument.direction.is_path else value
            for number, (value, argument) in enumerate(zip(given, self.arguments, strict=True))
        ]

    def _staged(self, value: Any, argument: Argument, folder: Path) -> Any:
        made = []
        for number, (content, place) in enumerate(_placed(value, argument)):
            own = folder / str(number)
            own.mkdir(parents=True)
            made.append(place.stage(content, argument.direction, own))
        return shaped(value, argument.direction.depth, iter(made))

    def _returned(self, value: Any) -> Sequence[Any]:
        if self.returns == 0:
            return ()
        if self.returns == 1:
            return (value,)
        if not isinstance(value, Sequence) or len(value) != self.returns:
            number = f"{len(value)} values" if isinstance(value, Sequence) else f"a {type(value).__name__}"
            raise TypeError(f"{self.__name__}() was to return {self.returns} values, and returned {number}")
        return value

    def _written(self, values: Sequence[Any]) -> Iterator[Any]:
        for value, argument in zip(values, self.arguments, strict=True):
            direction = argument.direction
            if direction.writes:
                for leaf in leaves(value, direction.depth):
                    yield self._read(leaf, direction) if direction.is_path else leaf

    def _read(self, path: str, direction: Direction) -> Content | None:
        if direction.is_shared:
            return None
        try:
            return Content.read(path, direction.kind)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.__name__}() has not written {Path(path).name}, which is its output"
            ) from None


def only(outputs: Sequence[Any]) -> Any:
    """The value of a task's key: its single output, or a tuple of several."""
    if not outputs:
        return None
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
