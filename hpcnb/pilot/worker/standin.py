"""What stands for its worker in a call's own process: tasks in tasks, locks and seceding work there as well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import distributed
from distributed import threadpoolexecutor
from distributed.metrics import time
from distributed.worker import get_worker

__all__ = ["StandIn"]

worker_module: Any = distributed.worker


@dataclass(kw_only=True)
class StandIn:
    """A worker as far as code in another process may ask for it.

    Parameters
    ----------
    key : object
        Of the task.
    address, name, scheduler_address, local_directory, nthreads
        The worker's own.
    """

    key: Any
    address: str
    name: Any
    scheduler_address: str
    local_directory: str
    nthreads: int
    data: dict[Any, Any] = field(default_factory=dict)  # nothing is here
    _client: Any = None

    @classmethod
    def of_worker(cls, key: Any) -> StandIn:
        """For the worker that runs this thread."""
        worker = get_worker()
        return cls(
            key=key,
            address=worker.address,
            name=worker.name,
            scheduler_address=worker.scheduler.address,
            local_directory=worker.local_directory,
            nthreads=worker.state.nthreads,
        )

    def install(self, ask: Callable[[str], None]) -> None:
        """Let this thread find it in its worker's place.

        Parameters
        ----------
        ask : callable
            Has the worker's thread that waits for this one ``secede`` or ``rejoin``.
        """
        worker_module._worker_cvar.set(self)  # noqa: SLF001 - as Dask's worker does it
        state = worker_module.thread_state
        state.key, state.start_time, state.execution_state = self.key, time(), {"worker": self}
        threadpoolexecutor.thread_state.proceed = True
        threadpoolexecutor.thread_state.executor = Seat(ask)

    # -- what Dask's functions use of a worker -------------------------------------------------------------------------

    def get_current_task(self) -> Any:
        """The key of the task."""
        return self.key

    def log_event(self, topic: Any, message: Any) -> None:
        """Nobody listens."""

    def handle_stimulus(self, event: Any) -> None:
        """The worker has its own."""

    @property
    def scheduler(self) -> Any:
        """A way to speak to it."""
        return self._get_client().scheduler

    @property
    def loop(self) -> Any:
        """An event loop in another thread."""
        return self._get_client().loop

    def _get_client(self, timeout: float | None = None) -> Any:
        if self._client is None:
            self._client = distributed.Client(
                self.scheduler_address, security=distributed.Security(), timeout=timeout, name="isolated"
            )
        return self._client


class Seat:
    """The place of a thread in the pool of the worker, in the form of the pool's own bookkeeping."""

    def __init__(self, ask: Callable[[str], None]) -> None:
        self._ask = ask
        self._threads = {threading.current_thread()}
        self._rejoin_lock = threading.Lock()
        self._rejoin_list: list[tuple[threading.Thread, threading.Event]] = []

    def _adjust_thread_count(self) -> None:
        self._ask("secede")

    def submit(self, fn: Callable[[], None]) -> None:
        """Dask submits nothing, so that somebody looks who wants to come back."""
        self._ask("rejoin")
        while self._rejoin_list:
            thread, event = self._rejoin_list.pop()
            self._threads.add(thread)
            event.set()
