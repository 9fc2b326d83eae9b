"""The keeper: what a notebook asked for is held under its name, until it lets go of it or the cluster ends."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, TaskState

__all__ = ["SIZE", "TAG", "Keeper", "client_name", "holder", "notebook_of", "state_of"]

TAG = "hpcnb_tag"
"""The annotation of a task that holds its tag."""
SIZE = "hpcnb_size"
"""That of a batch of calls, with their number; 0: it is but a part of something else, and nobody's future."""
ORPHANS = 100_000
"""Keys of one notebook that are kept while it is away; beyond it the oldest that have ended go."""

_MARK = "hpcnb:"
_CLIENT = re.compile(rf"\w+-{_MARK}(.+)-[0-9a-f-]{{36}}", re.DOTALL)


def client_name(notebook: str) -> str:
    """Return the name that a Dask client takes to be known as a notebook's.

    It is part of the client's id, so the scheduler knows the notebook from the first message on.
    """
    return _MARK + notebook


def notebook_of(client_id: str) -> str:
    """Return the notebook of a Dask client; empty: it is nobody's."""
    found = _CLIENT.fullmatch(client_id)
    return found[1] if found else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is remembered of a key.

    Parameters
    ----------
    ordinal : int
        Later submissions have greater ones.
    tag : str
    at : float
        POSIX time of the submission.
    size : int or None
        The number of calls, where it is a batch.
    """

    ordinal: int
    tag: str
    at: float
    size: int | None


class Keeper(SchedulerPlugin):
    """Holds keys in the place of notebooks.

    To the scheduler it is one more client for each notebook, which wants what the notebook wants and stays. Only what a
    living client says in so many words ends that: a client that leaves, in whatever way, releases nothing. The scheduler
    tells the two apart, since it drops the wishes of a client that leaves without any message of that client.
    """

    name = "hpcnb-keeper"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._kept: dict[str, dict[Any, Kept]] = {}
        self._ordinals = itertools.count()
        said: dict[str, Any] = {
            "client-desires-keys": self._desire,
            "client-releases-keys": self._release,
            "cancel-keys": self._cancel,
            "hpcnb-kept": self._tell,
        }
        scheduler.stream_handlers.update(said)
        scheduler.handlers["scatter"] = self._scatter

    # -- what the scheduler tells ------------------------------------------------------------------------------------

    def update_graph(
        self, scheduler: Scheduler, *, client: str, keys: set[Any], annotations: dict[str, Any], **more: Any
    ) -> None:
        notebook = notebook_of(client)
        if not notebook:
            return
        tags, sizes = annotations.get(TAG, {}), annotations.get(SIZE, {})
        keys = {key for key in keys if sizes.get(key) != 0}
        mine, now = self._kept.setdefault(notebook, {}), time.time()
        for key in sorted(keys, key=self._place):
            if key not in mine:
                mine[key] = Kept(ordinal=next(self._ordinals), tag=tags.get(key, ""), at=now, size=sizes.get(key))
        scheduler.client_desires_keys(keys, holder(notebook))

    def _place(self, key: Any) -> int:
        """Its place in its graph, which comes as a set."""
        return int((self._scheduler.tasks[key].priority or (0,))[-1])

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        if finish == "forgotten":
            for mine in self._kept.values():
                mine.pop(key, None)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        notebook = notebook_of(client)
        mine = self._kept.get(notebook, {})
        if (surplus := len(mine) - ORPHANS) > 0:
            tasks = scheduler.tasks
            over = (
                key for key in mine if tasks[key].state in ("memory", "erred") and len(tasks[key].who_wants or ()) == 1
            )
            self._drop(notebook, list(itertools.islice(over, surplus)))

    def restart(self, scheduler: Scheduler) -> None:
        self._kept.clear()

    # -- what clients say --------------------------------------------------------------------------------------------

    async def _scatter(self, *, client: str, **data: Any) -> Any:
        """No graph tells of what a client sends to the workers; it is held before the client hears that it is there."""
        keys = await self._scheduler.scatter(client=client, **data)
        if notebook := notebook_of(client):
            mine, now = self._kept.setdefault(notebook, {}), time.time()
            for key in keys:
                mine.setdefault(key, Kept(ordinal=next(self._ordinals), tag="", at=now, size=None))
            self._scheduler.client_desires_keys(keys, holder(notebook))
        return keys

    def _release(self, keys: Iterable[Any], client: str) -> None:
        self._let_go(keys, client)
        if client in self._scheduler.clients:  # else it has said that it leaves
            self._scheduler.client_releases_keys(keys=list(keys), client=client)

    def _cancel(self, keys: Collection[Any], client: str, **more: Any) -> None:
        # Dask cancels what nobody else wants, and what depends on it.
        closure: dict[Any, None] = {}
        waiting = [self._scheduler.tasks[key] for key in keys if key in self._scheduler.tasks]
        while waiting:
            task = waiting.pop()
            if task.key not in closure:
                closure[task.key] = None
                waiting += task.dependents
        self._let_go(closure, client)
        self._scheduler.stimulus_cancel(keys=keys, client=client, **more)

    def _desire(self, keys: Collection[Any], client: str) -> None:
        known = [key for key in keys if key in self._scheduler.tasks]
        self._scheduler.client_desires_keys(keys=known, client=client)
        if gone := [key for key in keys if key not in self._scheduler.tasks]:  # or its futures would wait for ever
            why = "the scheduler does not know it (any more); submit it again"
            self._scheduler.report(
                {"op": "cancelled-keys", "keys": gone, "reason": "unknown", "msg": why}, client=client
            )

    def _tell(self, client: str, adopt: str = "") -> None:
        """Answer by the way on which releases come, so that what was dropped before the question is not in the answer."""
        notebook = notebook_of(client)
        if adopt:
            self.adopt(notebook, adopt)
        self._scheduler.report({"op": "hpcnb-kept", "answer": self.kept(notebook)}, client=client)

    def kept(self, notebook: str) -> dict[str, Any]:
        """What is held for a notebook, in order of submission, and which others are away.

        Returns
        -------
        dict
            ``futures``: a list of ``(key, ordinal, tag, at, size, state)``, the state as Dask names a task's, or ``executing``; ``others``:
            notebooks without a living client, each with the number of its keys.
        """
        mine, tasks = self._kept.get(notebook, {}), self._scheduler.tasks
        held = sorted(mine.items(), key=lambda item: item[1].ordinal)
        away = {name: _number(keys) for name, keys in self._kept.items() if keys and not self._lives(name)}
        return {
            "futures": [(key, one.ordinal, one.tag, one.at, one.size, state_of(tasks[key])) for key, one in held],
            "others": {name: number for name, number in away.items() if name != notebook},
        }

    def adopt(self, notebook: str, other: str) -> None:
        """Hold for one notebook what was held for another, if that is away."""
        if notebook == other or self._lives(other) or other not in self._kept:
            return
        adopted = self._kept[other]
        self._kept[notebook] = adopted | self._kept.get(notebook, {})
        self._scheduler.client_desires_keys(list(adopted), holder(notebook))
        self._drop(other, list(adopted))

    # -- within ------------------------------------------------------------------------------------------------------

    def _lives(self, notebook: str) -> bool:
        return any(notebook_of(client) == notebook for client in self._scheduler.clients)

    def _let_go(self, keys: Iterable[Any], client: str) -> None:
        """Hold keys no longer that a living client of their notebook wants no more, unless another one of it does."""
        notebook = notebook_of(client)
        if client not in self._scheduler.clients or not (mine := self._kept.get(notebook)):
            return
        self._drop(notebook, [key for key in keys if key in mine and not self._wanted(key, notebook, client)])

    def _wanted(self, key: Any, notebook: str, but: str) -> bool:
        task: TaskState = self._scheduler.tasks[key]
        return any(c.client_key != but and notebook_of(c.client_key) == notebook for c in task.who_wants or ())

    def _drop(self, notebook: str, keys: list[Any]) -> None:
        mine = self._kept[notebook]
        for key in keys:
            del mine[key]
        if keys:
            self._scheduler.client_releases_keys(keys=keys, client=holder(notebook))


def state_of(task: TaskState) -> str:
    """The state of a task, in Dask's word, or ``executing``."""
    # To Dask a task that waits at its worker is "processing" as well; which of them run, workers tell with each heartbeat.
    worker = task.processing_on
    return "executing" if worker is not None and task in worker.executing else str(task.state)


def _number(keys: dict[Any, Kept]) -> int:
    return sum(one.size or 1 for one in keys.values())


def holder(notebook: str) -> str:
    """The client that holds what a notebook wants."""
    return f"hpcnb-keeper:{notebook}"
