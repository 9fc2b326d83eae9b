"""What a call is known by: the code it runs with all that this refers to, the content of its arguments, its environment.

Two calls with the same fingerprint give the same result, wherever and whenever they run. Where a file lies, on which
line a function begins, and the name of the notebook cell that defined it are no part of it.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dask.tokenize import TokenizationError, normalize_object, normalize_token, tokenize

from hpcnb.errors import CannotSerialize

__all__ = ["environment", "file_digest", "fingerprint", "is_installed"]

CHUNK = 1 << 20
ATOMS = frozenset({int, float, complex, bool, str, type(None)})
UNTOLD = {"__dict__", "__weakref__", "__module__", "__firstlineno__", "__static_attributes__", "__annotate__"}
UNTOLD |= {"__dataclass_fields__", "__dataclass_params__"}
"""What a class has beside what its author wrote, or in another form."""


def fingerprint(*values: Any) -> str:
    """Hash values by their content: functions and classes by their code, files (``os.PathLike``) by their bytes.

    Parameters
    ----------
    *values
        Anything; what comes from an installed package or from Python itself counts by its name, for the package's version
        is part of the `environment`.

    Returns
    -------
    str
        64 hexadecimal digits (SHA-256).

    Raises
    ------
    CannotSerialize
        A value has no content that could be compared (an open connection, a lock).

    Examples
    --------
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)
    True
    >>> fingerprint([1, 2]) == fingerprint([1, 2.0])
    False
    """
    return _Visit().token(values)


@functools.cache
def environment() -> str:
    """What else decides over a result: Python, the machine's kind, and the version of each installed package."""
    packages = {(d.metadata["Name"] or "", d.version) for d in importlib.metadata.distributions()}
    return fingerprint(sys.version, platform.machine(), sorted(packages))


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_installed(module: str) -> bool:
    """Whether a module belongs to Python or to an installed package, and not to the user's own work."""
    if module == "builtins" or module in sys.stdlib_module_names or module in sys.builtin_module_names:
        return True
    if module == "__main__":
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or _origin(module)
    return file is not None and any(Path(file).resolve().is_relative_to(root) for root in _installed_roots())


def _origin(module: str) -> str | None:
    """Where a module that was not imported yet would come from; it is not imported for that, which may be dear."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    return found.origin if found else None


@functools.cache
def _installed_roots() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    here = Path(__file__).resolve().parents[1]  # our own code is shipped, and lies in no such place
    return (*(Path(sysconfig.get_path(name)).resolve() for name in names), here)


class _Visit:
    """One walk over values; each is taken apart once, and within itself it is told by its depth, so that the walk ends."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._known: dict[int, tuple[str, Any]] = {}

    def token(self, value: Any) -> str:
        if type(value) in ATOMS:
            return f"{type(value).__name__}:{value!r}"
        if type(value) in (bytes, bytearray, memoryview):
            return f"{type(value).__name__}:{hashlib.sha256(value).hexdigest()}"
        if id(value) in self._open:
            return f"within:{self._open[id(value)]}"
        if id(value) in self._known:
            return self._known[id(value)][0]
        kind = _kind(value)
        if kind is None:
            return self._plain(value)
        self._open[id(value)] = len(self._open)
        parts = (kind.__name__, *kind(self, value))
        del self._open[id(value)]
        token = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()
        self._known[id(value)] = token, value  # holds it, for an id may be used again
        return token

    def tokens(self, values: Iterable[Any]) -> tuple[str, ...]:
        return tuple(self.token(value) for value in values)

    def _plain(self, value: Any) -> str:
        try:
            return tokenize(value, ensure_deterministic=True)
        except TokenizationError as exc:
            raise _unknowable(value, exc) from exc


def _unknowable(value: Any, why: Exception) -> CannotSerialize:
    return CannotSerialize(
        f"a {type(value).__qualname__} cannot be compared by its content",
        evidence=str(why),
        remedy="Pass what it is made from (a path, parameters) instead, or run the task without cache=True.",
    )


Kind = Callable[[_Visit, Any], Iterator[Any]]


def _kind(value: Any) -> Kind | None:
    """How to take a value apart; None: by what it is as a whole."""
    for types_, kind in _KINDS:
        if isinstance(value, types_):
            return kind
    own = type(value)
    # Dask knows arrays, frames and the like by their bytes; what it would only pickle depends on where it was defined.
    known = hasattr(own, "__dask_tokenize__") or normalize_token.dispatch(own) is not normalize_object
    return None if known else _object


