"""`race`: the same call on several sites; the first result wins."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpcnb.choice import clusters
from hpcnb.cluster import Cluster
from hpcnb.errors import ConfigError, HPCError
from hpcnb.future.batches import send
from hpcnb.future.future import Future
from hpcnb.model import State

__all__ = ["Race", "race"]


class Race(concurrent.futures.Future[Any]):
    """The future of the first result.

    Parameters
    ----------
    futures : mapping of str to Future
        Of each site.
    started : mapping of str to Cluster
        Those that were started for it: whose site does not win is closed.
    errors : sequence of Exception
        Of sites that are out before the start.
    """

    def __init__(
        self, futures: Mapping[str, Future], started: Mapping[str, Cluster], errors: Sequence[BaseException]
    ) -> None:
        super().__init__()
        self.futures = dict(futures)
        self.site = ""
        self._started = dict(started)
        self._errors = list(errors)
        self._left = set(futures)
        self._deciding = threading.Lock()
        for site, future in futures.items():
            future.add_done_callback(lambda ended, site=site: self._hear(site, ended))  # type: ignore[misc]
        if not futures:
            self.set_exception(self._errors[0])

    def cancel(self) -> bool:
        """Cancel it on all sites."""
        with self._deciding:
            if not super().cancel():
                return False
        self._end()
        return True

    def _hear(self, site: str, future: Future) -> None:
        error = concurrent.futures.CancelledError() if future.cancelled() else future.exception()
        with self._deciding:
            self._left.discard(site)
            if self.done():
                return
            if error is None:
                self.site = site
                self.set_result(future.result())
            else:
                self._errors.append(error)
                if self._left:
                    return
                self.set_exception(self._errors[0])
        self._end()

    def _end(self) -> None:
        """Cancel what has not won, and close what was started for it."""
        for site, future in self.futures.items():
            if site != self.site:
                future.cancel()
        for site, cluster in self._started.items():
            if site != self.site:
                threading.Thread(target=cluster.close, name=f"hpcnb-close-{site}", daemon=True).start()

    def __repr__(self) -> str:
        won = f"won by {self.site}" if self.site else "ended" if self.done() else "pending"
        return f"<Race of {', '.join(self.futures)}: {won}>"


def race(fn: Callable[..., Any], /, *args: Any, sites: Sequence[str | Cluster], **kwargs: Any) -> Race:
    """Run ``fn(*args, **kwargs)`` on several sites; the first result wins, and the other calls are cancelled.

    On each site a cluster of yours that lives there is used, else one is started, which is closed again if its site does not win. A
    site where the call, or the cluster, fails is out; if all are, the first error is raised.

    Parameters
    ----------
    fn : callable
    sites : sequence of str or Cluster
        Names of sites, or clusters.

    Returns
    -------
    Race
        A future; its ``site`` has won, its ``futures`` are those of each site.

    Raises
    ------
    ConfigError
        There is no such site.
    TypeError
        An argument is a future: its value is on one site only.

    Examples
    --------
    >>> race(fit, data, sites=["octopus", "squid"]).result()        # doctest: +SKIP
    """
    if not sites:
        raise ValueError("sites=[]: a race needs a site")
    if any(isinstance(value, Future) for value in [*args, *kwargs.values()]):
        raise TypeError("the value of a future is on one site only: take its result() for a race")
    live = {cluster.site: cluster for cluster in clusters() if cluster.state not in (State.DRAINING, State.ENDED)}
    futures: dict[str, Future] = {}
    started: dict[str, Cluster] = {}
    errors: list[BaseException] = []
    for one in sorted(sites, key=lambda one: not (isinstance(one, Cluster) or one in live)):  # who can begin first
        name = one if isinstance(one, str) else one.name
        try:
            cluster = live.get(one) if isinstance(one, str) else one
            if cluster is None:
                cluster = started[name] = Cluster(name)
            futures[name] = send(cluster.early_client, fn, args, kwargs)
        except ConfigError:
            Race(futures, started, ()).cancel()
            raise
        except HPCError as error:
            errors.append(error)
    return Race(futures, started, errors)
