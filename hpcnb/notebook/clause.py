"""The clause of `%%hpc --each`: target and iterable of Python's own `for`."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import Any

from IPython.core.error import UsageError

from hpcnb.notebook.remote_error import shown

__all__ = ["Clause", "read"]

MOST = 1_000_000
"""Elements; of an iterable with more nobody knows whether it ends."""
ELEMENT = ".0"
"""What an element is called before it is unpacked: no name that a user can type."""


@dataclass(frozen=True, kw_only=True)
class Clause:
    """What was read.

    Parameters
    ----------
    text : str
        As it was typed.
    names : tuple of str
        Those that an element binds, in order.
    iterable : CodeType
    unpacking : CodeType or None
        Binds the names; None where there is one that is the element itself.
    """

    text: str
    names: tuple[str, ...]
    iterable: CodeType
    unpacking: CodeType | None

    def rows(self, namespace: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return the values of the names, for each element.

        Parameters
        ----------
        namespace : dict
            The notebook's.

        Raises
        ------
        UsageError
            It cannot be iterated over, has no end, or an element does not fit the target.
        Exception
            What the user's own code has raised.
        """
        try:
            iterable = eval(self.iterable, namespace)  # noqa: S307 - the user's own
            try:
                found = iter(iterable)
            except TypeError as error:
                raise self._wrong(str(error)) from None
            elements = list(islice(found, MOST + 1))
        except UsageError:
            raise
        except Exception as error:
            error.add_note(f'in --each "{self.text}"; nothing was submitted')
            traced = error.__traceback__.tb_next if error.__traceback__ else None  # without this function
            raise shown(error, "".join(traceback.format_exception(type(error), error, traced)).splitlines()) from None
        if len(elements) > MOST:
            raise self._wrong(
                f"it has more than {MOST:,} elements, or no end. Let each element be several pieces of work"
            )
        return list(self._unpacked(elements))

    def _unpacked(self, elements: list[Any]) -> Iterator[tuple[Any, ...]]:
        for number, element in enumerate(elements):
            if self.unpacking is None:
                yield (element,)
                continue
            bound: dict[str, Any] = {ELEMENT: element}
            try:
                exec(self.unpacking, bound)  # noqa: S102 - an assignment
            except (TypeError, ValueError) as error:
                raise self._wrong(f"element {number}: {error}") from None
            yield tuple(bound[name] for name in self.names)

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f'%%hpc: --each "{self.text}": {what}. Nothing was submitted.')


def read(text: str) -> Clause:
    """Read a clause.

    Raises
    ------
    UsageError
        It is none.

    Examples
    --------
    >>> clause = read("a, b in zip(x, 'uv')")
    >>> clause.names, clause.rows({"x": [1, 2]})
    (('a', 'b'), [(1, 'u'), (2, 'v')])
    """
    try:
        return _read(text.strip())
    except (SyntaxError, ValueError):
        raise UsageError(
            f'%%hpc: --each takes what stands between `for` and the colon, as in --each "seed in range(100)" '
            f'or --each "a, b in zip(x, y)", not {text!r}. Nothing was submitted.'
        ) from None


def _read(text: str) -> Clause:
    match ast.parse(f"for {text}:\n pass").body:
        case [ast.For(target=target, iter=iterable, body=[ast.Pass()], orelse=[])]:
            names = tuple(dict.fromkeys(_names(target)))
        case _:
            names = ()
    if not names:
        raise ValueError("it binds nothing")
    unpacking = ast.Assign([target], ast.Name(ELEMENT, ast.Load()), lineno=1)
    return Clause(
        text=text,
        names=names,
        iterable=compile(ast.Expression(iterable), "--each", "eval"),
        unpacking=None
        if isinstance(target, ast.Name)
        else compile(ast.fix_missing_locations(ast.Module([unpacking], [])), "--each", "exec"),
    )


def _names(target: ast.expr) -> Iterator[str]:
    """The names that a target binds; nothing that is no variable, such as `a.b` or `a[0]`."""
    match target:
        case ast.Name(id=name):
            yield name
        case ast.Starred(value=inner):
            yield from _names(inner)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from _names(part)
        case _:
            raise ValueError("no variable")
