"""Files that a queue is loaded from: commands on lines, and FireWorks' workflows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue.firework import steps

WORKFLOWS = (".yaml", ".yml", ".json")
"""Names of files that are workflows end so."""


def commands(lines: Iterable[str]) -> Iterator[str]:
    """Lines without what is around them, but for empty ones and those that begin with #."""
    words = (line.strip() for line in lines)
    return (one for one in words if one and not one.startswith("#"))


def workflow(path: str | os.PathLike[str]) -> list[str]:
    """A workflow of FireWorks as the lines of a request.

    Raises
    ------
    QueueError
        It is none, or has what is not supported.
    """
    try:
        found = steps(_read(Path(path)))
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:  # a document may be anything
        remedy = (
            "Nothing was added. Supported are fireworks of ScriptTask and PyTask with links, names, spec and _priority."
        )
        raise QueueError(f"{os.fspath(path)} cannot be loaded: {exc}", remedy=remedy) from exc
    lines = []
    for step in found:
        edges = (step.above, []) if step.requires else ([], step.above)
        lines.append(json.dumps([json.dumps(step.spec, separators=(",", ":")), *edges, step.priority]) + "\n")
    return lines


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    import yaml

    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe, both of them
    except yaml.YAMLError as exc:
        raise ValueError(f"it is no YAML: {exc}") from exc
