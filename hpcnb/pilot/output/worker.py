"""Catching on a worker: what belongs together."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import dask
from distributed.worker import Worker

from hpcnb.pilot.output import children, streams
from hpcnb.pilot.output.capture import ATTEMPT, Capture
from hpcnb.pilot.output.outbox import TAKEN
from hpcnb.pilot.worker import call

__all__ = ["catch"]


def catch(worker: Worker) -> None:
    """Catch what a worker's tasks print, if its process has a log of its own; before the first of them runs."""
    log = dask.config.get("hpcnb.log", None)
    if log is None:
        return
    known: Any = worker.state
    there: Any = worker

    def attempt(key: Any) -> int:
        task = known.tasks.get(key)
        return int(((task and task.annotations) or {}).get(ATTEMPT, 1))

    capture = Capture(
        Path(log),
        begin=dask.config.get("hpcnb.begin"),
        worker=str(worker.name),
        host=socket.gethostname(),
        send=lambda message: there.loop.add_callback(there.batched_send, message),
        jobs=lambda: call.running().jobs(),
        others=lambda: len(known.executing) + len(known.long_running),
        attempt=attempt,
        several=known.nthreads > 1,
    )
    there.stream_handlers[TAKEN] = capture.outbox.taken
    call.running().watch = capture
    streams.install(capture)
    children.install(capture)
