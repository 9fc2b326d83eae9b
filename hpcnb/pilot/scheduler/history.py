"""What the nodes of a cluster have done, for a picture of bounded size: how busy each was when, and which tasks were long."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, TaskState

from hpcnb.pilot.output.search import HISTORY
from hpcnb.pilot.run import Run
from hpcnb.pilot.scheduler.nodes import node_of

__all__ = ["Ended", "History"]

Ended = tuple[TaskState, Mapping[str, Any]]
"""A task, and what its worker has told of its end."""

log = logging.getLogger(__name__)

COLUMNS = 240
"""Pieces into which the time is cut, at most: when they are full, each two become one."""
FINEST = 0.5
"""Seconds of a piece at first."""
TASKS = 1000
"""Tasks that are remembered one by one, at most: of more, the shorter half is known by what it adds to a node's work."""
RUNNING = 200
"""Tasks that run which are told."""


@dataclass(slots=True)
class Node:
    """One node: since when, until when (0: it is there), its cores, and the core-seconds of work in each piece of time."""

    since: float
    until: float = 0.0
    cores: int = 0
    most: int = 0
    busy: list[float] = field(default_factory=list)


class History(SchedulerPlugin):
    """Remembers; each task costs the same, however many there are."""

    name = "hpcnb-history"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler: Any = scheduler
        self._begun = time.time()
        self._width = FINEST
        self._nodes: dict[str, Node] = {}
        self._of: dict[str, tuple[Node, str]] = {}  # by a worker's address; with the worker's name
        self._tasks: list[tuple[str, float, float, str, bool]] = []
        self._shortest = 0.0
        self._number = 0
        self._kept: tuple[int, dict[str, float]] = (0, {})
        self._scheduler.handlers["hpcnb_history"] = self.tell

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        state = scheduler.workers[worker]
        node = self._nodes.setdefault(node_of(state), Node(since=time.time()))
        self._of[worker] = node, str(state.name)
        node.cores, node.until = node.cores + state.nthreads, 0.0
        node.most = max(node.most, node.cores)

    def remove_worker(self, scheduler: Scheduler, worker: str, **more: Any) -> None:
        # Dask tells of it when it knows the worker no longer.
        self._of.pop(worker, None)
        left: dict[str, int] = {}
        for state in scheduler.workers.values():
            left[node_of(state)] = left.get(node_of(state), 0) + state.nthreads
        for name, node in self._nodes.items():
            node.cores = left.get(name, 0)
            node.until = 0.0 if node.cores else node.until or time.time()

    def took(self, ended: Iterable[Ended], *, failed: bool = False) -> list[float]:
        """Tasks have run and ended about now, as their workers tell; how many seconds each."""
        took: list[float] = []
        short: dict[str, float] = {}
        stop = 0.0
        for task, told in ended:
            for one in told.get("startstops", ()):
                if one["action"] == "compute":
                    break
            else:
                took.append(0.0)
                continue
            start, stop, worker = one["start"], one["stop"], told["worker"]
            seconds = stop - start
            took.append(seconds)
            if seconds < self._width:  # the piece in which the last one has ended will do
                short[worker] = short.get(worker, 0.0) + seconds
            elif known := self._of.get(worker):
                self._fill(known[0], start - self._begun, stop - self._begun)
            if seconds >= self._shortest:
                self._remember(task, worker, start, stop, failed=failed)
        for worker, seconds in short.items():
            self._add(worker, seconds, stop - self._begun)
        self._number += len(took)
        return took

    def _add(self, worker: str, seconds: float, at: float) -> None:
        """So many seconds of work were done shortly before."""
        if known := self._of.get(worker):
            self._fill(known[0], at, at)
            known[0].busy[max(0, int(at / self._width))] += seconds

    def _remember(self, task: TaskState, worker: str, start: float, stop: float, *, failed: bool) -> None:
        if not (known := self._of.get(worker)):
            return
        self._tasks.append((known[1], start, stop, task.prefix.name, failed))
        if len(self._tasks) > TASKS:
            self._shortest = statistics.median(stop - start for _, start, stop, _, _ in self._tasks)
            # Where all are equally long, the later half is as good a sample as any.
            longer = [task for task in self._tasks if task[2] - task[1] > self._shortest]
            self._tasks = longer or self._tasks[TASKS // 2 :]

    def _fill(self, node: Node, start: float, stop: float) -> None:
        while stop >= self._width * COLUMNS:
            self._coarsen()
        first, last = int(start / self._width), int(stop / self._width)
        if start < 0:  # by its worker's clock it had begun before there was a scheduler
            start, first, last = 0.0, 0, max(0, last)
        if last >= len(node.busy):
            node.busy.extend([0.0] * (last + 1 - len(node.busy)))
        if first == last:
            node.busy[last] += stop - start
            return
        for place in range(first, last + 1):
            there = min(stop, (place + 1) * self._width) - max(start, place * self._width)
            node.busy[place] += there

    def _coarsen(self) -> None:
        self._width *= 2
        for node in self._nodes.values():
            node.busy = [sum(node.busy[place : place + 2]) for place in range(0, len(node.busy), 2)]

    def tell(self) -> dict[str, Any]:
        """What is remembered.

        Returns
        -------
        dict
            ``begun`` and ``now``: POSIX times; ``width``: seconds of a piece; ``nodes``: for each its ``name``, ``since``, ``until``,
            ``cores`` and ``busy``; ``tasks``: ``(worker, start, stop, name, failed)``, the stop of one that runs is 0; ``number`` of
            all that have ended, and ``shortest``: the seconds below which none is among them.
        """
        now = time.time()
        nodes = [
            {
                "name": name,
                "since": node.since,
                "until": node.until,
                "cores": node.most,
                "busy": [round(one, 2) for one in node.busy],
            }
            for name, node in self._nodes.items()
        ]
        return {
            "begun": self._begun,
            "now": now,
            "width": self._width,
            "nodes": nodes,
            "tasks": [*self._tasks, *self._running(now)],
            "number": self._number,
            "shortest": self._shortest,
        }

    async def keep(self, run: Run) -> None:
        """Write it down, if there is anything new, for those who ask when there is no scheduler any more."""
        new = self._number, {name: node.until for name, node in self._nodes.items()}
        if new != self._kept:
            self._kept = new
            try:
                await asyncio.to_thread(run.publish, HISTORY, self.tell())
            except OSError as exc:
                log.warning("what the nodes have done is not kept: %s", exc)

    def _running(self, now: float) -> list[tuple[str, float, float, str, bool]]:
        found: list[tuple[str, float, float, str, bool]] = []
        for worker in self._scheduler.workers.values():
            for task, lasted in worker.executing.items():
                if len(found) < RUNNING:
                    found.append((str(worker.name), now - lasted, 0.0, str(task.prefix.name), False))
        return found
