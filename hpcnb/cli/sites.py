"""`sites`, `login`: the commands about sites."""

from __future__ import annotations

import json

import click

from hpcnb import handle
from hpcnb.cli.clusters import sites_beginning
from hpcnb.cli.face import as_json
from hpcnb.views.cluster import sites_text


@click.command()
@as_json
def sites(as_json: bool) -> None:
    """List the configured sites; * marks the default.

    \b
    Examples:
      hpcnb sites
      hpcnb sites --json
    """
    found = handle.run(handle.agent().call("sites"))
    click.echo(json.dumps(found, indent=1) if as_json else sites_text(found))


@click.command()
@click.argument("site", default="", shell_complete=sites_beginning)
def login(site: str) -> None:
    """Connect to SITE now; what it asks (a password, a code) is asked here, and the connection is kept.

    Notebooks on this machine use it without being asked again.

    \b
    Examples:
      hpcnb login octopus
    """
    handle.run(handle.login(site))
