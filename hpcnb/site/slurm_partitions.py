"""What the partitions of a site allow, and whether a request can ever start there. Pure.

Slurm accepts a request above a partition's limits and lets it wait for ever; we would rather say no.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hpcnb.model import Resources
from hpcnb.site.slurm_answers import seconds, table
from hpcnb.units import format_duration

COLUMNS = ("%P", "%a", "%l", "%D", "%s", "%c")
"""Columns of `sinfo`: name, availability, time limit, nodes, size of a job in nodes, CPUs of a node."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition; None where it sets no limit or its nodes differ."""

    name: str
    default: bool
    up: bool
    walltime: int | None
    nodes: int
    cores: int | None

    def __str__(self) -> str:
        parts = [_count(self.nodes, "node"), *([_count(self.cores, "core") + " each"] if self.cores else [])]
        parts += [f"up to {format_duration(self.walltime)}"] if self.walltime else []
        parts += ["default"] if self.default else []
        parts += [] if self.up else ["down"]
        return f"{self.name} ({', '.join(parts)})"


def partitions(text: str) -> list[Partition]:
    """Read a `sinfo` answer of the columns `COLUMNS`."""
    found: dict[str, Partition] = {}
    for marked, avail, limit, nodes, size, cores in table(text, "PARTITION", len(COLUMNS)):
        name, most = marked.removesuffix("*"), size.rpartition("-")[2]
        row = Partition(
            name=name,
            default=name != marked,
            up=avail == "up",
            walltime=seconds(limit),
            nodes=min(int(nodes), int(most)) if most.isdecimal() else int(nodes),
            cores=int(cores) if cores.isdecimal() else None,
        )
        found[name] = _join(found[name], row, most) if name in found else row
    return list(found.values())


def _join(one: Partition, other: Partition, most: str) -> Partition:
    """The same partition's nodes of another kind."""
    count = one.nodes + other.nodes
    cores = None if one.cores is None or other.cores is None else max(one.cores, other.cores)
    return replace(one, nodes=min(count, int(most)) if most.isdecimal() else count, cores=cores)


def impossible(resources: Resources, known: Sequence[Partition]) -> tuple[str, str]:
    """Say what keeps a request from ever starting, and what would help; empty where nothing does.

    A quality of service may lift a partition's limits, and a partition that we are not shown may exist: where
    that could be, Slurm decides.
    """
    names = resources.partition.split(",") if resources.partition else [p.name for p in known if p.default]
    asked = [p for p in known if p.name in names]
    if resources.qos or not asked or len(asked) < len(names):
        return "", ""
    for word, amount in (
        ("walltime", resources.walltime),
        ("nodes", resources.nodes),
        ("cores", resources.cores_per_node),
    ):
        if amount and not any(_fits(p, word, amount) for p in asked):
            return _sentence(word, amount, asked), _remedy(word, (p for p in known if p.up and _fits(p, word, amount)))
    return "", ""


def _fits(partition: Partition, word: str, amount: int) -> bool:
    limit = getattr(partition, word)
    return limit is None or amount <= limit


def _sentence(word: str, amount: int, asked: Sequence[Partition]) -> str:
    names = " or ".join(p.name for p in asked)
    limits = [getattr(p, word) for p in asked]
    if word == "walltime":
        return f"a walltime of {format_duration(amount)} is above the limit of partition {names}, {format_duration(max(limits))}"
    what = "nodes" if word == "nodes" else "cores per node"
    return f"{amount} {what} are more than partition {names} gives one job, {max(limits)}"


_LESS = {"walltime": "a shorter walltime=", "nodes": "fewer nodes=", "cores": "fewer cores_per_node="}


def _remedy(word: str, others: Iterable[Partition]) -> str:
    names = ", ".join(map(str, others))
    return f"Ask for {_LESS[word]}" + (f", or for a partition that allows it: {names}." if names else ".")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
