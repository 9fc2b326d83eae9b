"""`up`, `down`, `status`, `scale`, `keep`, `dashboard`: the commands about clusters."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from hpcnb import config, handle
from hpcnb.cli.face import Face, as_json
from hpcnb.cli.names import typed
from hpcnb.errors import ClusterError, ConfigError, HPCError, NotReady
from hpcnb.handle import Handle
from hpcnb.model import ClusterSpec, ClusterStatus, State
from hpcnb.units import format_duration, format_memory, parse_duration
from hpcnb.views.ending import deaths_text
from hpcnb.views.facts import since, title

_WISHES = (
    click.option("--nodes", type=click.IntRange(min=1), help="How many nodes."),
    click.option("--walltime", help="How long: 1h, 90m, 2-00:00:00."),
    click.option("--partition", "-p", help="Slurm's partition."),
    click.option("--account", "-A", help="Who pays."),
    click.option("--qos", help="Slurm's quality of service."),
    click.option("--cores-per-node", type=int, help="Cores to ask for."),
    click.option("--memory-per-node", help="With its unit: 64GiB."),
    click.option("--gpus-per-node", type=int, help="GPUs to ask for."),
    click.option("--workers-per-node", type=int, help="Dask workers on each node."),
    click.option("--cores-per-worker", type=int, help="Tasks at a time, in each."),
    click.option("--memory-per-worker", help="With its unit: 16GiB."),
    click.option("--gpus-per-worker", type=int, help="For it alone."),
    click.option("--idle-timeout", help="End when nobody has used it for so long: 30m."),
    click.option(
        "--option", "options", multiple=True, metavar="--NAME=VALUE", help="Any other option of sbatch; repeatable."
    ),
)
_RECENT = 86400.0
"""Seconds after which a death is an old story."""


def sites_beginning(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    """The sites that may be meant, for who presses the tabulator."""
    return [name for name in config.load().sites if name.startswith(typed)]


def wishes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that describe a cluster."""
    for option in reversed(_WISHES):
        command = option(command)
    return command


@click.command()
@click.argument("site", default="", shell_complete=sites_beginning)
@click.option("--name", default="", help="What to call it; by default as its site.")
@wishes
@click.option("--no-wait", is_flag=True, help="Return when the job is submitted.")
@click.option("--keep", is_flag=True, help="Leave the job in the queue when interrupted while waiting.")
@click.option("--timeout", help="Give up waiting (not the cluster) after so long: 10m.")
@click.pass_obj
def up(face: Face, /, site: str, name: str, no_wait: bool, keep: bool, timeout: str | None, **asked: Any) -> None:
    """Start a cluster on SITE, and wait until it is ready.

    Meanwhile it shows what it waits for. Interrupting cancels the job unless --keep was given. A cluster of that name that lives already is used,
    if it is as asked.

    \b
    Examples:
      hpcnb up
      hpcnb up octopus --nodes 2 --walltime 1h --partition debug --account m1
      hpcnb up octopus --name fit --no-wait
      hpcnb up octopus --option=--constraint=haswell
    """
    asked["options"] = options_given(asked["options"])
    patience = parse_duration(timeout) if timeout else None
    wanted = Handle.new(handle.spec_for(site, name=name, **asked))
    joined = _living(wanted)
    if joined and (has := unlike(joined.status, wanted.status.spec, asked)):
        called = joined.status.spec.name
        raise ClusterError(
            f"a cluster named {called!r} is {joined.status.state} already, with {', '.join(has)}",
            where=f"site {joined.status.spec.site}",
            remedy=f"`%hpc up` without these options uses it, `%hpc down {called}` ends it, another --name starts one beside it; `%hpc scale` changes nodes.",
        )
    known = joined or wanted
    keep = keep or joined is not None  # what another notebook started is not ours to end
    try:
        with face.following(known):
            _begin(known, wait=not no_wait, patience=patience, keep=keep)
    except TimeoutError:
        raise NotReady(
            f"{known.status.spec.name} is still {known.status.state} after {timeout}: {known.status.detail}",
            remedy="It goes on waiting: `%hpc up` again, or `%hpc down` to give it up.",
        ) from None
    except KeyboardInterrupt:
        called = known.status.spec.name
        stays = typed(f"{called} stays; `%hpc up` again waits for it, `%hpc down {called}` ends it")
        click.echo(stays if keep else f"{called} was given up; no job of it is left", err=True)
        raise
    face.use(known)


def _living(wanted: Handle) -> Handle | None:
    """The live cluster of the same site and name."""
    for known in _live():
        if (known.status.spec.site, known.status.spec.name) == (wanted.status.spec.site, wanted.status.spec.name):
            return known
    return None


