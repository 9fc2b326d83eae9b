"""What a task does with each of its parameters: read by annotation or by keyword, from the function's signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = [
    "Access",
    "Collection",
    "Commutative",
    "Concurrent",
    "Dictionary",
    "Direction",
    "DirectoryIn",
    "DirectoryInOut",
    "DirectoryOut",
    "FileCommutative",
    "FileConcurrent",
    "FileIn",
    "FileInOut",
    "FileOut",
    "In",
    "InDelete",
    "InOut",
    "Kind",
    "Out",
    "Parameters",
]


class Access(StrEnum):
    """What is done with a value."""

    IN = "in"
    OUT = "out"
    INOUT = "inout"
    CONCURRENT = "concurrent"
    COMMUTATIVE = "commutative"
    IN_DELETE = "in_delete"


class Kind(StrEnum):
    """Where a value lies in the main program."""

    OBJECT = "object"
    FILE = "file"
    DIRECTORY = "directory"


@dataclass(frozen=True, kw_only=True)
class Direction:
    """How one parameter of a task is passed.

    Parameters
    ----------
    access : Access
    kind : Kind
    depth : int
        How many levels of lists (or of dictionaries' values) lie above the values that this is said of; 0: it is said of the argument.
    """

    access: Access = Access.IN
    kind: Kind = Kind.OBJECT
    depth: int = 0

    @property
    def reads(self) -> bool:
        return self.access is not Access.OUT

    @property
    def writes(self) -> bool:
        return self.access not in (Access.IN, Access.IN_DELETE)

    @property
    def is_path(self) -> bool:
        return self.kind is not Kind.OBJECT

    @property
    def is_shared(self) -> bool:
        """Whether several tasks write one and the same file at the same time, in its place."""
        return self.is_path and self.access is Access.CONCURRENT


In = Direction()
Out = Direction(access=Access.OUT)
InOut = Direction(access=Access.INOUT)
Concurrent = Direction(access=Access.CONCURRENT)
Commutative = Direction(access=Access.COMMUTATIVE)
InDelete = Direction(access=Access.IN_DELETE)
FileIn = Direction(kind=Kind.FILE)
FileOut = Direction(kind=Kind.FILE, access=Access.OUT)
FileInOut = Direction(kind=Kind.FILE, access=Access.INOUT)
FileConcurrent = Direction(kind=Kind.FILE, access=Access.CONCURRENT)
FileCommutative = Direction(kind=Kind.FILE, access=Access.COMMUTATIVE)
DirectoryIn = Direction(kind=Kind.DIRECTORY)
DirectoryOut = Direction(kind=Kind.DIRECTORY, access=Access.OUT)
DirectoryInOut = Direction(kind=Kind.DIRECTORY, access=Access.INOUT)


def Collection(depth: int = 1, of: Direction = In) -> Direction:  # noqa: N802 - one of the directions
    """Lists, `depth` levels of them, whose elements are passed each for itself.

    Examples
    --------
    >>> Collection(2, InOut).depth
    2
    """
    if depth < 1:
        raise ValueError(f"a collection has at least one level, not {depth}")
    return Direction(access=of.access, kind=of.kind, depth=depth)


def Dictionary(depth: int = 1, of: Direction = In) -> Direction:  # noqa: N802 - one of the directions
    """Dictionaries, `depth` levels of them, whose values are passed each for itself; the keys are sent as they are."""
    return Collection(depth, of)


class Parameters:
    """The parameters of a function and their directions.

    Parameters
    ----------
    fn : callable
    said : mapping of str to Direction
        By parameter name; it outranks the annotations.
    target : Direction
        Of the object that a method is called on.

    Raises
    ------
    TypeError
        A direction is of no parameter, or is none.

    Examples
    --------
    >>> def step(a, c): ...
    >>> [direction.access.value for _, direction in Parameters(step, {"c": InOut}).of((1, 2), {})]
    ['in', 'inout']
    """

    def __init__(self, fn: Callable[..., Any], said: Mapping[str, Direction], target: Direction = InOut) -> None:
        self._signature = inspect.signature(fn)
        self._target = target
        known = self._signature.parameters
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        for name, direction in said.items():
            if not isinstance(direction, Direction):
                raise TypeError(
                    f"{name}={direction!r} is neither an option of a task nor a direction such as hpc.InOut"
                )
            if name not in known and not open_ended:
                raise TypeError(f"{fn.__name__}() has no parameter {name!r}; it has: {', '.join(known) or 'none'}")
        self.directions = {name: _annotated(fn, parameter) for name, parameter in known.items()} | dict(said)

    def of(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, method: bool = False
    ) -> Iterator[tuple[str, Direction]]:
        """For each argument of a call its name (empty where it is passed by position) and its direction.

        Raises
        ------
        TypeError
            The arguments do not fit the signature, in Python's own words.
        """
        self._signature.bind(*args, **kwargs)
        names = [p for p in self._signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
        for index in range(len(args)):
            name = names[min(index, len(names) - 1)].name
            yield "", self._target if method and index == 0 else self.directions[name]
        rest = next((n for n, p in self._signature.parameters.items() if p.kind is p.VAR_KEYWORD), "")
        for name in kwargs:
            yield name, self.directions.get(name) or self.directions[rest]


def _annotated(fn: Callable[..., Any], parameter: inspect.Parameter) -> Direction:
    """The direction in a parameter's annotation, itself or inside ``Annotated``; without one it is read only."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = _evaluated(fn, parameter.name, annotation)
    for mark in (annotation, *typing.get_args(annotation)):
        if isinstance(mark, Direction):
            return mark
    return In


def _evaluated(fn: Callable[..., Any], name: str, text: str) -> Any:
    fn = inspect.unwrap(fn)  # what is around it may be of another module
    known = inspect.getclosurevars(fn)
    try:
        # As typing.get_type_hints does it, which however takes types only.
        return eval(text, getattr(fn, "__globals__", {}), {**known.nonlocals})  # noqa: S307
    except Exception as exc:
        if any(mark in text for mark in _NAMES):
            raise TypeError(
                f"the annotation {text!r} of {name!r} cannot be read here ({exc}); give it by keyword: task({name}=…)"
            ) from exc
        return text


_NAMES = ("In", "Out", "Concurrent", "Commutative", "File", "Directory", "Collection", "Dictionary")
