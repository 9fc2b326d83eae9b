"""Named values as pickle frames, and back: how variables travel between notebook and session."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

from cloudpickle import cloudpickle

from hpcnb.errors import CannotSerialize, TaskError

__all__ = ["Frame", "dump", "kind", "pack", "size", "taken", "unpack", "words"]

Frame = bytes | bytearray | memoryview


class _TooLarge(Exception):
    """Pickling was given up because the limit was passed."""


class _Sink:
    """What a pickler writes to; gives up as soon as more than `limit` bytes have come together."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._size = 0
        self.stream: list[bytes] = []
        self.buffers: list[memoryview] = []

    def write(self, data: Any) -> int:
        self._count(len(data))
        self.stream.append(bytes(data))
        return len(data)

    def keep(self, buffer: pickle.PickleBuffer) -> None:
        raw = buffer.raw()
        self._count(raw.nbytes)
        self.buffers.append(raw)

    def _count(self, size: int) -> None:
        self._size += size
        if self._limit is not None and self._size > self._limit:
            raise _TooLarge


def dump(value: Any, limit: int | None = None) -> list[Frame]:
    """Pickle one value: the stream first, then its buffers, which are not copied."""
    sink = _Sink(limit)
    cloudpickle.Pickler(sink, protocol=5, buffer_callback=sink.keep).dump(value)
    return [b"".join(sink.stream), *sink.buffers]


def size(frames: Sequence[Frame]) -> int:
    """How many bytes the frames hold."""
    return sum(memoryview(frame).nbytes for frame in frames)


def pack(values: Mapping[str, Any], *, limit: int | None = None) -> list[Frame]:
    """Pickle named values together, so that objects which they share stay shared.

    Parameters
    ----------
    values : mapping of str to object
    limit : int, optional
        Bytes; more is refused, and so is the work of pickling more.

    Raises
    ------
    CannotSerialize
        Names the variable, its type and what to do.
    """
    try:
        return dump(dict(values), limit)
    except (Exception, SystemExit) as error:
        raise _blame(values, limit) from error


def _blame(values: Mapping[str, Any], limit: int | None) -> CannotSerialize:
    sizes: dict[str, int] = {}
    for name, value in values.items():
        try:
            sizes[name] = size(dump({name: value}, limit))
        except _TooLarge:
            return _too_large(name, value, limit)
        except (Exception, SystemExit) as error:
            return CannotSerialize(
                f"{name} ({kind(value)}) cannot be sent: {words(error)}",
                remedy=f"Create {name} in the cell that needs it, or send something plainer (its values, a path).",
            )
    largest = max(sizes, key=lambda name: sizes[name])
    return _too_large(largest, values[largest], limit, together=sum(sizes.values()))


def _too_large(name: str, value: Any, limit: int | None, together: int = 0) -> CannotSerialize:
    allowed = f"{(limit or 0) / 1e6:,.0f} MB"
    what = f"{name} ({kind(value)}) is larger than the {allowed} that are sent unasked"
    if together:
        what = f"the variables are {together / 1e6:,.0f} MB together, more than {allowed}; the largest is {name}"
    return CannotSerialize(what, remedy=f"Send it on purpose with `-i {name}`, or create it in the session.")


def kind(value: Any) -> str:
    """The type of a value as its user knows it."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def words(error: BaseException) -> str:
    """What an error says, whatever its class does when it is asked."""
    try:
        return f"{type(error).__name__}: {error}"
    except (Exception, SystemExit):
        return type(error).__name__


def unpack(frames: Sequence[Frame], namespace: dict[str, Any] | None = None) -> Any:
    """Unpickle what `pack` or `dump` made; for authenticated peers only.

    Parameters
    ----------
    frames : sequence of bytes
    namespace : dict, optional
        The user's namespace. Functions that were typed into a notebook live in it afterwards, as if they
        had been typed here; globals that they need and it lacks are added.
    """
    # Arrays over read-only frames would be read-only themselves, hence the copies.
    buffers = [frame if isinstance(frame, bytearray) else bytearray(frame) for frame in frames[1:]]
    return _Unpickler(frames[0], buffers, namespace).load()


def taken(namespace: Mapping[str, Any], names: Sequence[str], whose: str) -> Any:
    """What a cell's task gives: the value of a single name, several as a tuple, None for none.

    Parameters
    ----------
    namespace : mapping
    names : sequence of str
    whose : str
        Who was to set them.

    Raises
    ------
    TaskError
        It has not set them all.
    """
    if absent := [name for name in names if name not in namespace]:
        raise TaskError(
            f"{whose} has not set {', '.join(absent)}", remedy="Set what stands after -o on every path of the cell."
        )
    values = tuple(namespace[name] for name in names)
    return values[0] if len(values) == 1 else values or None


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Frame, buffers: Sequence[Frame], namespace: dict[str, Any] | None) -> None:
        super().__init__(io.BytesIO(stream), buffers=buffers)
        self._namespace = namespace

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        ours = _OURS.get((module, name))
        return found if ours is None or self._namespace is None else functools.partial(ours, self._namespace, found)


def _make_function(
    namespace: dict[str, Any], make: Callable[..., Any], code: CodeType, own: dict[str, Any], *rest: Any
) -> Any:
    if own.get("__name__") == "__main__":
        return FunctionType(code, namespace, *rest)
    return make(code, own, *rest)


def _set_function_state(
    namespace: dict[str, Any], set_state: Callable[..., None], function: FunctionType, state: Any
) -> None:
    attributes, slots = state
    if function.__globals__ is not namespace:
        set_state(function, state)
        return
    for name, value in slots["__globals__"].items():
        namespace.setdefault(name, value)
    builtins = namespace["__builtins__"]
    set_state(function, (attributes, {**slots, "__globals__": {}}))
    namespace["__builtins__"] = builtins  # cloudpickle puts its own there


_OURS: dict[tuple[str, str], Callable[..., Any]] = {
    (cloudpickle.__name__, "_make_function"): _make_function,
    (cloudpickle.__name__, "_function_setstate"): _set_function_state,
}
"""How cloudpickle rebuilds a function that was typed in, and what we do in its place."""
