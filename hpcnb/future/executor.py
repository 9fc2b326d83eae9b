"""`Executor`: a cluster as a `concurrent.futures.Executor`."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dask.utils import funcname

from hpcnb.choice import current
from hpcnb.cluster import Cluster
from hpcnb.future.batch import Batch
from hpcnb.future.batches import send, send_all
from hpcnb.future.future import Future
from hpcnb.future.verbs import wait as wait_for
from hpcnb.future.work import together

__all__ = ["Executor"]


class Executor(concurrent.futures.Executor):
    """A cluster, for programs that take a `concurrent.futures.Executor`.

    What it runs, its end and that of Python leave to the cluster: its results come back by `hpcnb.futures`.

    Parameters
    ----------
    cluster : Cluster, optional
        By default the one in use.

    Examples
    --------
    >>> with Executor() as executor:                # doctest: +SKIP
    ...     list(executor.map(pow, [1, 2, 3], [2, 2, 2]))
    [1, 4, 9]
    """

    def __init__(self, cluster: Cluster | None = None) -> None:
        self._cluster = cluster or current()
        self._lock = threading.Lock()
        self._open: dict[Batch, list[Future]] = {}
        self._shut = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run ``fn(*args, **kwargs)`` on the cluster."""
        return self._take(lambda: [send(self._cluster.early_client, fn, args, kwargs)])[0]

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """The results of `fn` on each element, in order; all calls are sent at once.

        Parameters
        ----------
        timeout : float, optional
            Seconds from now; after it `TimeoutError` is raised.
        chunksize : int, optional
            Calls that are sent as one task; by itself as `hpcnb.map` does.
        buffersize : int, optional
            So many calls are ahead of what has been taken, and the elements are taken as slowly; by default all of them.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        rows = zip(*iterables, strict=False)
        first = list(itertools.islice(rows, buffersize))
        with together(funcname(fn)):
            futures = deque(self._take(lambda: send_all(self._cluster.early_client, fn, first, batch_size=chunksize)))
        return self._results(futures, lambda: (self.submit(fn, *row) for row in itertools.islice(rows, 1)), deadline)

    @staticmethod
    def _results(futures: deque[Future], more: Callable[[], Iterable[Future]], deadline: float | None) -> Iterator[Any]:
        try:
            while futures:
                futures.extend(more())
                # Nothing here may refer to what was yielded: only the caller says how long it is needed.
                yield _taken(futures.popleft(), deadline)
        finally:
            for future in futures:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Parameters
        ----------
        wait : bool
            Return when all that were taken have ended.
        cancel_futures : bool
            Cancel those that do not run yet.
        """
        with self._lock:
            self._shut = True
            left = [future for futures in list(self._open.values()) for future in futures]
        if cancel_futures and left:
            runs = self._cluster.early_client.executing()
            for future in left:
                if future.batch.key not in runs:
                    future.cancel()
        if wait:
            wait_for(left)

    def _take(self, sent: Callable[[], list[Future]]) -> list[Future]:
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            futures = sent()
            for future in futures:
                self._open.setdefault(future.batch, []).append(future)
        for batch in {future.batch: None for future in futures}:
            if not batch.listen(self._heard) or batch.settled:
                self._heard(batch)
        return futures

    def _heard(self, batch: Batch) -> None:
        if batch.done:
            self._open.pop(batch, None)
            batch.unlisten(self._heard)


def _taken(future: Future, deadline: float | None) -> Any:
    try:
        try:
            return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            future.cancel()
            future.batch.drop(future.index)
    finally:
        del future  # or the error would be in a circle with this frame
