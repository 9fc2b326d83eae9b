"""What the commands about queues are given: which queue, which tasks, and what is done when one fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

MOST = 1_000_000
"""Tasks that can be named one by one."""


def on_queue(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the queue it is about."""
    site = click.option("--site", default="", help="Where the queue is; by default on the default site.")
    return click.argument("name")(site(command))


def task_numbers(_context: click.Context, _parameter: click.Parameter, text: str | None) -> list[int]:
    """Ids as people write them: 3,5,10-20. An option that names none was meant otherwise: without it all tasks are meant."""
    if text is None:
        return []
    found: list[int] = []
    for piece in filter(None, text.split(",")):
        first, dash, last = piece.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise click.BadParameter(f"{piece!r} is no id of a task; write 3,5,10-20")
        several = range(int(first), int(last or first) + 1)
        if not several or several[-1] - several[0] + len(found) >= MOST:
            raise click.BadParameter(
                f"{piece!r} is {'more than a million tasks' if several else 'none'}; write 3,5,10-20"
            )
        found += several
    if not found:
        raise click.BadParameter(f"{text!r} names no task; write 3,5,10-20, or leave the option out")
    return found


ids_option = click.option("--id", "ids", callback=task_numbers, metavar="IDS", help="Only these tasks: 3,5,10-20.")
priority_option = click.option("--priority", type=int, default=0, show_default=True, help="Higher goes first.")


_RETRIES = (
    click.option(
        "--retries", type=click.IntRange(min=0), default=0, help="Try a task that fails again, so many times."
    ),
    click.option("--retry-delay", default="0", metavar="TIME", help="After so long, 30s; each time twice as long."),
    click.option("--retry-on", default="", metavar="PATTERN", help="Only if the error holds this regular expression."),
)


def retry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what is done when a task fails."""
    for option in reversed(_RETRIES):
        command = option(command)
    return command
