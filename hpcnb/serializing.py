"""What leaves a notebook with a call: its own code by value, everything else by name; what cannot travel is named."""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from cloudpickle import cloudpickle
from dask.utils import funcname
from distributed import Future as DaskFuture

from hpcnb.notebook_name import shell
from hpcnb.pilot.values import dump, kind, size
from hpcnb.pilot.worker.blame import PLAIN, blame, is_array
from hpcnb.pilot.worker.call import Call
from hpcnb.pilot.worker.packed import Packed

__all__ = ["blaming", "call", "packed", "send_own_modules_by_value"]

LARGE = 10e6
"""Bytes that a function may bring along without a word."""
INSTALLED = ("site-packages", "dist-packages")

_seen: set[str] = set()
_warned: set[str] = set()
_latest: dict[str, CodeType] = {}


def call(fn: Callable[..., Any], **options: Any) -> Call:
    """Make a function ready for its journey.

    Parameters
    ----------
    fn : callable
    **options
        Of `Call`.

    Raises
    ------
    CannotSerialize
        Names the variable, and the part of it, that cannot travel.
    """
    send_own_modules_by_value()
    _notice_change(fn)
    with blaming(fn, funcname(fn)):
        made = Call(fn, **options)
    if len(made.payload) > LARGE:
        _warn(fn, len(made.payload))
    return made


def packed(value: Any, name: str) -> Any:
    """Make an argument ready for its journey.

    Parameters
    ----------
    value : object
        No future, and none in it.
    name : str
        Whose argument it is, for the error.

    Raises
    ------
    CannotSerialize
    """
    if type(value) in PLAIN or is_array(value):
        return value
    if isinstance(value, DaskFuture):  # an argument that Dask knows
        return value
    with blaming(value, name):
        return Packed(value)


@contextlib.contextmanager
def blaming(value: Any, name: str) -> Iterator[None]:
    """Where a value is pickled: what goes wrong is said of the part that cannot be.

    Parameters
    ----------
    value : object
    name : str
        As its user calls it.

    Raises
    ------
    CannotSerialize
    """
    try:
        yield
    except Exception as error:
        raise blame(value, name, error, where="on its way to a worker") from error


def _warn(fn: Any, total: int) -> None:
    """Say once which variable makes a function that large."""
    name = funcname(fn)
    if name in _warned:
        return
    _warned.add(name)
    inner = inspect.unwrap(fn) if callable(fn) else fn
    found = inspect.getclosurevars(inner) if isinstance(inner, FunctionType) else None
    captured = {**found.nonlocals, **found.globals} if found else {}
    sizes: dict[str, int] = {}
    for variable, value in captured.items():
        with contextlib.suppress(Exception):  # it has travelled with the function, so it is none of these
            sizes[variable] = size(dump(value))
    if sizes:
        largest = max(sizes, key=lambda variable: sizes[variable])
        what = (
            f"{largest} ({kind(captured[largest])}, {sizes[largest] / 1e6:,.0f} MB) goes along with each call of {name}"
        )
    else:
        largest, what = "data", f"{name} brings {total / 1e6:,.0f} MB along with each call"
    warnings.warn(
        f"{what}. Send it once, and pass it as an argument: {largest} = hpc.current().client.scatter({largest})",
        stacklevel=5,
    )


def _notice_change(fn: Any) -> None:
    """Say once, in a notebook, that a cell has given a function other code than its calls had before."""
    while hasattr(fn, "fn"):  # what is ours around it
        fn = fn.fn
    code = getattr(inspect.unwrap(fn) if callable(fn) else fn, "__code__", None)
    if code is None or fn.__module__ != "__main__" or "<" in fn.__qualname__ or shell() is None:
        return
    before = _latest.get(fn.__qualname__)
    _latest[fn.__qualname__] = code
    if before is not None and not _is_same(before, code):
        sys.stderr.write(
            f"hpcnb: {fn.__qualname__} is defined anew: this call and later ones run its new code, earlier ones keep theirs\n"
        )


def _is_same(one: CodeType, other: CodeType) -> bool:
    """Whether two pieces of code do the same, wherever they stand in their cells."""
    if one is other:
        return True
    told = [
        (code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags, len(code.co_consts))
        for code in (one, other)
    ]
    return told[0] == told[1] and all(
        _is_same(mine, its)
        if isinstance(mine, CodeType) and isinstance(its, CodeType)
        else (type(mine), mine) == (type(its), its)
        for mine, its in zip(one.co_consts, other.co_consts, strict=True)
    )


def send_own_modules_by_value() -> None:
    """Have modules that lie beside the notebook, or the script, travel as they are now: the site may not have them, or older ones."""
    new = sys.modules.keys() - _seen
    if not new:
        return
    _seen.update(new)
    beside = _beside()
    for name in new:
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and name != "__main__" and _is_own(module, beside):
            cloudpickle.register_pickle_by_value(module)


def _beside() -> Path:
    running = shell()
    if running is not None and (history := running.user_ns.get("_dh")):
        return Path(history[0])
    script = getattr(sys.modules["__main__"], "__file__", None)
    return Path(script).resolve().parent if script else Path.cwd()


def _is_own(module: ModuleType, beside: Path) -> bool:
    file = getattr(module, "__file__", None)
    if not file or module.__name__.partition(".")[0] == "hpcnb":
        return False
    path = Path(file)
    inside = path.is_relative_to(beside) and not set(INSTALLED) & set(path.parts)
    return inside and not path.is_relative_to(sys.prefix) and not path.is_relative_to(sys.base_prefix)
