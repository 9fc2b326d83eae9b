"""The commands by name, and how they are typed where a text is shown."""

from __future__ import annotations

import re

import click

COMMANDS = {
    "up": "hpcnb.cli.clusters",
    "down": "hpcnb.cli.clusters",
    "status": "hpcnb.cli.clusters",
    "scale": "hpcnb.cli.clusters",
    "logs": "hpcnb.cli.logs",
    "keep": "hpcnb.cli.clusters",
    "dashboard": "hpcnb.cli.clusters",
    "sites": "hpcnb.cli.sites",
    "doctor": "hpcnb.cli.sites",
    "login": "hpcnb.cli.sites",
    "queue": "hpcnb.cli.queue",
    "dropbox": "hpcnb.cli.dropbox",
    "kernel": "hpcnb.cli.kernel",
    "agent": "hpcnb.cli.agent",
    "sandbox": "hpcnb.cli.sandbox",
}
"""The module of each."""


def typed(text: str) -> str:
    """Return a text that names commands as a notebook has them (`%hpc up`) with those that can be typed here.

    Examples
    --------
    >>> typed("`%hpc` lists those there are, `%hpc up` starts one, `%hpc attach` is a notebook's")
    '`hpcnb status` lists those there are, `hpcnb up` starts one, `%hpc attach` is a notebook's'
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.find_root().info_name == "%hpc":
        return text
    text = text.replace("`%hpc`", "`%hpc status`")
    return re.sub(rf"`%hpc (?={'|'.join(COMMANDS)})\b", "`hpcnb ", text)
