"""`%hpc …`: the commands of the command line, and those that only a notebook has."""

from __future__ import annotations

import asyncio
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click
from IPython.display import DisplayHandle, display

from hpcnb.agent.client import nobody_to_ask
from hpcnb.agent.loop import background
from hpcnb.cli import commands, completions
from hpcnb.cli import run_line as run_command
from hpcnb.cli.clusters import pick
from hpcnb.cli.face import print_findings, redrawing
from hpcnb.errors import ConfigError, HPCError
from hpcnb.handle import Handle, ask_with
from hpcnb.model import ClusterStatus, State
from hpcnb.notebook.logs import explore
from hpcnb.notebook.remote_error import shown
from hpcnb.site.finding import Finding
from hpcnb.site.shell import Prompt
from hpcnb.views.cluster import status_html, status_line
from hpcnb.views.report import report_html, report_text

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from hpcnb.cluster import Cluster


def run_line(shell: InteractiveShell, line: str) -> None:
    """Run one `%hpc` line; without words it shows the status.

    Raises
    ------
    HPCError
        What went wrong; IPython shows its message, not our frames.
    """
    try:
        words = shlex.split(line) or ["status"]
    except ValueError as exc:
        raise ConfigError(
            f"%hpc {line.strip()}: {exc}", remedy="Close the quotation, or write \\' for a quote."
        ) from None
    face = NotebookFace(shell)
    ask_with(face.ask)
    try:
        run_command(words, face, _NOTEBOOK_ONLY)
    except click.ClickException as exc:
        known = ", ".join([*commands.list_commands(click.Context(commands)), *_NOTEBOOK_ONLY])
        raise ConfigError(
            f"%hpc {line.strip()}: {exc.format_message()}", remedy=f"`%hpc COMMAND --help` explains; commands: {known}."
        ) from None
    except click.Abort:  # what click makes of an interrupt
        raise shown(KeyboardInterrupt(), ["KeyboardInterrupt"]) from None


def complete(text: str) -> list[str]:
    """What may stand for the last word of a `%hpc` line that is being typed."""
    try:
        words = shlex.split(text)[1:]
        last = "" if text[-1:].isspace() else words.pop()
        return completions(words, last, _NOTEBOOK_ONLY)
    except (ValueError, IndexError, HPCError):  # half a quotation, or a wrong configuration: no place to speak of it
        return []


