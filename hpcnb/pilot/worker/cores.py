"""The cores of a worker: a task that needs four keeps three threads free, and is not overtaken for ever by those that need one."""

from __future__ import annotations

from typing import Any

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

__all__ = ["CORES", "Cores"]

CORES = "cores"
"""The resource of a worker that a task of several cores asks for."""


class Cores(WorkerPlugin):
    """Has a worker count the cores of what it runs, where Dask counts tasks.

    To Dask each task is one thread, and resources are what is asked for: a task of four cores would be run beside three that ask for nothing. To
    ask for one core with each task would make all of them slower, since the scheduler looks at resources task by task.
    """

    name = "hpcnb-cores"

    def setup(self, worker: Worker) -> None:
        """Dask calls this before the worker runs anything."""
        state: Any = worker.state
        state.executing = _Executing(state)
        state.available_resources = _Available(state, state.available_resources)


class _Executing(set[Any]):
    """The tasks that run; as many as the cores that they have."""

    def __init__(self, state: Any) -> None:
        super().__init__(state.executing)
        self._state = state

    def cores(self) -> int:
        """How many cores they have."""
        return sum(map(_cores, self))

    def __len__(self) -> int:
        cores: int = self.cores()
        # A task that waits for cores is not overtaken by later ones, which would never let it have them.
        return max(cores, self._state.nthreads) if self._waits(self._state.nthreads - cores) else cores

    def _waits(self, free: int) -> bool:
        state = self._state
        if not state.constrained:
            return False
        first = state.constrained.peek()
        return _cores(first) > free and not (state.ready and state.ready.peek().priority < first.priority)


def _cores(task: Any) -> int:
    return int((task.resource_restrictions or {}).get(CORES, 1))


class _Available(dict[str, float]):
    """What a worker has left; of its cores what its tasks leave."""

    def __init__(self, state: Any, known: dict[str, float]) -> None:
        super().__init__(known)
        self._state = state

    def __getitem__(self, name: str) -> float:
        return self._state.nthreads - self._state.executing.cores() if name == CORES else super().__getitem__(name)
