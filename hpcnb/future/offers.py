"""Whether a cluster offers what a call needs: said at the call, where it is known by then, else as soon as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcnb.errors import HPCError
from hpcnb.future.constraints import NODE, Constraints, refusal
from hpcnb.future.gpus import Pinned
from hpcnb.model import State

if TYPE_CHECKING:
    from hpcnb.cluster import Cluster
    from hpcnb.errors import TaskError
    from hpcnb.future.future import Future

__all__ = ["check", "constrained", "offers_of", "watch"]


def constrained(fn: Callable[..., Any], **said: Any) -> tuple[Any, dict[str, float]]:
    """A function with constraints, and what it needs of a worker."""
    needed = Constraints(**said).needed(getattr(fn, "__globals__", {}))
    return (Pinned(fn, int(needed["gpus"])) if needed.get("gpus") else fn), needed


def offers_of(client: Any) -> list[Mapping[str, float]]:
    """What each worker has, of those that a Dask client hears of."""
    return [worker.get("resources", {}) for worker in client.scheduler_info(n_workers=-1)["workers"].values()]


def check(cluster: Cluster, versions: Sequence[Mapping[str, float]]) -> bool:
    """Raise, if none of a cluster's workers can ever give what any version of a call needs.

    Returns
    -------
    bool
        Whether that is known: the cluster is not ready, or has not all of its nodes yet.

    Raises
    ------
    TaskError
    """
    if not any(versions):
        return True
    ready = cluster.state is State.READY
    error, known = _refused(cluster, versions) if ready else (None, False)
    if error is not None and known:
        raise error
    return known


def watch(cluster: Cluster, future: Future, versions: Sequence[Mapping[str, float]]) -> None:
    """Have a future that was submitted too early to know fail, if it turns out that no worker can run it."""

    def look() -> None:
        try:
            error, known = _refused(cluster, versions)
        except (HPCError, OSError):  # which end the future as well
            return
        if error is not None and known:
            cluster.early_client.refuse(future.batch.key, error)

    cluster.early_client.when_connected(lambda: threading.Thread(target=look, daemon=True).start())


def _refused(cluster: Cluster, versions: Sequence[Mapping[str, float]]) -> tuple[TaskError | None, bool]:
    offers = offers_of(cluster.client)
    nodes = {name for offer in offers for name in offer if name.startswith(NODE)}
    error = refusal(versions, offers, f"cluster {cluster.name!r} on {cluster.site}")
    return error, len(nodes) >= cluster.nodes