class NotebookFace:
    """A notebook's kernel, or IPython in a terminal."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell

    def following(self, handle: Handle) -> AbstractContextManager[None]:
        # What Dask needs takes a second to import: the time to do so is while the cluster starts.
        threading.Thread(target=_import_dask, name="hpcnb import", daemon=True).start()
        return redrawing(handle, _Display())

    def show(self, found: Sequence[Handle]) -> None:
        from hpcnb.notebook.cluster_view import show

        for known in found:
            show(known)
        cluster = self._in_use()
        if cluster is not None and cluster.state is State.READY and cluster.sessions:
            from hpcnb.notebook.attach import reminder

            if said := reminder(self.shell, cluster.sessions[0]):
                click.echo(said)

    def use(self, handle: Handle) -> None:
        from hpcnb.choice import use
        from hpcnb.cluster import Cluster

        cluster = use(Cluster.of(handle))
        if cluster.state is State.READY:
            # The session's kernel takes a second to start: the first cell should find it there. If it cannot start,
            # that cell says why.
            background().start(cluster.session.open()).add_done_callback(lambda done: done.exception())

    def scale(self, handle: Handle, nodes: int) -> None:
        from hpcnb.cluster import Cluster

        Cluster.of(handle).scale(nodes=nodes)  # which may adapt itself, and would undo it

    def current(self) -> str:
        used = self._in_use()
        return used.name if used else ""

    def _in_use(self) -> Cluster | None:
        import hpcnb.choice

        return hpcnb.choice.in_use()

    def close(self, handle: Handle) -> None:
        from hpcnb.cluster import Cluster

        Cluster.of(handle).close()

    def examined(self, site: str, coming: Iterator[Finding]) -> list[Finding]:
        if getattr(self.shell, "kernel", None) is None:  # a terminal prints each update of a display anew
            return print_findings(site, coming)
        found: list[Finding] = []
        table = DisplayHandle()

        def forms(unfinished: str = "") -> dict[str, str]:
            html = report_html(site, found, unfinished=unfinished)
            return {"text/html": html, "text/plain": report_text(site, found, unfinished=unfinished)}

        table.display(forms("…"), raw=True)
        try:
            for finding in coming:
                found.append(finding)
                table.update(forms("…"), raw=True)
        except BaseException:
            table.update(forms("not all was looked at"), raw=True)
            raise
        table.update(forms(), raw=True)
        return found

    async def ask(self, prompt: Prompt) -> str:
        """Put a question where the user is: an input box under the cell."""
        if prompt.kind == "notice":
            click.echo(f"{prompt.title}: {prompt.text}")
            return ""
        kernel = getattr(self.shell, "kernel", None)
        if kernel is not None and not kernel._allow_stdin:  # noqa: SLF001 - ipykernel says it nowhere else
            return await nobody_to_ask(prompt)
        return await asyncio.to_thread(self._ask, prompt)

    def _ask(self, prompt: Prompt) -> str:
        import getpass

        question = f"{prompt.title}: {prompt.text.rstrip()} "
        return getpass.getpass(question) if prompt.kind == "secret" else input(question)


class _Display:
    """An output of the cell that is updated in place."""

    def __init__(self) -> None:
        self._handle = DisplayHandle()
        self._shown = ""

    def draw(self, status: ClusterStatus) -> None:
        html = status_html(status, time.time())
        data = {"text/html": html, "text/plain": status_line(status, time.time())}
        if not self._shown:
            self._handle.display(data, raw=True)
        elif html != self._shown:
            self._handle.update(data, raw=True)
        self._shown = html

    def done(self) -> None:
        """The last update stays."""


def _import_dask() -> None:
    import hpcnb.choice  # noqa: F401


@click.command()
@click.argument("name", default="")
@click.option(
    "--notebook", default="", metavar="PATH", help="Take over the futures of another notebook that has no kernel."
)
def attach(name: str, notebook: str) -> None:
    """Come back to the live cluster called NAME, or to the youngest.

    Its sessions and this notebook's futures (`hpc.futures()`) are there again, and the output that its cells have had in the
    meantime is shown: after a restart of the kernel, and after a page was closed or loaded anew.

    \b
    Examples:
      %hpc attach
      %hpc attach fit
    """
    from hpcnb.choice import named
    from hpcnb.notebook.attach import attach as attach_to

    display(named(name or None))
    attach_to(name or None, notebook=notebook)


@click.command()
@click.argument("least", type=click.IntRange(min=0))
@click.argument("most", type=click.IntRange(min=1))
@click.argument("name", default="")
@click.pass_obj
def adapt(face: NotebookFace, least: int, most: int, name: str) -> None:
    """Have between LEAST and MOST nodes, as the work needs them.

    That lasts as long as this kernel, or until `%hpc scale`.

    \b
    Examples:
      %hpc adapt 0 8
      %hpc adapt 1 4 fit
    """
    from hpcnb.cluster import Cluster

    Cluster.of(pick(name or face.current())).adapt(nodes=(least, most))


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def push(face: NotebookFace, names: tuple[str, ...]) -> None:
    """Copy variables of the notebook into the session.

    \b
    Examples:
      %hpc push model x
    """
    from hpcnb.choice import current

    space = face.shell.user_ns
    if missing := [name for name in names if name not in space]:
        raise ConfigError(f"the notebook has no variable {', '.join(missing)}")
    current().session.push({name: space[name] for name in names})


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def pull(face: NotebookFace, names: tuple[str, ...]) -> None:
    """Copy variables of the session into the notebook.

    \b
    Examples:
      %hpc pull result
    """
    from hpcnb.choice import current

    face.shell.user_ns.update(current().session.pull(list(names)))


_NOTEBOOK_ONLY: dict[str, click.Command] = {
    "adapt": adapt,
    "attach": attach,
    "explore": explore,
    "push": push,
    "pull": pull,
}
