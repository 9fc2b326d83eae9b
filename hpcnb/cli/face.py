"""What differs between a terminal and a notebook when a command shows something or asks."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import shutil
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

import click

from hpcnb.agent.client import nobody_to_ask
from hpcnb.cli.names import typed
from hpcnb.handle import Handle, ask_with, run
from hpcnb.model import ClusterStatus
from hpcnb.site.finding import Finding, Verdict
from hpcnb.site.shell import Prompt
from hpcnb.views.cluster import status_line, table_text
from hpcnb.views.overview import overview_styled
from hpcnb.views.report import finding_text, summary

TICK = 1.0
"""Seconds between two redraws while only the clock moves."""


_COLOUR = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.FAILED: "red", Verdict.SKIPPED: "bright_black"}

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_question = threading.Lock()
"""Held while a question stands on the terminal, which no status line may overwrite."""
_asked = 0
"""How many questions there have been."""


class Face(Protocol):
    """Where a command runs."""

    def following(self, handle: Handle) -> AbstractContextManager[None]:
        """A context in which a cluster's status is shown as it changes."""

    def show(self, found: Sequence[Handle]) -> None:
        """Show clusters."""

    def scale(self, handle: Handle, nodes: int) -> None:
        """Have so many nodes."""

    def use(self, handle: Handle) -> None:
        """A cluster was started or chosen."""

    def current(self) -> str:
        """The name of the cluster that is meant when none is named; empty when there is none."""

    def close(self, handle: Handle) -> None:
        """End a cluster, and let go of it."""

    def examined(self, site: str, coming: Iterator[Finding]) -> list[Finding]:
        """Show what is found out about a site as it comes, and how it stands in the end; returns it."""


class TerminalFace:
    """A terminal, or a script's output."""

    def __init__(self) -> None:
        ask_with(ask_in_terminal)

    @contextmanager
    def following(self, handle: Handle) -> Iterator[None]:
        with redrawing(handle, _Line()):
            yield

    def scale(self, handle: Handle, nodes: int) -> None:
        run(handle.scale(nodes))

    def show(self, found: Sequence[Handle]) -> None:
        now, statuses = time.time(), [handle.status for handle in found]
        if not sys.stdout.isatty():
            click.echo(typed(table_text(statuses, now)))
            return
        from rich.console import Console  # it is dear, and a script does without
        from rich.text import Text

        for status in statuses:
            Console().print(Text.assemble(*((typed(text), style) for text, style in overview_styled(status, now))))

    def use(self, handle: Handle) -> None:
        """Nothing to do: a terminal has no current cluster."""

    def current(self) -> str:
        return ""

    def close(self, handle: Handle) -> None:
        run(handle.close())

    def examined(self, site: str, coming: Iterator[Finding]) -> list[Finding]:
        return print_findings(site, coming)


def print_findings(site: str, coming: Iterator[Finding]) -> list[Finding]:
    """Print what is found out about a site as it comes, and how it stands in the end; returns it."""
    found = []
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for finding in coming:
        found.append(finding)
        mark, rest = typed(finding_text(finding, width)).split(" ", 1)
        click.echo(f"{click.style(mark, fg=_COLOUR[finding.verdict], bold=True)} {rest}")
    click.echo(typed(summary(site, found)))
    return found


class View(Protocol):
    """Something that shows one status at a time."""

    def draw(self, status: ClusterStatus) -> None:
        """Show a status in place of the one before."""

    def done(self) -> None:
        """No more will come."""


@contextmanager
def redrawing(handle: Handle, view: View) -> Iterator[None]:
    """Draw a cluster's status whenever it changes, and each second while only the clock moves.

    It is drawn from a thread of its own, since the caller is blocked in what it waits for.
    """
    news, over = threading.Event(), threading.Event()
    handle.on_change(lambda status: news.set())

    def redraw() -> None:
        while not over.is_set():
            view.draw(handle.status)
            news.wait(TICK)
            news.clear()

    thread = threading.Thread(target=redraw, name="hpcnb status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        news.set()
        thread.join()
        view.draw(handle.status)
        view.done()


class _Line:
    """The status, rewritten in place on as many lines of a terminal as it takes; in a file or a pipe, a line for each state."""

    def __init__(self) -> None:
        self._state = ""
        self._height = 1
        self._asked = _asked

    def draw(self, status: ClusterStatus) -> None:
        if _question.acquire(blocking=False):
            try:
                self._draw(status)
            finally:
                _question.release()

    def _draw(self, status: ClusterStatus) -> None:
        line = typed(status_line(status, time.time()))
        if sys.stderr.isatty():
            lines = textwrap.wrap(line, max(20, shutil.get_terminal_size().columns - 1))
            above = self._height - 1 if self._asked == _asked else 0  # what a question has left there stays
            up = f"\x1b[{above}A" if above else ""
            click.echo(f"\r{up}\x1b[J" + "\n".join(lines), nl=False, err=True)
            self._height, self._asked = len(lines), _asked
        elif self._state != status.state:
            click.echo(line, err=True)
        self._state = status.state

    def done(self) -> None:
        if sys.stderr.isatty():
            click.echo(err=True)


async def ask_in_terminal(prompt: Prompt) -> str:
    """Put a question to who sits at the terminal; without one, fail with what to do."""
    if prompt.kind == "notice":
        click.echo(f"{prompt.title}: {prompt.text}", err=True)
        return ""
    if not sys.stdin.isatty():
        return await nobody_to_ask(prompt)
    answer: concurrent.futures.Future[str] = concurrent.futures.Future()
    # Not a thread of the loop's own: Python waits for those at its end, and this one waits for the keyboard.
    threading.Thread(target=_ask, args=(prompt, answer), name="hpcnb question", daemon=True).start()
    return await asyncio.wrap_future(answer)


def _ask(prompt: Prompt, answer: concurrent.futures.Future[str]) -> None:
    global _asked
    answer.set_running_or_notify_cancel()
    # Interrupted in the middle of a password, the program must leave a terminal that shows what is typed.
    restore = partial(termios.tcsetattr, sys.stdin, termios.TCSADRAIN, termios.tcgetattr(sys.stdin))
    atexit.register(restore)
    secret = prompt.kind == "secret"
    try:
        with _question:
            _asked += 1
            click.echo(f"\n{prompt.title}", err=True)
            answer.set_result(click.prompt(prompt.text.rstrip(), hide_input=secret, err=True, prompt_suffix=" "))
    except Exception as exc:
        answer.set_exception(exc)
    finally:
        atexit.unregister(restore)
