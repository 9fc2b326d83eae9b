"""When cells begin and end: what is drawn later goes where a front end, or a program that runs notebooks, will see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpcnb.notebook.output import View as Output
from hpcnb.notebook.output import inner_view

__all__ = ["follow", "latest", "somebody"]

_latest: Output | None = None
_at_end: list[Callable[[], None]] = []


def follow(shell: Any, at_end: Callable[[], None]) -> None:
    """Have a function called at the end of each cell from now on, once, however often this is asked for."""
    global _latest
    if _latest is None:
        _latest = inner_view(shell)
        shell.events.register("pre_run_cell", lambda _: _begun(shell))
        shell.events.register("post_run_cell", lambda _: _ended())
    if at_end not in _at_end:
        _at_end.append(at_end)


def _begun(shell: Any) -> None:
    global _latest
    _latest = inner_view(shell)


def _ended() -> None:
    for call in _at_end:
        call()


def latest(otherwise: Output) -> Output:
    """What publishes as an output of the cell that has begun last: programs that run notebooks hear of no other."""
    return _latest or otherwise


def somebody(shell: Any) -> bool:
    """Whether there is a page, with somebody who could be asked something; else a program runs the notebook."""
    return bool(shell.kernel._allow_stdin)  # noqa: SLF001 - ipykernel says it nowhere else