def unlike(status: ClusterStatus, wanted: ClusterSpec, asked: Mapping[str, Any]) -> list[str]:
    """What a cluster has in place of what is asked for, as options: what is not asked for may be anything."""
    has, wants = ({**vars(spec), **vars(spec.resources)} for spec in (status.spec, wanted))
    if wants["nodes"] == has["nodes"] + max(0, len(status.jobs) - 1):  # as it was scaled, a job for each further node
        has["nodes"] = wants["nodes"]
    options = [(name, has["options"].get(name), value) for name, value in asked["options"].items()]
    given = [key for key, value in asked.items() if value is not None and key != "options"]
    differ = [_option("--" + key.replace("_", "-"), has[key]) for key in given if has[key] != wants[key]]
    return [*differ, *(_option(name, there) for name, there, value in options if there != value)]


def _option(name: str, value: Any) -> str:
    if value in (None, "", 0):
        return f"no {name}"
    if name in ("--walltime", "--idle-timeout"):
        value = format_duration(value)
    elif name.startswith("--memory"):
        value = format_memory(value).replace(" ", "")
    return f"{name} {value}"


def _begin(known: Handle, *, wait: bool, patience: int | None, keep: bool) -> None:
    try:
        if known.status.created == 0:
            handle.run(known.request())
        if wait:
            handle.run(known.ready(), timeout=patience)
    except KeyboardInterrupt:
        if not keep:  # here, so that the status shows the end
            with contextlib.suppress(NotReady):  # interrupted before the agent had heard of it
                handle.run(known.close())
        raise


def options_given(words: Sequence[str]) -> dict[str, str]:
    """The further options of sbatch, by name."""
    split = (word.partition("=") for word in words)
    return {name: value for name, _, value in split}


@click.command()
@click.argument("name", default="")
@click.option("--all", "everything", is_flag=True, help="Every cluster you have.")
@click.pass_obj
def down(face: Face, name: str, everything: bool) -> None:
    """End the cluster called NAME, or the only one; returns when its jobs are gone.

    \b
    Examples:
      hpcnb down
      hpcnb down fit
      hpcnb down --all
    """
    errors: list[HPCError] = []
    for known in _live() if everything else [pick(name or face.current())]:
        try:
            with face.following(known):
                face.close(known)
        except HPCError as exc:  # the others end all the same
            errors.append(exc)
        except KeyboardInterrupt:
            click.echo(typed(f"{known.status.spec.name} goes on ending; `%hpc` shows when it has"), err=True)
            raise
    for error in errors[:-1]:
        click.echo(typed(str(error)), err=True)
    if errors:
        raise errors[-1]


@click.command()
@as_json
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.pass_obj
def status(face: Face, as_json: bool, everything: bool) -> None:
    """Show your clusters: state, place in the queue, work, walltime left.

    Where there is none, and the last one died within a day: how.

    \b
    Examples:
      hpcnb status
      hpcnb status --json
    """
    known = handle.run(handle.handles(live=False))
    found = [one for one in known if everything or one.status.state is not State.ENDED]
    if as_json:
        click.echo(json.dumps([one.status.to_json() for one in found], indent=1))
    elif found:
        face.show(found)
    else:
        click.echo(typed("no cluster; `%hpc up` starts one"))
        _mourn(max((one.status for one in known), key=lambda status: status.changed, default=None))


def _mourn(status: ClusterStatus | None) -> None:
    """Say how the last cluster died, if it did so of late."""
    if status and time.time() < status.changed + _RECENT and (deaths := deaths_text(status)):
        click.echo(f"{title(status)} ended {since(status, time.time())}:\n{typed(deaths)}")


@click.command()
@click.argument("nodes", type=click.IntRange(min=1))
@click.argument("name", default="")
@click.pass_obj
def scale(face: Face, nodes: int, name: str) -> None:
    """Have NODES nodes in a cluster: the one called NAME, or the only one.

    \b
    Examples:
      hpcnb scale 4
      hpcnb scale 1 fit
    """
    face.scale(pick(name or face.current()), nodes)


@click.command()
@click.argument("name", default="")
@click.pass_obj
def keep(face: Face, name: str) -> None:
    """Keep the idle cluster called NAME, or the only one; its idle time begins anew.

    \b
    Examples:
      hpcnb keep
      hpcnb keep fit
    """
    handle.run(pick(name or face.current()).keep())


@click.command()
@click.argument("name", default="")
@click.pass_obj
def dashboard(face: Face, name: str) -> None:
    """Print the link to a cluster's Dask dashboard; whoever has it may look.

    The cluster is the one called NAME, or the only one.

    \b
    Examples:
      hpcnb dashboard
      hpcnb dashboard fit
    """
    click.echo(handle.run(pick(name or face.current()).dashboard()))


def _live() -> list[Handle]:
    found: list[Handle] = handle.run(handle.handles())
    return found


def pick(name: str) -> Handle:
    """The live cluster of that name, or the only one."""
    live = [known for known in _live() if known.status.state is not State.ENDED]
    named = [known for known in live if name in ("", known.status.spec.name)]
    names = ", ".join(known.status.spec.name for known in live)
    if not named:
        raise NotReady(
            f"there is no live cluster {name!r}" if name else "there is no live cluster",
            remedy=f"Those there are: {names}." if live else "`%hpc up` starts one.",
        )
    if len(named) > 1:
        raise ConfigError(f"which one: {names}?", remedy="Name it.")
    return named[0]
