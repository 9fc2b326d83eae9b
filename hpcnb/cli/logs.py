"""`logs`: what jobs, workers and tasks have printed, also of what has ended."""

from __future__ import annotations

import asyncio
import re

import click

from hpcnb import handle
from hpcnb.cli.face import Face
from hpcnb.errors import ConfigError, NotReady
from hpcnb.handle import Handle
from hpcnb.model import State
from hpcnb.views.logs import LEVELS

PAUSE, LONGEST = 0.5, 2.0
"""Seconds between two looks of who follows; longer while there is nothing new."""
AT_ONCE = 1000
"""Lines that are shown of one look."""


@click.command()
@click.argument("target", default="")
@click.option(
    "-n", "count", default=50, show_default=True, type=click.IntRange(min=1), help="Lines; of each log, if it is logs."
)
@click.option("--follow", "-f", is_flag=True, help="Go on showing what comes, until Ctrl-C or the cluster's end.")
@click.option("--task", default="", help="Of tasks whose key begins so.")
@click.option("--node", default="", help="Of workers on this node.")
@click.option("--level", default=None, type=click.Choice(list(LEVELS)), help="Lines that are at least so serious.")
@click.option("--grep", default="", metavar="PATTERN", help="Lines in which this regular expression is found.")
@click.option("--name", default="", help="Of which cluster; by default the youngest, alive or not.")
@click.pass_obj
def logs(face: Face, /, target: str, count: int, follow: bool, name: str, level: str | None, **filters: str) -> None:
    """Show what the job, workers and tasks have printed last.

    Without TARGET that is the job's log; else the logs whose name contains TARGET, or the task whose key begins so, as its function's
    name does. It is read from the site's files, so that it is there when the job and the kernel are gone.

    \b
    Examples:
      hpcnb logs                         the batch job's
      hpcnb logs worker -n 20
      hpcnb logs fit                     what calls of fit have printed
      hpcnb logs worker --level warning --grep 'nan|inf' --node node1
      hpcnb logs scheduler --name fit -f
    """
    known = cluster_called(name or face.current())
    _check(filters["grep"])
    wanted = {name: value for name, value in {"level": level or "", **filters}.items() if value}
    if follow:
        _follow(known, target, count, wanted)
    elif text := handle.run(known.log_text(target, count, **wanted)):
        click.echo(text)
    elif not wanted:
        called = known.status.spec.name
        raise NotReady(f"cluster {called!r} has no log {target or 'job'!r}, and no task that has printed (yet)")


def cluster_called(name: str) -> Handle:
    """The youngest cluster of that name, or of any, alive or not."""
    found: list[Handle] = [k for k in handle.run(handle.handles(live=False)) if name in ("", k.status.spec.name)]
    if not found:
        raise NotReady("there is no cluster with logs", remedy="`%hpc up` starts one.")
    return found[-1]


def _check(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"{pattern!r} is no regular expression: {error}", remedy="Write \\ before a character that is meant itself."
        ) from None


def _follow(known: Handle, target: str, count: int, wanted: dict[str, str]) -> None:
    """Show what comes; Ctrl-C is how it is meant to end."""
    source, pause, over, since = "", PAUSE, False, None
    try:
        while not over:
            over = known.status.state is State.ENDED  # what it has said until then is still to be shown
            most = count if since is None else AT_ONCE
            lines, since = handle.run(known.lines(target, most, since=since, **wanted))
            for line in lines:
                new, source = line.source != source, line.source
                click.echo((f"── {source} ──\n" if new else "") + line.words)
            pause = PAUSE if lines else min(LONGEST, 1.5 * pause)
            if not over:
                handle.run(asyncio.sleep(pause))
    except KeyboardInterrupt:
        return
