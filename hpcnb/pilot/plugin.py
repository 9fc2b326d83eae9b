"""What we add to Dask's scheduler and workers: a summary for the pilot, the keeper, messages that do not wait for company."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from typing import Any

import dask
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler
from distributed.worker import Worker
from tornado.ioloop import PeriodicCallback

from hpcnb.pilot.events import emit, news
from hpcnb.pilot.output.feed import Feed
from hpcnb.pilot.output.worker import catch
from hpcnb.pilot.run import Run
from hpcnb.pilot.scheduler import groups, nodes
from hpcnb.pilot.scheduler.dashboard import serve_pages
from hpcnb.pilot.scheduler.early import Early, pass_on
from hpcnb.pilot.scheduler.elsewhere import Elsewhere
from hpcnb.pilot.scheduler.greeting import greet_alone
from hpcnb.pilot.scheduler.history import History
from hpcnb.pilot.scheduler.keeper import Keeper
from hpcnb.pilot.scheduler.known import Known
from hpcnb.pilot.scheduler.once import Once
from hpcnb.pilot.scheduler.pinned import Pinned
from hpcnb.pilot.scheduler.refusals import Refusals
from hpcnb.pilot.scheduler.suspects import Suspects
from hpcnb.pilot.scheduler.versions import Chooser
from hpcnb.pilot.scheduler.work import Work
from hpcnb.pilot.worker.call import Stopper
from hpcnb.pilot.worker.cores import Cores
from hpcnb.pilot.worker.turns import hear_as_scheduler

PROMPT = 0.0005
"""Seconds that a message waits for others to travel with (Dask: 2 to 10 ms a hop, most of a small task's time)."""

HISTORY_INTERVAL = 5000
"""Milliseconds after which what the nodes have done is written down again."""
INTERVAL = 250
"""Milliseconds between two summaries: four a second at most, and none while nothing changes."""
NEWS_INTERVAL = 2000
"""Of nodes and groups; workers tell of themselves once a second at most."""


class Load(SchedulerPlugin):
    """Publishes a summary of constant size, whatever the number of tasks.

    Counters move with each transition (O(1)); no task list is ever walked.
    """

    name = "hpcnb-load"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._moves: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._published: dict[str, Any] = {}

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        self._moves[start, finish] += 1

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        scheduler.stream_comms[worker].interval = PROMPT
        self.publish()  # the first worker is what everybody waits for

    def add_client(self, scheduler: Scheduler, client: str) -> None:
        # The connection is entered in the scheduler's books right after this call.
        asyncio.get_running_loop().call_soon(self._hasten, client)

    def _hasten(self, client: str) -> None:
        if comm := self._scheduler.client_comms.get(client):
            comm.interval = PROMPT

    def publish(self) -> None:
        """Emit the summary if it differs from the last one."""
        workers = self._scheduler.workers.values()
        states = ("waiting", "queued", "no-worker", "processing", "memory", "erred")
        tasks: Counter[str] = Counter()
        for (start, finish), number in self._moves.items():
            tasks[start] -= number
            tasks[finish] += number
        summary = {
            "workers": len(workers),
            "cores": sum(w.nthreads for w in workers),
            "tasks": {s: tasks[s] for s in states if tasks[s] > 0},
        }
        if summary != self._published:
            self._published = summary
            emit("load", **summary)


async def dask_setup(server: Scheduler | Worker) -> None:
    """Dask calls this in each scheduler and worker once it listens (``--preload``)."""
    # It starts whatever Dask is told, has a page even without routes, and the loopback is every local user's.
    server.http_server.stop()
    if isinstance(server, Worker):
        server.batched_stream.interval = PROMPT
        await server.plugin_add(Stopper())
        await server.plugin_add(Early())
        await server.plugin_add(Cores())
        catch(server)
        # Not earlier: what the worker itself has made by now is private.
        os.umask(dask.config.get("hpcnb.umask", 0o077))
        return
    scheduler = server
    plugin = Load(scheduler)
    scheduler.add_plugin(plugin)
    scheduler.add_plugin(Once(scheduler))
    scheduler.add_plugin(Keeper(scheduler))
    suspects = Suspects(scheduler)
    scheduler.add_plugin(suspects)
    scheduler.add_plugin(Known(scheduler, suspects.history))
    scheduler.add_plugin(Feed(scheduler))
    scheduler.add_plugin(history := History(scheduler))
    scheduler.add_plugin(work := Work(scheduler, history))
    greet_alone(scheduler)
    pass_on(scheduler)
    hear_as_scheduler(scheduler)
    # No plugins: Dask calls each plugin with every transition.
    Elsewhere(scheduler)
    Chooser(scheduler)
    scheduler.add_plugin(refusals := Refusals(scheduler))
    scheduler.add_plugin(Pinned(scheduler, suspects, refusals))
    scheduler.periodic_callbacks["hpcnb-load"] = PeriodicCallback(plugin.publish, INTERVAL)
    of_nodes = news("nodes", lambda: nodes.loads(scheduler.workers.values()))
    scheduler.periodic_callbacks["hpcnb-nodes"] = PeriodicCallback(of_nodes, NEWS_INTERVAL)
    of_groups = news("groups", lambda: groups.loads(work))
    scheduler.periodic_callbacks["hpcnb-groups"] = PeriodicCallback(of_groups, NEWS_INTERVAL)
    emit("scheduler", address=scheduler.address)
    serve_pages(scheduler)
    if (where := dask.config.get("hpcnb.run", None)) is not None:
        run = Run.load(where)
        scheduler.periodic_callbacks["hpcnb-history"] = PeriodicCallback(lambda: history.keep(run), HISTORY_INTERVAL)
