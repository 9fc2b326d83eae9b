"""The `hpcnb` command, and what `%hpc` runs: one set of commands for terminal and notebook."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import ShellComplete

import hpcnb
from hpcnb.cli.names import COMMANDS, typed
from hpcnb.errors import HPCError

if TYPE_CHECKING:
    from hpcnb.cli.face import Face


class _Context(click.Context):
    """Shows examples as they are typed where the command runs."""

    def get_help(self) -> str:
        program = (self.find_root().info_name or "").partition(" ")[0]
        return re.sub(r"^( +)hpcnb ", rf"\1{program} ", super().get_help(), flags=re.MULTILINE)


class _Lazy(click.Group):
    """Imports a command's module only when it is called; `own` are the commands that only one face has."""

    context_class = _Context

    def __init__(self, *args: Any, own: Mapping[str, click.Command] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own = dict(own or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *self._own]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        found: click.Command | None = self._own.get(name)
        if found is None and name in COMMANDS:
            found = getattr(importlib.import_module(COMMANDS[name]), name)
        if found is not None:
            found.context_class = _Context
            _summarize(found)
        return found


def _summarize(command: click.Command) -> None:
    """Have lists of commands show the first clause of each one's help, which click would cut after so many letters."""
    text = " ".join((command.help or "").partition("\n\n")[0].split())
    command.short_help = re.split(r"[.;](?: |$)", text)[0]
    for member in command.commands.values() if isinstance(command, click.Group) else ():
        _summarize(member)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hpcnb.__version__)
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Clusters inside Slurm allocations, from where you are.

    \b
    Examples:
      hpcnb up                              a cluster on the default site, this machine
      hpcnb up octopus --nodes 2 --walltime 1h
      hpcnb status                          what runs, what waits, and for what
      hpcnb logs fit -n 100
      hpcnb down --all
    """
    if ctx.obj is None:
        from hpcnb.cli.face import TerminalFace

        ctx.obj = TerminalFace()


def main() -> None:
    """Entry point of the `hpcnb` command: exit status 0 only when what was asked for happened."""
    sys.exit(_guarded(lambda: commands.main(prog_name="hpcnb", standalone_mode=False)))


def _guarded(work: Callable[[], Any]) -> int:
    try:
        result = work()
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except HPCError as exc:
        click.echo(typed(f"{type(exc).__name__}: {exc}"), err=True)
        return 1
    except BrokenPipeError:
        # Whoever reads has enough; at the end Python would flush, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def run_line(words: list[str], face: Face, own: Mapping[str, click.Command]) -> Any:
    """Run a command from within a program, as `%hpc` does, or one of its `own`; errors are raised, help is printed."""
    return _line(own).main(args=words, prog_name="%hpc", standalone_mode=False, obj=face)


def completions(words: list[str], last: str, own: Mapping[str, click.Command]) -> list[str]:
    """What may stand for `last`, of which a part is typed, after these words of such a line."""
    completer = ShellComplete(_line(own), {}, "%hpc", "")
    return [found.value for found in completer.get_completions(words, last)]


def _line(own: Mapping[str, click.Command]) -> click.Group:
    return _Lazy(
        name="%hpc", own=own, help=commands.help, callback=commands.callback, context_settings=commands.context_settings
    )
