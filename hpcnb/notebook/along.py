"""What goes along with a cell that is run as tasks: its code, under the name that it has here, and the notebook's variables."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from IPython.core.inputtransformer2 import TransformerManager

from hpcnb.future.batches import UNKNOWN, keep
from hpcnb.future.work import uncounted
from hpcnb.notebook.cells import UNASKED
from hpcnb.pilot.values import Frame, pack, size
from hpcnb.serializing import send_own_modules_by_value

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from hpcnb.kept import NotebookClient

__all__ = ["packed", "parsed", "travelling"]

ALONG = 10e6
"""Bytes of variables that go along with the tasks, all of them together."""


class Body(Protocol):
    """What a cell's tasks call."""

    frames: tuple[bytes, ...]


def parsed(shell: InteractiveShell, cell: str) -> tuple[ast.Module, str]:
    """The code of a cell, and its file's name, under which the notebook has its lines.

    Raises
    ------
    SyntaxError
    """
    text = TransformerManager().transform_cell(cell)
    compiler: Any = shell.compile
    file: str = compiler.cache(text, shell.displayhook.prompt_count, raw_code=cell)
    return ast.parse(text, file), file


def packed(shell: InteractiveShell, inputs: Sequence[str], names: Sequence[str]) -> tuple[Frame, ...]:
    """The notebook's variables, as they are now: those that were named by the user, and those that the body reads."""
    own = shell.user_ns
    send_own_modules_by_value()
    unasked = {name: own[name] for name in names}
    frames = pack(unasked, limit=UNASKED) if names else []
    if inputs:  # together, so that what they share stays shared
        frames = pack({name: own[name] for name in inputs} | unasked)
    # Buffers are unpickled as what may be written to, anew for each task, so that nobody copies them once more.
    return tuple(bytearray(frame) if number else bytes(frame) for number, frame in enumerate(frames))


def travelling(client: NotebookClient, body: Body, frames: tuple[Frame, ...], times: int, *, priority: int = 0) -> Any:
    """Have variables go along with a body; or, if that is much, once to the cluster: the argument by which tasks have them then.

    What depends on nothing goes to whichever worker is free; what depends on something is moved only if that seems to pay.
    """
    if size(frames) * min(times, UNKNOWN) > ALONG:
        with uncounted():
            return keep(client, frames, priority=priority)
    body.frames = tuple(map(bytes, frames))
    return ()
