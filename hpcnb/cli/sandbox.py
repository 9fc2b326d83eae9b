"""`hpcnb sandbox up|down|status`: a real Slurm site on this machine, to try things out."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import platformdirs
from rich.console import Console

from hpcnb.cli.face import as_json
from hpcnb.sandbox import Sandbox, SandboxStatus, entry


def _directory(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: platformdirs.user_data_path("hpcnb") / "sandbox",
        help="Where its files lie.  [default: in hpcnb's data directory]",
    )(command)


@click.group()
def sandbox() -> None:
    """A real Slurm site on this machine, to try things out.

    It is munge, Slurm and sshd, all run by you.

    \b
    Examples:
      hpcnb sandbox up                      then: hpcnb up sandbox
      hpcnb sandbox status
      hpcnb sandbox down
    """


@sandbox.command()
@_directory
@click.option("--nodes", type=click.IntRange(1, 64), default=2, show_default=True, help="How many nodes it pretends.")
@click.option("--cores", type=click.IntRange(1, 1024), default=4, show_default=True, help="Cores of each node.")
def up(directory: Path, nodes: int, cores: int) -> None:
    """Bring the sandbox up, or what is missing of it.

    The site `sandbox` is added to your configuration. Needs Debian's slurm-wlm, munge and openssh-server, and no privileges. Nobody else can use it.

    \b
    Examples:
      hpcnb sandbox up
      hpcnb sandbox up --nodes 4 --cores 8
    """
    site = Sandbox(directory, nodes=nodes, cores_per_node=cores)
    started = time.monotonic()
    with _progress() as step:
        site.up(step)
    place = entry.publish(site.site_entry())
    click.echo(f"The sandbox is up after {time.monotonic() - started:.1f} s: {nodes} nodes of {cores} cores.")
    click.echo(f"The site `{entry.SITE}` is in {place}. What to type next:")
    click.echo(f"  in a notebook   %load_ext hpcnb\n                  %hpc up {entry.SITE}")
    click.echo(f"  in a terminal   hpcnb up {entry.SITE}")
    click.echo(f"  to look around  ssh -F {site.ssh_config} {site.host}")
    click.echo("  to end it       hpcnb sandbox down" + _as_given(directory))


@sandbox.command()
@_directory
def down(directory: Path) -> None:
    """End the sandbox, with all its jobs and processes.

    The site is taken out of your configuration. Keys, logs and the number of the next job stay.

    \b
    Examples:
      hpcnb sandbox down
    """
    site = Sandbox(directory)
    site.down()
    entry.withdraw(site.site_entry())
    click.echo("The sandbox is down.")


@sandbox.command()
@_directory
@as_json
def status(directory: Path, as_json: bool) -> None:
    """Show the sandbox's daemons, nodes and jobs.

    \b
    Examples:
      hpcnb sandbox status
      hpcnb sandbox status --json
    """
    found = Sandbox(directory).status()
    click.echo(json.dumps(dataclasses.asdict(found) | {"up": found.up}, indent=1) if as_json else _text(found))


def _text(found: SandboxStatus) -> str:
    if not any(found.daemons.values()):
        return f"No sandbox runs in {found.directory}."
    dead = [name for name, pid in found.daemons.items() if pid is None]
    lines = [f"The sandbox in {found.directory} is {'up' if found.up else 'half up'}, with {found.jobs} jobs."]
    lines += [f"  {name:<12}process {pid}" for name, pid in found.daemons.items() if pid is not None]
    lines += [f"  {name:<12}does not run" for name in dead]
    lines += [f"  node {node:<7}{state}" for node, state in found.nodes.items()]
    lines += [] if found.up else ["`hpcnb sandbox up` brings up what is missing."]
    return "\n".join(lines)


def _as_given(directory: Path) -> str:
    usual = platformdirs.user_data_path("hpcnb") / "sandbox"
    return "" if directory == usual else f" --directory {directory}"


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show the step that is being taken: in place on a terminal, else a line for each."""
    if not sys.stderr.isatty():
        yield lambda step: click.echo(step, err=True)
        return
    with Console(stderr=True).status("") as line:
        yield line.update
