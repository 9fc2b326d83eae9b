"""`hpcnb agent status|stop`: the per-user daemon that keeps connections and clusters."""

from __future__ import annotations

import json

import click

import hpcnb
from hpcnb import handle
from hpcnb.agent import places
from hpcnb.cli.face import as_json
from hpcnb.errors import ClusterError


@click.group()
def agent() -> None:
    """The small process of yours that keeps connections and clusters.

    It starts by itself and ends by itself. Stopping it ends no cluster: the next one finds them again.

    \b
    Examples:
      hpcnb agent status
      hpcnb agent stop
    """


@agent.command()
@as_json
def status(as_json: bool) -> None:
    """Say whether an agent runs, for how many clusters, and where its log is.

    \b
    Example:
      hpcnb agent status
    """
    found = handle.run(handle.agent().call("hello", start=False, version=hpcnb.__version__))
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"agent {found['pid']}, version {found['version']}, {found['clusters']} live clusters")
    click.echo(f"log: {places.agent_log()}")


@agent.command()
def stop() -> None:
    """End the agent; clusters go on.

    \b
    Example:
      hpcnb agent stop
    """
    try:
        handle.run(handle.agent().call("stop", start=False))
    except ClusterError:
        click.echo("no agent runs")
