"""``pycompss.interactive``: `start` and `stop`, as a notebook calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcnb import tasks

if TYPE_CHECKING:
    from hpcnb.cluster import Cluster

__all__ = ["start", "stop"]

_started: Cluster | None = None


def start(**_: Any) -> None:
    """Have a cluster: the one in use, or a new one on the default site; the options of their runtime do nothing.

    Raises
    ------
    HPCError
        It cannot be started.
    """
    global _started
    from hpcnb import choice  # not at a site, as in `calls`

    had = choice.used()
    cluster = choice.current()
    _started = None if had else cluster
    cluster.wait_until_ready()


def stop(sync: bool = False, **_: Any) -> None:
    """Wait for all tasks, and end the cluster if `start` has started it.

    Parameters
    ----------
    sync : bool
        Bring what tasks have made of the notebook's variables; else what has not been brought by then is lost with the cluster.
    """
    global _started
    if sync:
        _bring_variables()
    tasks.barrier()
    if _started is not None:
        _started.close()
        _started = None


def _bring_variables() -> None:
    import __main__

    for name, value in list(vars(__main__).items()):
        if not name.startswith("_"):
            setattr(__main__, name, tasks.wait_on(value))