def _function(visit: _Visit, function: types.FunctionType) -> Iterator[Any]:
    # What a package's decorator has made holds the user's function, whatever its own name.
    yield visit.tokens(_content(cell) for cell in function.__closure__ or ())
    yield visit.token(function.__defaults__)
    yield visit.token(function.__kwdefaults__)
    if is_installed(function.__module__ or ""):
        yield from (function.__module__, function.__qualname__)
        return
    yield visit.token(function.__code__)
    yield visit.tokens(_own_modules(_imports_of(function.__code__)))
    for name in sorted(_globals_of(function.__code__)):
        if name in function.__globals__:
            yield name
            yield visit.token(function.__globals__[name])
        elif not hasattr(builtins, name):
            yield name  # not defined yet: the call will say so


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _code(visit: _Visit, code: types.CodeType) -> Iterator[Any]:
    yield from (code.co_code.hex(), code.co_exceptiontable.hex(), code.co_flags)
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    yield from (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    yield visit.tokens(code.co_consts)


@functools.lru_cache(4096)
def _globals_of(code: types.CodeType) -> frozenset[str]:
    names = {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return frozenset(names.union(*(_globals_of(c) for c in code.co_consts if isinstance(c, types.CodeType))))


@functools.lru_cache(4096)
def _imports_of(code: types.CodeType) -> frozenset[str]:
    names = {str(step.argval) for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"}
    return frozenset(names.union(*(_imports_of(c) for c in code.co_consts if isinstance(c, types.CodeType))))


def _own_modules(names: Iterable[str]) -> Iterator[types.ModuleType]:
    """The user's own among modules; what cannot be imported is the call's affair."""
    for name in sorted(names):
        if name and name != "__main__" and not is_installed(name):
            with contextlib.suppress(ImportError):
                module = importlib.import_module(name)
                if not is_installed(name):  # where it lies is known since it was imported
                    yield module


def _class(visit: _Visit, cls: type) -> Iterator[Any]:
    yield from (cls.__module__, cls.__qualname__) if is_installed(cls.__module__) else (cls.__qualname__,)
    if not is_installed(cls.__module__):
        yield visit.tokens(cls.__bases__)
        for name, value in sorted(vars(cls).items()):
            if name not in UNTOLD and not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
                yield name
                yield visit.token(value)


def _module(visit: _Visit, module: types.ModuleType) -> Iterator[Any]:
    yield module.__name__
    file = getattr(module, "__file__", None)
    if file is not None and not is_installed(module.__name__):
        yield file_digest(file)
        inside = [value for value in vars(module).values() if not isinstance(value, str | int | float)]
        from_where = {getattr(v, "__name__" if isinstance(v, types.ModuleType) else "__module__", None) for v in inside}
        yield visit.tokens(_own_modules({n for n in from_where if isinstance(n, str)} - {module.__name__}))


def _method(visit: _Visit, method: types.MethodType) -> Iterator[Any]:
    yield from visit.tokens((method.__func__, method.__self__))


def _builtin(visit: _Visit, function: types.BuiltinFunctionType) -> Iterator[Any]:
    yield function.__qualname__
    yield visit.token(function.__self__)


def _wrapper(visit: _Visit, wrapper: Any) -> Iterator[Any]:
    yield visit.token(wrapper.__func__)


def _property(visit: _Visit, value: property) -> Iterator[Any]:
    yield visit.tokens((value.fget, value.fset, value.fdel))


def _partial(visit: _Visit, partial: functools.partial[Any]) -> Iterator[Any]:
    yield from visit.tokens((partial.func, partial.args, partial.keywords))


def _dict(visit: _Visit, value: dict[Any, Any]) -> Iterator[Any]:
    yield type(value).__qualname__
    yield from visit.tokens(value.items())


def _sequence(visit: _Visit, value: Any) -> Iterator[Any]:
    yield type(value).__qualname__
    yield from visit.tokens(value)


def _set(visit: _Visit, value: Any) -> Iterator[Any]:
    yield type(value).__qualname__
    yield from sorted(visit.tokens(value))


def _file(_: _Visit, path: os.PathLike[str]) -> Iterator[Any]:
    yield file_digest(path) if Path(path).is_file() else os.fspath(path)


def _object(visit: _Visit, value: Any) -> Iterator[Any]:
    # What pickle would make it again from; its class is told by its code.
    try:
        parts = value.__reduce_ex__(4)
    except TypeError as exc:
        raise _unknowable(value, exc) from exc
    if isinstance(parts, str):
        yield parts
        return
    for part in parts:
        yield visit.token(list(part) if isinstance(part, Iterator) else part)


_KINDS: tuple[tuple[Any, Kind], ...] = (
    (types.FunctionType, _function),
    (types.CodeType, _code),
    (type, _class),
    (types.ModuleType, _module),
    (types.MethodType, _method),
    (types.BuiltinFunctionType, _builtin),
    ((staticmethod, classmethod), _wrapper),
    (property, _property),
    (functools.partial, _partial),
    (dict, _dict),
    ((list, tuple), _sequence),
    ((set, frozenset), _set),
    (os.PathLike, _file),
)
