"""Small results travel with the news that they are there: a lone short call goes there and back once, not twice."""

from __future__ import annotations

import pickle
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import Scheduler
from distributed.worker import Worker

from hpcnb.pilot.scheduler.keeper import notebook_of
from hpcnb.pilot.worker.batch import PLAIN, Outcomes

__all__ = ["VALUE", "Early", "pass_on"]

VALUE = "hpcnb-value"
"""The message, from worker to scheduler and from there to the client."""
LARGEST = 1 << 16
"""Bytes of a small result, as Dask counts them."""
FEW = 20
"""Values in one that holds others."""


class Early(WorkerPlugin):
    """Sends the small results of our calls ahead of Dask's own message that the call has ended.

    Only what is made of Python's own values: nothing of the user's runs where it is written or read.
    """

    name = "hpcnb-early"

    def setup(self, worker: Worker) -> None:
        self._worker: Any = worker

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        if finish != "memory" or start not in ("executing", "long-running"):
            return
        task = self._worker.state.tasks[key]
        if (task.nbytes or 0) <= LARGEST and getattr(getattr(task.run_spec, "func", None), "isolates", False):
            value = self._worker.data[key]
            if _is_plain(value):
                self._worker.batched_send({"op": VALUE, "key": key, "value": pickle.dumps(value)})


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple) and len(value) <= FEW:
        return all(type(one) in PLAIN for one in value)
    return type(value) in PLAIN or type(value) is Outcomes


def pass_on(scheduler: Scheduler) -> None:
    """Have the scheduler give such results to the notebooks that want them."""
    there: Any = scheduler

    def tell(key: Any, value: bytes, worker: str) -> None:  # noqa: ARG001 - Dask says of which
        task = there.tasks.get(key)
        for client in (task and task.who_wants) or ():
            if notebook_of(client.client_key) and (comm := there.client_comms.get(client.client_key)):
                comm.send({"op": VALUE, "key": key, "value": value})

    there.stream_handlers[VALUE] = tell
