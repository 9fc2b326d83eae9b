"""Futures on the cluster in use: `submit`, `map`, `futures`, `gather`, `wait`, `as_completed`, thin over Dask's client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import distributed

from hpcnb.choice import current

Future = distributed.Future[Any]

__all__ = ["as_completed", "futures", "gather", "map", "submit", "wait"]


def submit(
    fn: Callable[..., Any],
    *args: Any,
    retries: int | None = None,
    priority: int = 0,
    key: str | None = None,
    tag: str = "",
    **kwargs: Any,
) -> Future:
    """Run ``fn(*args, **kwargs)`` on a worker of the cluster in use; without one, the default site is started.

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

    Returns
    -------
    distributed.Future
        With the attributes ``name`` (the function's) and ``tag`` beside Dask's.

    Examples
    --------
    >>> submit(pow, 2, 10).result()                 # doctest: +SKIP
    1024
    """
    # A function is run each time it is submitted, as with any executor; Dask by itself takes equal calls for one.
    options = {"retries": retries, "priority": priority, "key": key, "pure": False}
    client = current().client
    with client.tagged(tag):
        return client.label(client.submit(fn, *args, **options, **kwargs), tag)


def map(
    fn: Callable[..., Any], *iterables: Iterable[Any], retries: int | None = None, priority: int = 0, tag: str = ""
) -> list[Future]:
    """Run ``fn`` on each element, or on each tuple of elements of several iterables; the rest is as in `submit`.

    Returns
    -------
    list of distributed.Future
        In the order of the elements.

    Examples
    --------
    >>> gather(map(pow, [1, 2, 3], [2, 2, 2]))      # doctest: +SKIP
    [1, 4, 9]
    """
    columns = [list(values) for values in iterables]
    client = current().client
    with client.tagged(tag):
        made = client.map(fn, *columns, retries=retries, priority=priority, pure=False)
    return [client.label(future, tag) for future in made]


def futures(tag: str | None = None) -> list[Future]:
    """This notebook's futures on the cluster in use, in order of submission, also those of its earlier kernels.

    A future of this kernel is released when nothing refers to it any more, as with Dask. Those of earlier kernels stay until
    ``future.release()``, or until the cluster ends.

    Parameters
    ----------
    tag : str, optional
        Only those with this tag.

    Examples
    --------
    >>> [f.status for f in futures("fit")]          # doctest: +SKIP
    ['finished', 'pending']
    """
    return [future for future in current().client.all_futures() if tag in (None, getattr(future, "tag", ""))]


def gather(futures: Iterable[Future]) -> list[Any]:
    """The results, in order; a task's own exception is raised as its own type."""
    cluster = current()
    with cluster.handle.awaited():
        results: list[Any] = cluster.client.gather(list(futures))
    return results


def wait(futures: Iterable[Future], timeout: float | None = None, return_when: str = "ALL_COMPLETED") -> Any:
    """Wait for futures; returns ``(done, not_done)``.

    Parameters
    ----------
    timeout : float, optional
        Seconds; after it `TimeoutError` is raised.
    return_when : str
        ``ALL_COMPLETED`` or ``FIRST_COMPLETED``.
    """
    with current().handle.awaited():
        return distributed.wait(list(futures), timeout=timeout, return_when=return_when)


def as_completed(futures: Iterable[Future]) -> Iterator[Future]:
    """The futures in the order in which they end."""
    return iter(distributed.as_completed(list(futures), loop=current().client.loop))
