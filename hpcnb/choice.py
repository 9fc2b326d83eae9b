"""Which cluster is meant: the one in use, those that live, those of a name."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from hpcnb import config, handle
from hpcnb.cluster import Cluster
from hpcnb.errors import NotReady
from hpcnb.model import State
from hpcnb.notebook_name import notebook_name
from hpcnb.views.cluster import table_text

__all__ = ["attach", "clusters", "current", "sites", "use"]

_current: Cluster | None = None
_lock = threading.RLock()


def use(cluster: Cluster) -> Cluster:
    """Make a cluster the one that cells, `submit` and `map` use."""
    global _current
    with _lock:
        _current = cluster
    return cluster


def in_use() -> Cluster | None:
    """The cluster in use, if it lives."""
    return _current if _current is not None and _current.state is not State.ENDED else None


def current() -> Cluster:
    """The cluster in use; without any, one on the default site is started, or your live one there is joined.

    Raises
    ------
    NotReady
        An earlier kernel of this notebook has started one that lives; see `used`.
    HPCError
        It cannot be started.
    """
    with _lock:
        return used() or use(Cluster())


def used() -> Cluster | None:
    """The cluster in use, or your live one on the default site.

    Raises
    ------
    NotReady
        There is neither, but one that an earlier kernel of this notebook has started: another would cost, and lack what that one holds.
    """
    if (found := in_use() or default_running()) is not None:
        return found
    here = notebook_name()
    if left := [known.status for known in handle.run(handle.handles()) if known.status.spec.notebook == here]:
        raise NotReady(
            "this kernel uses no cluster yet, and an earlier one of this notebook has started one",
            evidence=table_text(left, time.time()),
            remedy=f"`%hpc attach {left[-1].spec.name}` goes on there, `%hpc up` starts one on the default site.",
        )
    return None


def default_running() -> Cluster | None:
    """Your live cluster on the default site, taken into use."""
    wanted = config.load().site().name
    for known in handle.run(handle.handles()):
        if known.status.spec.name == wanted and known.status.state is not State.DRAINING:
            return use(Cluster.of(known))
    return None


def clusters() -> list[Cluster]:
    """Your live clusters, of whichever notebook, oldest first; not those whose site has left the configuration."""
    found = []
    with _lock:
        for known in handle.run(handle.handles()):
            with contextlib.suppress(NotReady):  # it has ended meanwhile, or cannot be followed, as `%hpc` says
                found.append(Cluster.of(known))
    return found


def attach(name: str | None = None, *, notebook: str = "") -> Cluster:
    """Use a cluster that an earlier kernel, or another one, started, with all that this notebook has there.

    That is its futures (`futures` lists them), its sessions with their variables (``%%hpc`` goes on in them), and the output of
    its cells, which is shown where the extension is loaded (``%load_ext hpcnb``).

    Parameters
    ----------
    name : str, optional
        By default the youngest.
    notebook : str, optional
        Another notebook, none of whose kernels lives, whose futures become this one's.

    Raises
    ------
    NotReady
        There is none (of that name).
    """
    cluster = use(named(name))
    if cluster.state in (State.READY, State.UNREACHABLE):  # else it has never had anything
        if notebook:
            cluster.client.kept(adopt=notebook)
        cluster.client.all_futures()
    return cluster


def named(name: str | None) -> Cluster:
    """Your live cluster of a name, or the youngest; the one in use stays in use.

    Raises
    ------
    NotReady
        There is none (of that name).
    """
    found = [known for known in handle.run(handle.handles()) if name in (None, known.status.spec.name)]
    if not found:
        raise NotReady(
            f"there is no live cluster named {name!r}" if name else "you have no live cluster",
            remedy="`%hpc` lists your clusters; `%hpc up` starts one.",
        )
    with _lock:
        return Cluster.of(found[-1])


def sites() -> list[dict[str, Any]]:
    """The configured sites: name, host, batch system, whether it is the default."""
    found: list[dict[str, Any]] = handle.run(handle.agent().call("sites"))
    return found
