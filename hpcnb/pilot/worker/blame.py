"""Which part of an object cannot be pickled: the path to it, as the user would type it."""

from __future__ import annotations

import inspect
import itertools
import pickle
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from cloudpickle import cloudpickle
from distributed.protocol.serialize import serialize

from hpcnb.errors import CannotSerialize
from hpcnb.pilot.values import kind

__all__ = ["PLAIN", "blame", "check", "is_array"]

DEEPEST = 12
WIDEST = 10_000
"""Parts of one object that are tried."""
REMEDIES = {
    "lock": "Create it where it is used; a lock of one process means nothing in another.",
    "generator": "Send a list of its values.",
    "coroutine": "Submit the coroutine function itself, with its arguments.",
    "TextIOWrapper": "Send the file's path, and open it in the task.",
    "BufferedReader": "Send the file's path, and open it in the task.",
    "BufferedWriter": "Send the file's path, and open it in the task.",
    "socket": "Send the address, and connect in the task.",
    "Connection": "Send what it was made from, and connect in the task.",
    "module": "Import it in the task.",
}
PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray)


class _Nowhere:
    """What is written is gone."""

    def write(self, data: Any) -> int:
        return len(data)


def check(value: Any, name: str, *, where: str = "") -> None:
    """See that a result can travel, as cheaply as may be: what certainly can is not tried, and nothing is copied.

    Raises
    ------
    CannotSerialize
        Names the part that cannot.
    """
    if type(value) in PLAIN or is_array(value) or _pickles(value):
        return
    try:  # Dask knows some types that pickle does not
        serialize(value, serializers=("dask", "pickle"), on_error="raise")
    except Exception as error:
        raise blame(value, name, error, where=where) from error


def blame(value: Any, name: str, error: BaseException, *, where: str = "") -> CannotSerialize:
    """Return the error that names the part of a value that cannot be pickled, and what to do.

    Parameters
    ----------
    value : object
    name : str
        The value's own.
    error : BaseException
        What pickling it raised.
    where : str
    """
    path, part, why = _guilty(value, name, error)
    subject = f"{path} ({kind(part)})"
    remedy = REMEDIES.get(type(part).__name__, "Leave it out, make it in the task, or give its class __getstate__.")
    return CannotSerialize(f"{subject} cannot be pickled: {type(why).__name__}: {why}", where=where, remedy=remedy)


def _guilty(value: Any, name: str, error: BaseException) -> tuple[str, Any, BaseException]:
    """Go down to the innermost part that fails by itself."""
    path, seen = name, {id(value)}
    for _ in range(DEEPEST):
        for step, part in _parts(value):
            if id(part) in seen or type(part) in PLAIN:
                continue
            raised = _failure(part)
            if raised is not None:
                path, value, error = path + step, part, raised
                seen.add(id(part))
                break
        else:
            break
    return path, value, error


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object is made of, each part with what is typed to get from the one to the other."""
    if isinstance(value, dict):
        for key, part in itertools.islice(value.items(), WIDEST):
            yield f"[{key!r}]", part
            yield f" key {key!r}", key
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", part) for number, part in enumerate(itertools.islice(value, WIDEST)))
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif not isinstance(value, type | ModuleType):
        yield from _of_object(value)


def _of_function(value: FunctionType) -> Iterator[tuple[str, Any]]:
    variables = inspect.getclosurevars(value)
    for name, part in {**variables.nonlocals, **variables.globals}.items():
        yield f" → {name}", part
    for number, part in enumerate(value.__defaults__ or ()):
        yield f" default {number}", part


def _of_object(value: Any) -> Iterator[tuple[str, Any]]:
    for name in ("func", "args", "keywords"):  # functools.partial
        if hasattr(value, name) and type(value).__module__ == "functools":
            yield f".{name}", getattr(value, name)
    for name, part in getattr(value, "__dict__", {}).items():
        yield f".{name}", part
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)


def is_array(value: Any) -> bool:
    """Whether a value is an array, or a number, of numpy's that refers to nothing else."""
    return type(value).__module__ == "numpy" and not getattr(getattr(value, "dtype", None), "hasobject", True)


def _pickles(value: Any) -> bool:
    try:
        pickle.Pickler(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except Exception:
        return _failure(value) is None
    return True


def _failure(value: Any) -> BaseException | None:
    try:
        cloudpickle.Pickler(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except Exception as error:
        return error
    return None
