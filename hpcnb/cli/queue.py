"""`queue`: the commands about persistent queues. They need nothing that runs: each takes the queue's lease, and returns it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
import time
from collections.abc import Sequence
from typing import Any

import click

from hpcnb.cli.clusters import options_given
from hpcnb.cli.face import as_json
from hpcnb.cli.queue_options import ids_option, on_queue, priority_option, retry_options, task_numbers
from hpcnb.errors import QueueError
from hpcnb.pilot.queue.action import leave
from hpcnb.queue.queue import Queue, listing
from hpcnb.views.queue import advice_text, attempts_text, pace_text, queues_text, tasks_text

_STATES = ("Waiting", "Pending", "Running", "Succeeded", "Failed", "Killed")


@click.group()
def queue() -> None:
    """Persistent queues: many tasks, few jobs, no open laptop.

    \b
    Examples:
      hpcnb queue create extract
      hpcnb queue load extract commands.txt
      hpcnb queue add extract -- gzip -9 big.tar
      hpcnb queue launch extract 24 --pack --walltime 2h
      hpcnb queue list
      hpcnb queue tasks extract --state Failed
      hpcnb queue retry extract
    """


def _say(count: int, done: str) -> None:
    click.echo(f"{count} task{'s' * (count != 1)} {done}")


@queue.command()
@on_queue
def create(name: str, site: str) -> None:
    """Make a queue called NAME.

    \b
    Examples:
      hpcnb queue create extract
    """
    Queue.create(name, site=site)
    at = f"{name} --site {site}" if site else name
    click.echo(f"queue {name} is there, and empty. Tasks: hpcnb queue add {at} COMMAND, hpcnb queue load {at} FILE")


@queue.command(context_settings={"ignore_unknown_options": True})
@on_queue
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--priority", type=int, help="Higher goes first.  [default: 0, in a task its own]")
@click.option("--requires", callback=task_numbers, metavar="IDS", help="Tasks that have to succeed before: 3,5,10-20.")
@click.option("--after", callback=task_numbers, metavar="IDS", help="Tasks that have to finish before, well or not.")
@click.option("--unique", is_flag=True, help="Not again what the queue has already.")
@click.option("--child", "kind", flag_value="child", help="In a task: which requires this one.")
@click.option("--detour", "kind", flag_value="detour", help="In a task: a child for which its other children wait.")
@retry_options
def add(name: str, site: str, command: Sequence[str], priority: int | None, kind: str | None, **more: Any) -> None:
    """Add COMMAND to the queue called NAME; prints the task's id. One word is a whole line for the shell.

    In a command that a queue carries out, `.` is that queue and that task: what it adds is added when it has succeeded, or
    never; numbers are printed that --requires and --after understand there.

    \b
    Examples:
      hpcnb queue add extract 'convert a.tif a.png && rm a.tif'
      hpcnb queue add extract --requires 1-100 -- merge --all
      hpcnb queue add . --child --requires 1-3 -- merge --some
    """
    line = command[0] if len(command) == 1 else shlex.join(command)
    if name == ".":
        click.echo(_from_within(line, kind or "add", priority=priority, **more))
        return
    if kind:
        raise click.UsageError(f"--{kind} is for commands that a queue carries out: `hpcnb queue add . --{kind}`.")
    click.echo(Queue.connect(name, site=site).add(line, priority=priority or 0, **more))


def _from_within(line: str, kind: str, *, retries: int, retry_on: str, **more: Any) -> int:
    if retries or retry_on:
        raise click.UsageError("In a task --retries and --retry-on are those of the task itself.")
    del more["retry_delay"]
    return leave({kind: line, **{word: value for word, value in more.items() if value not in (None, False, [])}})


@queue.command()
@on_queue
@click.argument("file", type=click.Path(allow_dash=True))
@priority_option
@click.option("--unique", is_flag=True, help="Not again what the queue has already.")
@retry_options
def load(name: str, site: str, file: str, **more: Any) -> None:
    """Add each line of FILE as a command, all or none; empty lines and those that begin with # are left out.

    FILE.yaml and FILE.json are workflows of FireWorks, of ScriptTask and PyTask.

    \b
    Examples:
      hpcnb queue load extract commands.txt
      hpcnb queue load extract workflow.yaml
      seq -f 'process %g' 1000 | hpcnb queue load extract -
    """
    _say(len(Queue.connect(name, site=site).load("/dev/stdin" if file == "-" else file, **more)), "added")


@queue.command("list")
@click.option("--site", default="", help="Whose queues; by default the default site's.")
@as_json
def list_(site: str, as_json: bool) -> None:
    """List the queues.

    \b
    Examples:
      hpcnb queue list
      hpcnb queue list --json
    """
    found = listing(site=site)
    click.echo(json.dumps(found, indent=1) if as_json else queues_text(found))


@queue.command()
@on_queue
@as_json
def status(name: str, site: str, as_json: bool) -> None:
    """Show how many tasks of the queue called NAME are in each state, how fast they end, and when the last one will.

    \b
    Examples:
      hpcnb queue status extract
      hpcnb queue status extract --json
    """
    found = Queue.connect(name, site=site).status()
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for text in (queues_text([found]), pace_text(found, time.time()), advice_text(found)):
        if text:
            click.echo(text)


@queue.command()
@on_queue
@as_json
def introspect(name: str, site: str, as_json: bool) -> None:
    """Show which parameter goes along with failure, of tasks that are values with names. A correlation, and no proof.

    \b
    Examples:
      hpcnb queue introspect extract
    """
    found = Queue.connect(name, site=site).introspect()
    click.echo(json.dumps(dataclasses.asdict(found), indent=1) if as_json else repr(found))


@queue.command()
@on_queue
@click.option("--state", type=click.Choice(_STATES, case_sensitive=False), help="Only tasks in this state.")
@click.option("-n", "count", type=click.IntRange(min=1), help="At most so many.")
@as_json
def tasks(name: str, site: str, state: str | None, count: int | None, as_json: bool) -> None:
    """List the tasks of the queue called NAME; as JSON, one on each line.

    \b
    Examples:
      hpcnb queue tasks extract --state Failed
      hpcnb queue tasks extract --json -n 10
    """
    found = itertools.islice(Queue.connect(name, site=site).tasks(state), count)
    if as_json:
        for one in found:
            click.echo(json.dumps(one.to_json()))
    else:
        click.echo(tasks_text([one.to_json() for one in found]))


@queue.command()
@on_queue
@click.argument("id", type=int)
def task(name: str, site: str, id: int) -> None:
    """Show the task ID of the queue called NAME with all its attempts, as JSON.

    \b
    Examples:
      hpcnb queue task extract 17
    """
    click.echo(json.dumps(Queue.connect(name, site=site).task(id), indent=1))


@queue.command()
@on_queue
@ids_option
def retry(name: str, site: str, ids: list[int]) -> None:
    """Have failed tasks carried out again.

    \b
    Examples:
      hpcnb queue retry extract
      hpcnb queue retry extract --id 3,7-9
    """
    _say(Queue.connect(name, site=site).retry(ids or None), "to be carried out again")


@queue.command()
@on_queue
@ids_option
def revive(name: str, site: str, ids: list[int]) -> None:
    """Have killed tasks carried out again.

    \b
    Examples:
      hpcnb queue revive extract
    """
    _say(Queue.connect(name, site=site).revive(ids or None), "to be carried out again")


@queue.command()
@on_queue
@ids_option
@click.option("--force", is_flag=True, help="Yes, those too that succeeded.")
def rerun(name: str, site: str, ids: list[int], force: bool) -> None:
    """Have all tasks that have ended carried out again, those too that succeeded.

    \b
    Examples:
      hpcnb queue rerun extract --force
    """
    _say(Queue.connect(name, site=site).rerun(ids or None, force=force), "to be carried out again")


@queue.command()
@on_queue
def recover(name: str, site: str) -> None:
    """Take back the tasks of workers that have died. Always safe, and done without it in time.

    \b
    Examples:
      hpcnb queue recover extract
    """
    _say(Queue.connect(name, site=site).recover(), "taken back")


@queue.command()
@on_queue
def pause(name: str, site: str) -> None:
    """Give out no further tasks; those that run go on.

    \b
    Examples:
      hpcnb queue pause extract
    """
    Queue.connect(name, site=site).pause()


@queue.command()
@on_queue
def resume(name: str, site: str) -> None:
    """Give out tasks again.

    \b
    Examples:
      hpcnb queue resume extract
    """
    Queue.connect(name, site=site).resume()


@queue.command()
@on_queue
@click.option("--script", default="", help="A command line with the names of values: 'analyze -a {a}'.")
def do(name: str, site: str, script: str) -> None:
    """Carry out the tasks of the queue called NAME here, until none is left. Several may do so at once.

    \b
    Examples:
      hpcnb queue do extract
      hpcnb queue do extract --script 'analyze -a {a} -b {b}'
    """
    found = Queue.connect(name, site=site)
    found.do(script=script)
    click.echo(str(found))


@queue.command()
@on_queue
@click.argument("count", type=click.IntRange(min=1), default=1)
@click.option("--pack", is_flag=True, help="One job of COUNT workers, and not COUNT jobs of one.")
@click.option("--nodes", type=click.IntRange(min=1), help="Of that one job; with --core-hours, at most.")
@click.option("--queued", type=click.IntRange(min=1), help="At most so many of the jobs wait at a time.")
@click.option("--core-hours", type=float, help="Instead of COUNT: one job, in the shape that starts soonest.")
@click.option("--script", default="", help="A command line with the names of values: 'analyze -a {a}'.")
@click.option("--walltime", help="Of each job: 1h, 90m, 2-00:00:00.")
@click.option("--partition", "-p", help="Slurm's partition.")
@click.option("--account", "-A", help="Who pays.")
@click.option("--qos", help="Slurm's quality of service.")
@click.option("--cores-per-node", type=int, help="With --core-hours, where the batch system does not say.")
@click.option("--cores-per-worker", type=int, help="Cores of each worker.  [default: 1]")
@click.option("--memory-per-worker", help="With its unit: 16GiB.")
@click.option("--gpus-per-worker", type=int, help="For it alone.")
@click.option(
    "--option", "options", multiple=True, metavar="--NAME=VALUE", help="Any other option of sbatch; repeatable."
)
def launch(name: str, site: str, count: int, **asked: Any) -> None:
    """Submit COUNT jobs that drain the queue called NAME, and need nobody from then on.

    A job that has come to the end of its walltime is followed by another one as long as work is left.

    \b
    Examples:
      hpcnb queue launch extract 50 --walltime 2h --queued 4
      hpcnb queue launch extract 24 --pack --nodes 2 --partition debug
      hpcnb queue launch extract --core-hours 400 --nodes 8 --walltime 4h
      hpcnb queue launch extract 4 --option=--constraint=haswell
    """
    asked["options"] = options_given(asked["options"]) or None
    click.echo(Queue.connect(name, site=site).launch(count, **{w: v for w, v in asked.items() if v is not None}))


@queue.command()
@on_queue
@click.argument("id", type=int)
@click.option("--attempt", type=int, help="Which one; by default the last.")
@click.option("--follow", "-f", is_flag=True, help="Go on showing what comes, until Ctrl-C or the attempt's end.")
def log(name: str, site: str, id: int, attempt: int | None, follow: bool) -> None:
    """Show what the task ID of the queue called NAME has printed until now, to stdout and then to stderr.

    Also of a task that still runs, or whose worker was killed. Each attempt has its own.

    \b
    Examples:
      hpcnb queue log extract 17
      hpcnb queue log extract 17 --follow
      hpcnb queue log extract 17 --attempt 1
    """
    found = Queue.connect(name, site=site)
    piece = found.piece(id, attempt)
    if text := attempts_text(piece):
        click.echo(text, err=True)
    if not follow:
        click.echo(piece["text"], nl=False)
        return
    try:
        for said in found.follow(id, piece["attempt"]):
            click.echo(said, nl=False)
    except KeyboardInterrupt:
        return  # how it is meant to end


@queue.command()
@on_queue
@click.option("--force", is_flag=True, help="Yes, with the tasks that have not ended.")
def delete(name: str, site: str, force: bool) -> None:
    """Remove the queue called NAME with all its tasks and logs.

    \b
    Examples:
      hpcnb queue delete extract
    """
    found = Queue.connect(name, site=site)
    tasks = found.status()["ntasks"]
    left = tasks["Waiting"] + tasks["Pending"] + tasks["Running"]
    if left and not force:
        raise QueueError(f"queue {name!r} has {left} tasks that have not ended", remedy="If that is meant: --force.")
    found.delete()
