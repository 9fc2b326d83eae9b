"""A cell that runs in a worker's own namespace, which lasts: what one cell has bound there, the next one finds."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

from distributed.worker import get_worker

from hpcnb.errors import CannotSerialize, TaskError
from hpcnb.pilot.values import Frame, taken, unpack, words

__all__ = ["Cell", "lacking"]

main = types.ModuleType("__main__", "The cells that were run in this worker.")
"""In which they run."""


class Cell:
    """A cell as it is sent to a worker: called with the notebook's variables, it gives what stands after ``-o``.

    Parameters
    ----------
    code : str
        As it was typed.
    file : str
        What the notebook calls it.
    always : sequence of str
        Those of the notebook's variables that are bound even where the worker has them.
    names : sequence of str
        All that come along.
    outputs : sequence of str
        The names whose values it gives: a single one bare, several as a tuple.

    Notes
    -----
    The variables are in the argument, as what `hpcnb.pilot.values.pack` gives, or else in `frames`.
    """

    def __init__(
        self,
        code: str,
        file: str,
        *,
        names: Sequence[str] = (),
        always: Sequence[str] = (),
        outputs: Sequence[str] = (),
    ) -> None:
        self.code, self.file = code, file
        self.names, self.always, self.outputs = tuple(names), tuple(always), tuple(outputs)
        self.frames: tuple[bytes, ...] = ()
        self.__name__ = "cell"

    def __call__(self, frames: Sequence[Frame] = ()) -> Any:
        try:
            from hpcnb.pilot.worker.shell import in_turn  # with IPython, for who needs it
        except ImportError as error:
            raise TaskError(
                f"the Python of worker {get_worker().name} cannot run such a cell: {error}",
                remedy="Install IPython there, or run it as tasks: `%%hpc --each`, `hpc.submit`.",
            ) from error
        with in_turn() as shell:
            if frames := frames or self.frames:
                self._bind(frames)
            shell.run(self.code, self.file)
            return taken(main.__dict__, self.outputs, f"worker {get_worker().name}")

    def _bind(self, frames: Sequence[Frame]) -> None:
        namespace = main.__dict__
        there = {name for name in self.names if name in namespace and name not in self.always}
        try:
            values = unpack(frames, namespace)
        except Exception as error:
            raise CannotSerialize(
                f"{', '.join(self.names)} cannot be rebuilt on the worker: {words(error)}",
                remedy="Make both sides' packages agree, or make it in the cell.",
            ) from error
        namespace.update({name: value for name, value in values.items() if name not in there})


def lacking(names: Sequence[str]) -> list[str]:
    """Those of some names that this worker's namespace lacks (for `distributed.Client.run`)."""
    return [name for name in names if name not in main.__dict__]
