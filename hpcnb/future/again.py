"""Calls that have failed are run again; their futures then stand for what comes of that."""

from __future__ import annotations

import pickle
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from dask.utils import key_split
from distributed import Future as DaskFuture

from hpcnb.errors import TaskLost
from hpcnb.future.batch import Batch
from hpcnb.future.batches import Sent
from hpcnb.future.future import Future

__all__ = ["retry"]


def retry(futures: Iterable[Future]) -> int:
    """Run again those of some calls that have failed; their futures are pending until it is known what comes of that.

    What needs them, and has failed because of them, is run again, too.

    Parameters
    ----------
    futures : iterable of Future
        Those that have not ended, or not failed, are left alone.

    Returns
    -------
    int
        How many are run again.

    Examples
    --------
    >>> retry(futures)                              # doctest: +SKIP
    2
    """
    ended = [future for future in futures if future.done() and not future.cancelled()]
    for batch in {future.batch: None for future in ended}:
        batch.want()  # all of them, before the first is waited for
    failed = {(future.batch, future.index): future for future in ended if future.exception() is not None}
    alone = [batch for batch, index in failed if index is None]
    members: defaultdict[Batch, list[int]] = defaultdict(list)
    for batch, index in failed:
        if index is not None:
            members[batch].append(index)
    for batch in alone:
        batch.ledger.again(batch)
    for batch, indices in members.items():
        _again(batch, indices)
    return len(failed)


def _again(batch: Batch, indices: Sequence[int]) -> None:
    """Run some calls of a batch as another batch."""
    client = batch.ledger.client
    scheduler: Any = client.scheduler
    told: dict[str, Any] = client.sync(scheduler.hpcnb_again, key=batch.key, indices=list(indices))
    if not told:
        raise TaskLost(f"the cluster no longer knows what {batch.key} was", remedy="Submit it again.")
    calls = pickle.loads(told["calls"])  # noqa: S301 - ours, from the user's own scheduler
    name = f"{key_split(batch.key)}-{uuid.uuid4()}"
    made, _ = batch.ledger.batch(name, size=len(indices), tag=batch.tag, pace=batch.pace)
    client.send([Sent(made, calls, [DaskFuture(key, client) for key in told["needs"]], {})], work=told["work"])
    batch.again = {**(batch.again or {}), **{index: (made, place) for place, index in enumerate(indices)}}
