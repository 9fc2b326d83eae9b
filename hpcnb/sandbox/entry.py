"""The sandbox's entry in the user's configuration, in a file of its own beside ``hpcnb.yaml``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import dask.config

from hpcnb.errors import ConfigError
from hpcnb.sandbox.ground import write

SITE = "sandbox"
"""The site's name in the configuration."""


def path() -> Path:
    """Where the entry is written: Dask reads every YAML file there."""
    return Path(dask.config.PATH) / "hpcnb-sandbox.yaml"


def render(entry: Mapping[str, str]) -> str:
    """Render the file; what JSON writes as a string, YAML reads as one."""
    lines = ["# Written by `hpcnb sandbox up`, removed by `hpcnb sandbox down`.", "hpcnb:", "  sites:", f"    {SITE}:"]
    lines += [f"      {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
    return "\n".join(lines) + "\n"


def publish(entry: Mapping[str, str]) -> Path:
    """Write the entry, in place of that of another sandbox.

    Raises
    ------
    ConfigError
        The user's configuration is a single file (``$DASK_CONFIG``).
    """
    place = path()
    if place.parent.is_file():
        raise ConfigError(
            f"$DASK_CONFIG is the file {place.parent}, so the sandbox's entry cannot be put beside it",
            evidence=render(entry),
            remedy="Write this into it, or let $DASK_CONFIG name a directory.",
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    write(place, render(entry).encode())
    return place


def withdraw(entry: Mapping[str, str]) -> None:
    """Remove the entry, unless it is that of another sandbox."""
    place = path()
    try:
        if json.dumps(entry["ssh-config"], ensure_ascii=False) in place.read_text(encoding="utf-8"):
            place.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass  # it was never written
