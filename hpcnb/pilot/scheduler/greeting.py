"""What is told to all clients spares those that connect at that moment: Dask's client fails unless its greeting comes alone."""

from __future__ import annotations

from typing import Any

from distributed.scheduler import Scheduler

__all__ = ["greet_alone"]


def greet_alone(scheduler: Scheduler) -> None:
    """Have whoever connects, notebook or task, while somebody cancels something, not fail by it.

    The first thing that a client reads has to be one message, that it is connected (`distributed.Client._ensure_connected`). What the
    scheduler tells everybody, of keys that were cancelled above all, can get into the same batch. A new client has no such keys, and one that
    comes back asks for its own again.
    """
    there: Any = scheduler
    report = scheduler.report

    def tell(msg: dict[str, Any], ts: Any = None, client: str | None = None) -> None:
        if ts is not None or client is not None or there.tasks.get(msg.get("key")) is not None:
            report(msg, ts, client)
            return
        for name, comm in list(there.client_comms.items()):
            if comm.batch_count:  # its greeting is on its way
                report(msg, client=name)

    there.report = tell
