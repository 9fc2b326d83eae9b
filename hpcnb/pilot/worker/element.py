"""The body of a `%%hpc --each` cell, as a function of one element."""

from __future__ import annotations

import builtins
import gc
import inspect
from collections.abc import Coroutine, Sequence
from types import CodeType
from typing import Any

from hpcnb.errors import CannotSerialize
from hpcnb.pilot.values import Frame, size, taken, unpack, words

__all__ = ["Body"]

LARGE = 10e6
"""Bytes of variables that are not to pile up."""


class Body:
    """The body of a cell: called with the notebook's variables and an element, it gives what stands after ``-o``.

    Parameters
    ----------
    code : CodeType
        Of the cell.
    targets : sequence of str
        The names that an element binds.
    inputs : sequence of str
        The notebook's variables that it gets.
    outputs : sequence of str
        The names whose values it gives: a single one bare, several as a tuple.

    Notes
    -----
    The variables are in the first argument, as what `hpcnb.pilot.values.pack` gives, or else in `frames`.

    Each call has a namespace of its own, and the variables are made anew in it: what an element does to them no other one sees, also when both are
    of one batch.
    """

    def __init__(
        self, code: CodeType, *, targets: Sequence[str], inputs: Sequence[str] = (), outputs: Sequence[str] = ()
    ) -> None:
        self.code = code
        self.targets, self.inputs, self.outputs = tuple(targets), tuple(inputs), tuple(outputs)
        self.frames: tuple[bytes, ...] = ()
        # Dask takes what a key begins with for its name, unless that is no letter.
        self.__name__ = ",".join(targets) if targets[0][0].isalpha() else "element"

    def __call__(self, frames: Sequence[Frame], *element: Any) -> Any:
        namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
        if frames := frames or self.frames:
            self._bind(frames, namespace)
        namespace.update(zip(self.targets, element, strict=True))
        running = eval(self.code, namespace)  # noqa: S307 - the user's own cell
        if inspect.iscoroutine(running):  # it has an `await` of its own
            return self._awaited(running, namespace)
        return self._values(namespace)

    def _bind(self, frames: Sequence[Frame], namespace: dict[str, Any]) -> None:
        if size(frames) > LARGE:
            gc.collect()  # a namespace is a circle through its functions, and keeps what an earlier element was sent
        try:
            namespace.update(unpack(frames, namespace))
        except Exception as error:
            raise CannotSerialize(
                f"{', '.join(self.inputs)} cannot be rebuilt on the worker: {words(error)}",
                remedy="Make both sides' packages agree, or make it in the cell.",
            ) from error

    async def _awaited(self, running: Coroutine[Any, Any, Any], namespace: dict[str, Any]) -> Any:
        await running
        return self._values(namespace)

    def _values(self, namespace: dict[str, Any]) -> Any:
        return taken(namespace, self.outputs, "this element")
