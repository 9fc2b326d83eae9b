"""The options of a `%%hpc` line."""

from __future__ import annotations

import argparse
import functools
import shlex
from dataclasses import dataclass
from typing import Any, NoReturn

from IPython.core.error import UsageError

from hpcnb.errors import ConfigError
from hpcnb.units import parse_duration

__all__ = ["Options", "parse"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a `%%hpc` line asks for.

    Parameters
    ----------
    inputs : tuple of str
        ``-i``: variables to send in any case, whatever their size.
    outputs : tuple of str
        ``-o``: variables to bring back, by value.
    session : str
        ``-s``
    cluster : str
        ``--cluster``; empty: the one in use.
    each : str or None
        ``--each``: target and iterable of a ``for``; the cell is run as a task for each element.
    node : str or None
        ``-n``: name or number of a node; the cell is run in one worker there.
    all_workers : bool
        ``--all-workers``: the cell is run in each worker.
    detach : bool
        ``--detach``: return at once, with a handle.
    timeout : int or None
        ``--timeout``, in seconds.
    quiet : bool
        ``--quiet``: no lines of our own, only the cell's output.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    session: str = "main"
    cluster: str = ""
    each: str | None = None
    node: str | None = None
    all_workers: bool = False
    detach: bool = False
    timeout: int | None = None
    quiet: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"%%hpc: {message}\n{self.format_usage().strip()}")


@functools.cache
def _parser() -> _Parser:
    parser = _Parser(prog="%%hpc", add_help=False, allow_abbrev=False)
    parser.add_argument("-i", dest="inputs", metavar="a,b", type=_names, action="extend", default=[])
    parser.add_argument("-o", dest="outputs", metavar="c,d", type=_names, action="extend", default=[])
    parser.add_argument("-s", dest="session", metavar="SESSION")
    parser.add_argument("--cluster", metavar="NAME", default="")
    parser.add_argument("--each", metavar='"x in xs"', action="append")
    parser.add_argument("-n", dest="node", metavar="NODE", action="append")
    parser.add_argument("--all-workers", action="store_true")
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--timeout", metavar="10m", type=_seconds)
    parser.add_argument("--quiet", action="store_true")
    return parser


def parse(line: str) -> Options:
    """Read a line.

    Raises
    ------
    UsageError
        Says what is wrong and what is possible; nothing was sent.

    Examples
    --------
    >>> parse("-i a,b -o c --timeout 10m").timeout
    600
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%%hpc: {error}") from None
    found = vars(_parser().parse_args(words))
    found["each"] = _only(found["each"], '--each stands once; "a, b in itertools.product(x, y)" is each pair')
    found["node"] = _only(found["node"], "-n stands once; --all-workers is each worker of each node")
    _check_where(found)
    found["session"] = found["session"] or Options.session
    return Options(**{**found, "inputs": tuple(found["inputs"]), "outputs": tuple(found["outputs"])})


def _only(given: list[str] | None, otherwise: str) -> str | None:
    """What an option was given, which argparse would take several times, and believe the last."""
    if given and len(given) > 1:
        raise UsageError(f"%%hpc: {otherwise}")
    return given[0] if given else None


def _check_where(found: dict[str, Any]) -> None:
    """Refuse what cannot be asked for together: a cell runs in a session, or as tasks, or in workers."""
    each, node = found["each"] is not None, found["node"] is not None
    places = [option for option, given in (("-n", node), ("--all-workers", found["all_workers"])) if given]
    if each and places:
        raise UsageError(f"%%hpc: {places[0]} does not go with --each: its elements go to whichever worker is free")
    if len(places) > 1:
        raise UsageError("%%hpc: -n does not go with --all-workers: the one is a worker of one node, the other all")
    if found["session"] and each:
        raise UsageError("%%hpc: -s does not go with --each: its elements run on all workers, and not in a session")
    if found["session"] and places:
        raise UsageError(f"%%hpc: -s does not go with {places[0]}: such a cell runs in a worker, and not in a session")
    if found["detach"] and each:
        raise UsageError("%%hpc: --detach does not go with --each; `hpc.map(function, elements)` returns at once")
    if found["detach"] and places:
        raise UsageError(f"%%hpc: --detach does not go with {places[0]}: the notebook waits for the workers")


def complete(text: str) -> list[str]:
    """The options that may stand for the last word of a `%%hpc` line that is being typed."""
    last = text.rsplit(" ", maxsplit=1)[-1]
    return [option for option in _parser()._option_string_actions if option.startswith(last)]  # noqa: SLF001 - its only list


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if wrong := [name for name in names if not name.isidentifier()]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not the name of a variable")
    return names


def _seconds(text: str) -> int:
    try:
        seconds = parse_duration(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError("a cell needs more than no time")
    return seconds
