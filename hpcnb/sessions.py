"""The sessions of one cluster in this process, each made when it is first asked for."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from hpcnb.agent.loop import background
from hpcnb.comm import SCHEME
from hpcnb.errors import NotReady
from hpcnb.notebook_name import notebook_name

if TYPE_CHECKING:
    from hpcnb.cluster import Cluster
    from hpcnb.session import Session

__all__ = ["Sessions"]


class Sessions:
    """What a notebook has of them.

    Parameters
    ----------
    cluster : Cluster
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._found: dict[str, Session] = {}
        self._lock = threading.Lock()

    def all(self) -> list[Session]:
        """Those that this kernel has used."""
        return list(self._found.values())

    def named(self, name: str) -> Session:
        """One of them; waits until the cluster is ready."""
        from hpcnb.session import Session  # with jupyter_client, which a cluster does without

        cluster = self._cluster
        with self._lock:
            if name not in self._found:
                cluster.wait_until_ready()
                if cluster.security is None:
                    raise NotReady(f"cluster {cluster.name!r} gave no credentials")
                self._found[name] = Session(
                    f"{SCHEME}://{cluster.handle.id}/session",
                    security=cluster.security,
                    loop=background().asyncio_loop,
                    name=name,
                    notebook=notebook_name(),
                    awaited=cluster.handle.awaited,
                    patience=math.inf,  # however long it does not answer, the cluster's end is what ends it
                )
            return self._found[name]
