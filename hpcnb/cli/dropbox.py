"""`dropbox`: runners of directories in which programs leave jobs as files, and wait for other files."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from hpcnb.dropbox.box import Box
from hpcnb.dropbox.runner import Runner, Submitter
from hpcnb.dropbox.site import Drainer, Workspaces
from hpcnb.dropbox.waiting import default_folder
from hpcnb.pilot.queue.place import home


@click.group()
def dropbox() -> None:
    """Run the jobs that programs leave as files in a directory.

    The programs need to know nothing of HPC: they leave NAME.job, and wait for NAME.job.finished. A job is YAML: `script`, `args`, `input_map`, `output_map`. Its script is made from TEMPLATES/script.template, in which <<name>> stands
    for an argument, for the base name of a file, for `workspace`, or for what the site's entry says under `settings`.

    \b
    Examples:
      hpcnb dropbox run /srv/dropbox --templates /srv/templates --site octopus --walltime 8h
      hpcnb dropbox run --until-idle
      hpcnb dropbox submit /srv/dropbox --workspaces /scratch/batch     somebody else's program runs them
      hpcnb dropbox drain --workspaces /scratch/batch --site octopus    somebody else's program fills them
    """


_SITE = (
    click.option("--site", default="", help="Where jobs run; by default on the default site."),
    click.option("--workspaces", default="", metavar="DIR", help="At the site.  [default: ~/.hpcnb/workspaces]"),
    click.option("--period", type=click.FloatRange(min=0.05), default=10.0, show_default=True, help="Seconds."),
    click.option("--until-idle", is_flag=True, help="End when every job that is there is finished."),
)
_BOX = (
    click.argument("directory", required=False, type=click.Path(file_okay=False, path_type=Path)),
    click.option(
        "--templates",
        type=click.Path(file_okay=False, path_type=Path),
        help="The folder of NAME.template.  [default: ~/.hpcnb/templates]",
    ),
    click.option("--keep", is_flag=True, help="Keep workspaces."),
)
_JOBS = (
    click.option("--queue", default="dropbox", show_default=True, help="The queue that carries all of them out."),
    click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Jobs at once."),
    click.option("--walltime", help="Of the batch job: 8h, 90m, 2-00:00:00."),
    click.option("--partition", "-p", help="Slurm's partition."),
    click.option("--account", "-A", help="Who pays."),
    click.option("--qos", help="Slurm's quality of service."),
    click.option("--cores-per-worker", type=int, help="Cores for each job at once.  [default: 1]"),
    click.option("--memory-per-worker", help="With its unit: 16GiB."),
    click.option("--gpus-per-worker", type=int, help="For it alone."),
)


def _with(*options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@dropbox.command()
@_with(*_BOX, *_SITE, *_JOBS)
def run(
    directory: Path | None, templates: Path | None, keep: bool, site: str, workspaces: str, queue: str, **more: Any
) -> None:
    """Have the jobs in DIRECTORY (~/.hpcnb/dropbox) carried out.

    Each gets a workspace at the site; one batch job carries them all out, and their outputs are brought back.
    It can be killed at any moment, and started again; of several for one directory one works, and the others wait to take its place.
    Programs of another kind know nothing of that: should one submit from DIRECTORY, too, jobs may be carried out twice.
    Whoever can write to DIRECTORY has files read and written as you.

    \b
    Examples:
      hpcnb dropbox run /srv/dropbox --templates /srv/templates --site octopus --gpus-per-worker 1 --walltime 8h
      hpcnb dropbox run /srv/dropbox --keep
    """
    there = Workspaces(site, workspaces)
    box = Box.at((directory or default_folder()).absolute())
    submitter = Submitter(box, _templates(templates), there, keep=keep, say=click.echo)
    _run(box, submitter, queue, there, more)


@dropbox.command()
@_with(*_BOX, *_SITE)
def submit(directory: Path | None, templates: Path | None, keep: bool, site: str, workspaces: str, **more: Any) -> None:
    """Fill workspaces for the jobs in DIRECTORY; somebody else carries them out.

    \b
    Examples:
      hpcnb dropbox submit /srv/dropbox --templates /srv/templates --workspaces /scratch/batch --site octopus
    """
    there = Workspaces(site, workspaces)
    box = Box.at((directory or default_folder()).absolute())
    submitter = Submitter(box, _templates(templates), there, keep=keep, say=click.echo)
    _run(box, submitter, "", there, more)


@dropbox.command()
@_with(*_SITE, *_JOBS)
def drain(site: str, workspaces: str, queue: str, **more: Any) -> None:
    """Have a batch job carry out workspaces that somebody else fills.

    \b
    Examples:
      hpcnb dropbox drain --workspaces /scratch/batch --site octopus --walltime 8h
    """
    _run(None, None, queue, Workspaces(site, workspaces), more)


def _templates(folder: Path | None) -> Path:
    return (folder or home() / "templates").absolute()


def _run(box: Box | None, submitter: Submitter | None, queue: str, there: Workspaces, options: dict[str, Any]) -> None:
    period, until_idle, workers = (options.pop(name, None) for name in ("period", "until_idle", "workers"))
    wishes = {word: value for word, value in options.items() if value is not None} | {"workers_per_node": workers}
    drainer = Drainer(there, queue, wishes) if queue else None
    with _interruptible():
        Runner(box, submitter, drainer, click.echo).run(period, until_idle=until_idle)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM be an end in order, as Ctrl-C is; only meanwhile, since this may be a notebook's kernel."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
