"""What a task needs of the worker that runs it, and whether the site offers it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hpcnb.errors import TaskError
from hpcnb.units import parse_memory

__all__ = ["Constraints", "Tags", "refusal"]

Tags = str | Sequence[str] | Callable[[], str | Sequence[str]] | None

NODE = "node:"
"""Before a node's name, as its workers offer it."""
TAGS = {"where": NODE, "partition": "partition:", "feature": "feature:", "software": "software:"}
"""What is asked for by name, and what stands before the name as workers offer it."""
WHOLE, SIZES = ("cores", "gpus"), ("memory", "storage")


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What a task needs; each value may be a function, which is asked anew at each call.

    A number or an amount may also be the name of a variable of the task's module, or of the environment (``"$CORES"``); these, too, are
    read at each call.

    Parameters
    ----------
    cores : int
    memory : str, optional
        ``"4GiB"``.
    storage : str, optional
        Of the node's scratch.
    gpus : int
    where : str, optional
        The name of a node.
    partition : str, optional
        Of the batch system.
    feature : str or sequence of str, optional
        Of the node: as Slurm or the site's configuration names it, the architecture (``x86_64``), the operating system (``Linux``).
    software : str or sequence of str, optional
        As the site's configuration names it.

    Examples
    --------
    >>> Constraints(cores="n", memory="1kB", where="n1", software=["gromacs"]).needed({"n": 2})
    {'cores': 2, 'memory': 1000, 'node:n1': 0, 'software:gromacs': 0}
    """

    cores: int | str | Callable[[], int] = 1
    memory: str | Callable[[], str] | None = None
    storage: str | Callable[[], str] | None = None
    gpus: int | str | Callable[[], int] = 0
    where: str | Callable[[], str] | None = None
    partition: str | Callable[[], str] | None = None
    feature: Tags = None
    software: Tags = None

    def needed(self, variables: Mapping[str, Any] | None = None) -> dict[str, float]:
        """The amounts of what workers offer; of a single core, which each has, nothing is said; a task without one only waits.

        Parameters
        ----------
        variables : mapping, optional
            Of the task's module.

        Raises
        ------
        ConfigError
            An amount of memory is none.
        TypeError
            A number is none, or a variable is not there.
        """
        now = {field.name: _now(field.name, getattr(self, field.name), variables or {}) for field in fields(self)}
        needed: dict[str, float] = {}
        for name in WHOLE:
            if not isinstance(now[name], int) or isinstance(now[name], bool) or now[name] < 0:
                raise TypeError(f"{name}={now[name]!r}: a task needs a whole number of {name}")
            if now[name] != int(name == "cores"):
                needed[name] = now[name]
        needed |= {name: parse_memory(now[name]) for name in SIZES if now[name] is not None}
        return needed | {f"{before}{tag}": 0 for name, before in TAGS.items() for tag in _tags(name, now[name])}


def _now(name: str, value: Any, variables: Mapping[str, Any]) -> Any:
    if callable(value):
        return value()
    if not isinstance(value, str) or name in TAGS:
        return value
    if value.startswith("$"):
        found: Any = os.environ.get(value[1:].strip("{}"))
        if found is not None:
            return int(found) if name in WHOLE and found.isdigit() else found
    elif value.isidentifier():
        found = variables.get(value)
    else:
        return value
    if found is None:
        raise TypeError(f"{name}={value!r}: there is no such variable")
    return found


def _tags(name: str, value: Any) -> Iterator[str]:
    for tag in value if isinstance(value, list | tuple) else [] if value is None else [value]:
        if not isinstance(tag, str) or not tag:
            raise TypeError(f"{name}={value!r}: a task asks for names")
        yield tag


def refusal(
    versions: Sequence[Mapping[str, float]], offers: Iterable[Mapping[str, float]], where: str
) -> TaskError | None:
    """Why no worker can ever run a task; None: one can, or nobody knows.

    Parameters
    ----------
    versions : sequence of mapping
        As of `Constraints.needed`, for each version of the task.
    offers : iterable of mapping
        Of each worker.
    where : str
        The site, for the message.

    Examples
    --------
    >>> print(refusal([{"cores": 4}], [{"cores": 2, "node:n1": 1}, {"cores": 1, "node:n2": 1}], "site local"))
    no worker has what the task needs: 4 cores (site local)
      | node n1: 2 cores
      | node n2: 1 core
    → Ask for less, or for a cluster whose workers have more (cores_per_worker=, memory_per_worker=, gpus_per_worker=, partition=).
    """
    known = [offer for offer in offers if offer]
    if not known or any(_has(offer, needed) for offer in known for needed in versions):
        return None
    rows = sorted({f"{_place(offer)}: {_said(offer)}" for offer in known})
    remedy = "Ask for less, or for a cluster whose workers have more (cores_per_worker=, memory_per_worker=, gpus_per_worker=, partition=)."
    if asked := sorted({name.partition(":")[0] for needed in versions for name in needed} & {"software", "feature"}):
        remedy += (
            f" What else there is of {' and '.join(asked)} is told by the site's configuration (software:, features:)."
        )
    return TaskError(
        f"no worker has what the task needs: {'; or '.join(map(_said, versions))}",
        where=where,
        evidence="\n".join(rows),
        remedy=remedy,
    )


def _has(offer: Mapping[str, float], needed: Mapping[str, float]) -> bool:
    return all(offer.get(name, -1) >= amount for name, amount in needed.items())


def _said(amounts: Mapping[str, float]) -> str:
    words = []
    for name, amount in amounts.items():
        kind, _, tag = name.partition(":")
        if name in SIZES:
            words.append(f"{amount / 2**20:.0f} MiB of {name}")
        elif name in WHOLE and amount:
            one = {"cores": "core", "gpus": "GPU"}[name]
            words.append(f"{amount:g} {one}{'s' * (amount != 1)}")
        elif tag and not (amount and kind == "node"):  # whose offer it is stands before it
            words.append(f"{kind} {tag}")
    return ", ".join(words)


def _place(offer: Mapping[str, float]) -> str:
    return next((f"node {name.removeprefix(NODE)}" for name in offer if name.startswith(NODE)), "a worker")
