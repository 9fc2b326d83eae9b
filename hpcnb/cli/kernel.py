"""`kernel`: whole notebooks on a compute node, as entries of JupyterLab's launcher."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from hpcnb.cli.clusters import options_given, sites_beginning, wishes
from hpcnb.cli.face import as_json
from hpcnb.views.visible import visible


@click.group()
def kernel() -> None:
    """Kernels that run a whole notebook in a job of its own.

    \b
    Examples:
      hpcnb kernel install octopus --cores-per-node 4 --walltime 1h
      hpcnb kernel list
      hpcnb kernel remove hpcnb-octopus-4-cores-1-h
    """


@kernel.command()
@click.argument("site", default="", shell_complete=sites_beginning)
@click.option("--name", default="", help="What Jupyter calls it; by default made of what is asked for.")
@click.option("--title", default="", help="What the launcher shows; by default the site and what is asked for.")
@wishes
def install(site: str, name: str, title: str, **asked: Any) -> None:
    """Offer a kernel on SITE in JupyterLab's launcher; the job is submitted when a notebook is started with it.

    \b
    Examples:
      hpcnb kernel install octopus --cores-per-node 4 --walltime 1h
      hpcnb kernel install octopus --gpus-per-node 1 --title "GPU on octopus"
    """
    from hpcnb.kernels import specs

    asked["options"] = options_given(asked["options"])
    made = specs.install(site, name=name, title=title, **asked)
    click.echo(visible(f"{made.name}: {made.title}"))


@kernel.command(name="list")
@as_json
def list_(as_json: bool) -> None:
    """List the kernels that were installed.

    \b
    Examples:
      hpcnb kernel list
      hpcnb kernel list --json
    """
    from hpcnb.kernels import specs

    found = specs.installed()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
    elif found:
        width = max(len(one.name) for one in found)
        click.echo("\n".join(visible(f"{one.name:{width}}  {one.title}") for one in found))
    else:
        click.echo("no kernel; `hpcnb kernel install SITE` makes one")


@kernel.command()
@click.argument("name")
def remove(name: str) -> None:
    """Offer the kernel called NAME no more; notebooks that run are not touched.

    \b
    Examples:
      hpcnb kernel remove hpcnb-octopus-4-cores-1-h
    """
    from hpcnb.kernels import specs

    specs.remove(name)
