"""Kernelspecs: what JupyterLab's launcher offers, such as "Python on octopus · 4 cores · 1 h"."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipykernel
from jupyter_client.kernelspec import KernelSpecManager

from hpcnb.errors import ConfigError
from hpcnb.handle import spec_for
from hpcnb.model import ClusterSpec
from hpcnb.units import format_duration, format_memory

__all__ = ["Kernelspec", "install", "installed", "remove", "title_of"]

PROVISIONER = "hpcnb"


@dataclass(frozen=True, kw_only=True)
class Kernelspec:
    """One that is installed."""

    name: str
    title: str
    site: str
    wishes: dict[str, Any]
    path: str


def install(site: str, *, name: str = "", title: str = "", **wishes: Any) -> Kernelspec:
    """Write a kernelspec for the user; one of the same name is replaced.

    Raises
    ------
    ConfigError
        The site or a wish is wrong, or the name belongs to a kernel of somebody else.
    """
    spec = spec_for(site, name="kernel", **wishes)
    title = title or title_of(spec, wishes)
    name = name or "hpcnb-" + re.sub(r"[^a-z0-9]+", "-", title.removeprefix("Python on ").lower()).strip("-")
    if name in KernelSpecManager().find_kernel_specs() and name not in {known.name for known in installed()}:
        raise ConfigError(f"there is a kernel {name!r} already, and it is none of ours", remedy="Give another --name.")
    given = {key: value for key, value in wishes.items() if value is not None and value != {}}
    content = {
        "argv": [],
        "display_name": title,
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {
            "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": {"site": spec.site, "wishes": given}}
        },
    }
    with tempfile.TemporaryDirectory() as made:
        for logo in Path(ipykernel.__path__[0], "resources").glob("logo-*"):
            shutil.copy(logo, made)
        Path(made, "kernel.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        path = KernelSpecManager().install_kernel_spec(made, name, user=True)
    return Kernelspec(name=name, title=title, site=spec.site, wishes=given, path=path)


def title_of(spec: ClusterSpec, wishes: Mapping[str, Any]) -> str:
    """What the launcher shows: the site, and what was asked for.

    Examples
    --------
    ``Python on octopus · 4 cores · 1h``
    """
    asked = spec.resources
    facts = [f"{asked.nodes} nodes"] if asked.nodes > 1 else []
    each = " each" if asked.nodes > 1 else ""
    if asked.cores_per_node:
        facts.append(f"{asked.cores_per_node} core{'s' * (asked.cores_per_node > 1)}{each}")
    if asked.memory_per_node:
        facts.append(f"{format_memory(asked.memory_per_node)}{each}")
    if asked.gpus_per_node:
        facts.append(f"{asked.gpus_per_node} GPU{'s' * (asked.gpus_per_node > 1)}{each}")
    facts += [str(wishes["partition"])] if wishes.get("partition") else []
    return " · ".join([f"Python on {spec.site}", *facts, _spaced(format_duration(asked.walltime))])


def _spaced(duration: str) -> str:
    return re.sub(r"(\d)([a-z])(?=\d|$)", r"\1 \2 ", duration).strip()


def installed() -> list[Kernelspec]:
    """Those of ours that this user's Jupyter finds, by name."""
    found = []
    for name, known in sorted(KernelSpecManager().get_all_specs().items()):
        provisioner = known["spec"].get("metadata", {}).get("kernel_provisioner", {})
        if provisioner.get("provisioner_name") == PROVISIONER:
            found.append(
                Kernelspec(
                    name=name, title=known["spec"]["display_name"], path=known["resource_dir"], **provisioner["config"]
                )
            )
    return found


def remove(name: str) -> None:
    """Remove one of ours.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    known = {one.name: one for one in installed()}
    if name not in known:
        there = ", ".join(known) or "none"
        raise ConfigError(f"there is no kernelspec {name!r} of hpcnb", remedy=f"Those there are: {there}.")
    KernelSpecManager().remove_kernel_spec(name)
