"""How one node is cut into workers: pure arithmetic."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpcnb.model import ClusterSpec

MOST_WORKERS = 8
"""Workers per node unless the user asks otherwise: enough against the GIL, few enough for big arrays."""


@dataclass(frozen=True, kw_only=True)
class WorkerLayout:
    """One worker: its place on the node, its threads, its memory in bytes, its GPUs by index."""

    index: int
    threads: int
    memory: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node has for us: cores, bytes of memory, GPU indices."""

    cores: int
    memory: int
    gpus: tuple[str, ...] = ()


def layout(spec: ClusterSpec, node: Node) -> list[WorkerLayout]:
    """Cut a node into workers as the user asked, or into at most `MOST_WORKERS` even ones.

    Examples
    --------
    >>> from hpcnb.model import Resources
    >>> spec = ClusterSpec(site="local", name="x", resources=Resources(), workers_per_node=2)
    >>> [w.threads for w in layout(spec, Node(cores=8, memory=2**34))]
    [4, 4]
    """
    threads = spec.cores_per_worker
    count = spec.workers_per_node or (max(1, node.cores // threads) if threads else min(node.cores, MOST_WORKERS))
    if spec.gpus_per_worker and not spec.workers_per_node:
        count = max(1, min(count, len(node.gpus) // spec.gpus_per_worker))
    threads = threads or max(1, node.cores // count)
    memory = spec.memory_per_worker or node.memory // count
    each = spec.gpus_per_worker
    return [
        WorkerLayout(index=i, threads=threads, memory=memory, gpus=node.gpus[i * each : (i + 1) * each])
        for i in range(count)
    ]


def node_from_environment(environ: Mapping[str, str], *, cores: int, memory: int) -> Node:
    """What Slurm granted on this node; where it says nothing, `cores` and `memory` (bytes)."""
    cores = int(environ.get("SLURM_CPUS_ON_NODE", cores))
    # 0 is Slurm's word for all there is.
    if per_node := int(environ.get("SLURM_MEM_PER_NODE", 0)):
        memory = per_node * 2**20
    elif per_cpu := int(environ.get("SLURM_MEM_PER_CPU", 0)):
        memory = per_cpu * 2**20 * cores
    visible = environ.get("CUDA_VISIBLE_DEVICES", "")
    return Node(cores=cores, memory=memory, gpus=tuple(g for g in visible.split(",") if g))


def tags_of(environ: Mapping[str, str], *, software: Iterable[str], features: Iterable[str]) -> list[str]:
    """What a node offers to tasks that ask for it by name.

    Parameters
    ----------
    environ : mapping
        Of the batch job.
    software, features : iterable of str
        The architecture and the operating system are features, too.

    Examples
    --------
    >>> tags_of({"SLURM_JOB_PARTITION": "gpu"}, software=["gromacs"], features=["haswell"])[:3]
    ['partition:gpu', 'software:gromacs', 'feature:haswell']
    """
    partition = environ.get("SLURM_JOB_PARTITION", "")
    known = [*features, platform.machine(), platform.system()]
    return [
        *([f"partition:{partition}"] if partition else []),
        *(f"software:{name}" for name in software),
        *(f"feature:{name}" for name in dict.fromkeys(known) if name),
    ]


def features_in(node: str) -> list[str]:
    """The active features in what ``scontrol show node`` says.

    Examples
    --------
    >>> features_in("NodeName=n1 Arch=x86_64 AvailableFeatures=a,b ActiveFeatures=a,b Gres=(null)")
    ['a', 'b']
    """
    found = re.search(r"\bActiveFeatures=(\S+)", node)
    return [] if found is None or found[1] == "(null)" else found[1].split(",")
