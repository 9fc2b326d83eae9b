"""The words for futures on the cluster in use: `submit`, `map`, `futures`, `gather`, `wait`, `as_completed`."""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from typing import Any, Literal, NamedTuple

import distributed
from dask.utils import funcname

from hpcnb.choice import current
from hpcnb.future.batch import Batch
from hpcnb.future.batches import send, send_all
from hpcnb.future.future import Future
from hpcnb.future.offers import check, constrained, watch
from hpcnb.future.work import together
from hpcnb.kept import NotebookClient

__all__ = ["as_completed", "futures", "gather", "map", "submit", "wait"]


def submit(
    fn: Callable[..., Any],
    /,
    *args: Any,
    retries: int | None = None,
    priority: int = 0,
    key: str | None = None,
    tag: str = "",
    cores: int = 1,
    memory: str | None = None,
    gpus: int = 0,
    **kwargs: Any,
) -> Future:
    """Run ``fn(*args, **kwargs)`` on a worker of the cluster in use; without one, the default site is started.

    It returns at once, also while the cluster is not ready yet: calls are sent in order as soon as it is. Futures among
    the arguments, also in lists, tuples and dictionaries, are replaced by their values when these are there.

    Parameters
    ----------
    fn : callable
    retries : int, optional
        How often to try again when it raises.
    priority : int
        Higher goes first.
    key : str, optional
        The task's name; the same key is the same result.
    tag : str
        By which `futures` finds it.
    cores : int
        Of the worker that runs it.
    memory : str, optional
        ``"4GiB"``, of the worker that runs it.
    gpus : int
        Which it has for itself, in a process of its own.

    Returns
    -------
    Future

    Examples
    --------
    >>> submit(pow, 2, 10).result()                 # doctest: +SKIP
    1024
    """
    cluster = current()
    options: dict[str, Any] = {"key": key, "tag": tag, "retries": retries, "priority": priority}
    if (cores, memory, gpus) == (1, None, 0):
        return send(cluster.early_client, fn, args, kwargs, **options)
    fn, needed = constrained(fn, cores=cores, memory=memory, gpus=gpus)
    known = check(cluster, [needed])
    future = send(cluster.early_client, fn, args, kwargs, resources=needed, **options)
    if not known:
        watch(cluster, future, [needed])
    return future


def map(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    retries: int | None = None,
    priority: int = 0,
    tag: str = "",
    batch_size: int | Literal["auto"] = "auto",
) -> list[Future]:
    """Run ``fn`` on each element, or on each tuple of elements of several iterables; the rest is as in `submit`.

    Calls that take less than some hundredths of a second are sent many at a time, which makes a million of them
    reasonable. Each still has its own future, with its own result or error, and is tried again by itself.

    Parameters
    ----------
    batch_size : int or "auto"
        How many are sent at a time. By itself it is found from the time that the function took before, else from a few calls
        that are sent first, and waited for a tenth of a second at most.

    Returns
    -------
    list of Future
        In the order of the elements.

    Examples
    --------
    >>> gather(map(pow, [1, 2, 3], [2, 2, 2]))      # doctest: +SKIP
    [1, 4, 9]
    """
    client = current().early_client
    rows = list(zip(*iterables, strict=False))
    size = None if batch_size == "auto" else batch_size
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(f'batch_size is "auto" or a number of calls from 1, not {batch_size!r}')
    with together(funcname(fn)):
        return send_all(client, fn, rows, batch_size=size, tag=tag, retries=retries, priority=priority)


def futures(tag: str | None = None) -> list[Future]:
    """This notebook's futures on the cluster in use, in order of submission, also those of its earlier kernels.

    A finished future of this kernel is released when nothing refers to it any more. Those of earlier kernels stay until
    ``future.release()``, or until the cluster ends.

    Parameters
    ----------
    tag : str, optional
        Only those with this tag.

    Examples
    --------
    >>> [f.state for f in futures("fit")]           # doctest: +SKIP
    ['finished', 'pending']
    """
    return [future for future in current().client.all_futures() if tag in (None, future.tag)]


def gather(futures: Iterable[Future]) -> list[Any]:
    """The results, in order; a task's own exception is raised as its own type."""
    found = [_ours(future) for future in futures]
    for batch in {future.batch: None for future in found}:
        batch.want()  # all of them, before the first is waited for
    return [future.result() for future in found]


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    done: set[Future]
    not_done: set[Future]


def wait(futures: Iterable[Future], timeout: float | None = None, return_when: str = ALL_COMPLETED) -> DoneAndNotDone:
    """Wait for futures, as `concurrent.futures.wait` does; returns ``(done, not_done)``.

    Parameters
    ----------
    timeout : float, optional
        Seconds; after it some may not be done.
    return_when : str
        ``ALL_COMPLETED``, ``FIRST_COMPLETED`` or ``FIRST_EXCEPTION``.
    """
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
        raise ValueError(f"return_when is ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION, not {return_when!r}")
    found = [_ours(future) for future in futures]
    done = set()
    for future in _in_order_of_ending(found, timeout):
        if future is None:
            break
        done.add(future)
        if return_when == FIRST_COMPLETED or (return_when == FIRST_EXCEPTION and _failed(future)):
            break
    done = {future for future in found if future.done()}
    for ledger in {future.batch.ledger for future in found}:
        ledger.settle()
    return DoneAndNotDone(done, {future for future in found if future not in done})


def as_completed(futures: Iterable[Future], timeout: float | None = None) -> Iterator[Future]:
    """The futures in the order in which they end.

    Parameters
    ----------
    timeout : float, optional
        Seconds; after it `TimeoutError` is raised.
    """
    for future in _in_order_of_ending([_ours(future) for future in futures], timeout):
        if future is None:
            raise TimeoutError
        yield future


def _ours(future: Any) -> Future:
    if isinstance(future, Future):
        return future
    if isinstance(future, distributed.Future) and isinstance(future.client, NotebookClient):
        return Future(future.client.batch_of(future.key))
    raise TypeError(f"this takes futures of this notebook's clusters, not {type(future).__name__}")


def _failed(future: Future) -> bool:
    return not future.cancelled() and future.exception() is not None


def _in_order_of_ending(futures: Iterable[Future], timeout: float | None) -> Iterator[Future | None]:
    """The futures as they end; None, and nothing more, when the time is over."""
    deadline = None if timeout is None else time.monotonic() + timeout
    news: queue.SimpleQueue[Batch] = queue.SimpleQueue()
    waiting: dict[Batch, list[Future]] = {}
    for future in dict.fromkeys(futures):
        waiting.setdefault(future.batch, []).append(future)
    for batch, mine in waiting.items():
        batch.listen(news.put)
        if any(future.done() for future in mine):
            news.put(batch)
    try:
        while waiting:
            heard = _next(news, next(iter(waiting)), deadline)
            if heard is None:
                yield None
                return
            mine = waiting.pop(heard, [])
            ended = [future.done() for future in mine]
            if left := list(itertools.compress(mine, (not one for one in ended))):
                waiting[heard] = left
            yield from itertools.compress(mine, ended)
    finally:
        for batch in waiting:
            batch.unlisten(news.put)


def _next(news: queue.SimpleQueue[Batch], one: Batch, deadline: float | None) -> Batch | None:
    with contextlib.suppress(queue.Empty):
        return news.get_nowait()
    with one.ledger.awaited(), contextlib.suppress(queue.Empty):
        return news.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
    return None
