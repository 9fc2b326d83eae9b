"""The versions of what tasks write: objects by identity, files by their absolute paths."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcnb.tasks.directions import Access

__all__ = ["Datum", "Ledger", "Version", "absolute", "refreshed"]

IMMUTABLE = (int, float, complex, bool, str, bytes, type(None), tuple, frozenset, range, type)
HEAP_TYPE = 1 << 9
"""The flag of a class that a ``class`` statement made."""


def absolute(path: str | os.PathLike[str]) -> str:
    """The name by which a file is known: the same from wherever it is named."""
    return os.path.abspath(path)  # noqa: PTH100 - a link is a name of its own, which a task may put a file in the place of


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One state of a datum.

    Parameters
    ----------
    future : object
        Dask's, whose value it is.
    writers : tuple of int
        The tasks that made it, by their numbers in the graph.
    """

    future: Any
    writers: tuple[int, ...]


@dataclass(kw_only=True, eq=False)
class Datum:
    """An object or a file of the main program, which tasks change.

    Nothing that is read has to be waited for by who writes: what was read stays as it is, and what is written is new.

    Parameters
    ----------
    key : object
        Its identity, or its path.
    version : Version, optional
        None: what the main program has is current.
    origin : tuple of int
        Of a future: the task that it is of.
    """

    key: Any
    version: Version | None = None
    origin: tuple[int, ...] = ()
    hold: Any = None  # so that the identity stays taken
    _beside: list[Version] = field(default_factory=list)
    _together: bool = False

    def seen_by(self, access: Access, moved: Callable[[Datum, Sequence[Version]], Version]) -> Version | None:
        """The version that a task finds.

        Parameters
        ----------
        access : Access
        moved : callable
            Makes the version before tasks that write beside each other (of none), or after them (of what they wrote).
        """
        together = access is Access.CONCURRENT
        if together != self._together and (self._beside or self.version is not None):
            self.version, self._beside = moved(self, self._beside), []
        self._together = together
        return self.version

    def written(self, access: Access, version: Version) -> None:
        """Take note of what a task writes."""
        if access is Access.CONCURRENT:
            self._beside.append(version)
        else:
            self.version = version

    @property
    def changed(self) -> bool:
        """Whether a task has written it."""
        return bool(self._beside) or self.version is not None


class Ledger:
    """What is known of the data of one program."""

    def __init__(self) -> None:
        self._objects: dict[int, Datum] = {}
        self._paths: dict[str, Datum] = {}

    def find(self, value: Any) -> Datum | None:
        """What is known of an object."""
        return self._objects.get(id(value))

    def object(self, value: Any) -> Datum:
        """The entry of an object that a task writes.

        Raises
        ------
        TypeError
            It cannot be written: an `int`, say.
        """
        if isinstance(value, IMMUTABLE):
            raise TypeError(
                f"{value!r:.80} cannot be changed in place, so it can only be read: have the task return the new {type(value).__name__}"
            )
        known = self._objects.get(id(value))
        if known is None:
            known = self._objects[id(value)] = Datum(key=id(value))
            known.hold = self._held(value)
        return known

    def path(self, path: str | os.PathLike[str]) -> Datum:
        """The entry of a file or directory."""
        name = absolute(path)
        return self._paths.setdefault(name, Datum(key=name))

    def forget(self, datum: Datum) -> None:
        """What the main program has is current again, or nobody wants to know."""
        where: dict[Any, Datum] = self._paths if isinstance(datum.key, str) else self._objects
        where.pop(datum.key, None)

    def _held(self, value: Any) -> Any:
        # An object that nothing refers to any more has no further version; what cannot tell us so lives as long as its entry.
        key = id(value)
        try:
            return weakref.ref(value, lambda _: self._objects.pop(key, None))
        except TypeError:
            return value


def refreshed(old: Any, new: Any) -> Any:
    """Make an object what it has become, in place where that can be done; gives the object to go on with.

    Examples
    --------
    >>> refreshed(mine := [1], [1, 2]) is mine
    True
    """
    kind = type(old)
    if kind is not type(new):
        return new
    if kind in (list, bytearray):
        old[:] = new
    elif kind in (dict, set):
        old.clear()
        old.update(new)
    elif kind.__module__ == "numpy" and kind.__name__ == "ndarray" and _fits(old, new):
        old[...] = new
    elif _plain(kind):
        vars(old).clear()
        vars(old).update(vars(new))
    else:
        return new
    return old


def _fits(old: Any, new: Any) -> bool:
    return bool((old.shape, old.dtype) == (new.shape, new.dtype) and old.flags.writeable)


def _plain(kind: type) -> bool:
    """Whether all that its objects hold is in their `__dict__`: its classes are Python's own statements, without slots."""
    own = [(cls.__flags__ & HEAP_TYPE, vars(cls)) for cls in kind.__mro__[:-1]]
    return all(stated and "__slots__" not in names for stated, names in own) and any("__dict__" in n for _, n in own)
