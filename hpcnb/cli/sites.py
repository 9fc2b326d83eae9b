"""`sites`, `login`, `doctor`: the commands about sites."""

from __future__ import annotations

import contextlib
import json

import click

from hpcnb import handle, report
from hpcnb.cli.clusters import sites_beginning
from hpcnb.cli.face import Face, as_json
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


@click.command()
@click.argument("site", default="", shell_complete=sites_beginning)
@as_json
@click.pass_obj
def doctor(face: Face, site: str, as_json: bool) -> int:
    """Examine SITE, by default the default one; what keeps a cluster from starting there is shown, and what to do.

    Configuration, login, shell, Python, home, batch system, and when the job of `up` would start: each finding is shown as soon as
    it is known. Nothing is submitted. The exit status is 0 if nothing failed.

    \b
    Examples:
      hpcnb doctor
      hpcnb doctor octopus
      hpcnb doctor octopus --json
    """
    name = report.called(site)
    with contextlib.closing(report.findings(site)) as coming:  # an interrupt may come while one is being shown
        found = [*coming] if as_json else face.examined(name, coming)
    if as_json:
        click.echo(json.dumps([finding.to_json() for finding in found], indent=1))
    return 0 if report.Report(site=name, findings=tuple(found)).ok else 1
