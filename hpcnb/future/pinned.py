"""A call for each of some workers, which that one runs, and no other; ahead of all that wait there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dask.utils import funcname

from hpcnb import serializing
from hpcnb.future.batches import sent
from hpcnb.future.future import Future
from hpcnb.future.graph import annotated
from hpcnb.pilot.scheduler.pinned import PINNED

if TYPE_CHECKING:
    from hpcnb.kept import NotebookClient

__all__ = ["FIRST", "send_to"]

FIRST = 10**6
"""The priority of what somebody sits before."""


def send_to(
    client: NotebookClient, workers: Mapping[str, str], fn: Callable[..., Any], rows: Sequence[tuple[Any, ...]]
) -> list[Future]:
    """Have each of some workers run a call once.

    Parameters
    ----------
    client : NotebookClient
    workers : mapping
        Their names, by their addresses.
    fn : callable
    rows : sequence of tuple
        The arguments for each.

    Returns
    -------
    list of Future
        In the order of the workers. That of a worker that is lost has failed, with `TaskLost`.
    """
    call = serializing.call(fn)
    futures = []
    for (address, name), row in zip(workers.items(), rows, strict=True):
        batch, _ = client.ledger.batch(f"{funcname(fn)}-{uuid.uuid4()}")
        batch.worker = name
        with annotated(**{"workers": address, PINNED: name}):
            client.send([sent(batch, call, row, {})], priority=FIRST)
        futures.append(Future(batch))
    return futures
