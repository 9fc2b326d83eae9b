"""What a task needs of the worker that runs it, and whether the site offers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from hpcnb.errors import TaskError
from hpcnb.units import parse_memory

__all__ = ["Constraints", "refusal"]

NODE = "node:"
"""Before a node's name, as its workers offer it."""


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What a task needs; a callable is asked anew at each call.

    Parameters
    ----------
    cores : int or callable
    memory : str or callable, optional
        ``"4GiB"``.
    storage : str or callable, optional
        Of the node's scratch.
    gpus : int or callable
    where : str or callable, optional
        The name of a node.

    Examples
    --------
    >>> Constraints(cores=lambda: 2, memory="1kB", where="n1").needed()
    {'cores': 2, 'memory': 1000, 'node:n1': 0}
    """

    cores: int | Callable[[], int] = 1
    memory: str | Callable[[], str] | None = None
    storage: str | Callable[[], str] | None = None
    gpus: int | Callable[[], int] = 0
    where: str | Callable[[], str] | None = None

    def needed(self) -> dict[str, float]:
        """The amounts of what workers offer; of a single core, which each has, nothing is said; a task without one only waits.

        Raises
        ------
        ConfigError
            An amount of memory is none.
        TypeError
            A number is none.
        """
        now = {field.name: _now(getattr(self, field.name)) for field in fields(self)}
        needed: dict[str, float] = {}
        for name in ("cores", "gpus"):
            if not isinstance(now[name], int) or isinstance(now[name], bool) or now[name] < 0:
                raise TypeError(f"{name}={now[name]!r}: a task needs a whole number of {name}")
            if now[name] != int(name == "cores"):
                needed[name] = now[name]
        needed |= {name: parse_memory(now[name]) for name in ("memory", "storage") if now[name] is not None}
        return needed if now["where"] is None else needed | {f"{NODE}{now['where']}": 0}


def _now(value: Any) -> Any:
    return value() if callable(value) else value


def refusal(needed: Mapping[str, float], offers: Iterable[Mapping[str, float]], where: str) -> TaskError | None:
    """Why no worker can ever run a task; None: one can, or nobody knows.

    Parameters
    ----------
    needed : mapping
        As of `Constraints.needed`.
    offers : iterable of mapping
        Of each worker.
    where : str
        The site, for the message.

    Examples
    --------
    >>> print(refusal({"cores": 4}, [{"cores": 2, "node:n1": 1}, {"cores": 1, "node:n2": 1}], "site local"))
    no worker has what the task needs: 4 cores (site local)
      | node n1: 2 cores
      | node n2: 1 core
    → Ask for less, or for a cluster whose workers have more (cores_per_worker=, memory_per_worker=, gpus_per_worker=).
    """
    known = [offer for offer in offers if offer]
    if not known or any(all(offer.get(name, -1) >= amount for name, amount in needed.items()) for offer in known):
        return None
    rows = sorted({f"{_place(offer)}: {_said(offer)}" for offer in known})
    return TaskError(
        f"no worker has what the task needs: {_said(needed)}",
        where=where,
        evidence="\n".join(rows),
        remedy="Ask for less, or for a cluster whose workers have more (cores_per_worker=, memory_per_worker=, gpus_per_worker=).",
    )


def _said(amounts: Mapping[str, float]) -> str:
    words = []
    for name, amount in amounts.items():
        if name in ("memory", "storage"):
            words.append(f"{amount / 2**20:.0f} MiB of {name}")
        elif name in ("cores", "gpus") and amount:
            one = {"cores": "core", "gpus": "GPU"}[name]
            words.append(f"{amount:g} {one}{'s' * (amount != 1)}")
        elif name.startswith(NODE) and not amount:
            words.append(f"node {name.removeprefix(NODE)}")
    return ", ".join(words)


def _place(offer: Mapping[str, float]) -> str:
    return next((f"node {name.removeprefix(NODE)}" for name in offer if name.startswith(NODE)), "a worker")
