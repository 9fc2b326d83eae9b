"""Persistent queues over REST: list, look, read logs, pause, resume, retry, launch.

Whatever the command line does with a queue is done here, by the same calls, in threads. Nobody is asked anything meanwhile:
pages ask every few seconds, and a login is begun by the user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from jupyter_server.auth.decorator import authorized
from tornado import web

from hpcnb.server.aside import Aside
from hpcnb.server.handler import Handler

if TYPE_CHECKING:
    from hpcnb.queue import queue

__all__ = ["Launch", "Pause", "Queue", "Queues", "Retry", "TaskLog", "Tasks"]

MOST_JOBS = 1000
PAGE = 1000
STATES = ("Waiting", "Pending", "Running", "Succeeded", "Failed", "Killed")
GIVEN = {"name", "directory", "site", "func", "script", "pack", "count", "queued", "core_hours"}
"""What is no wish."""

T = TypeVar("T")


class _Handler(Handler):
    @property
    def aside(self) -> Aside:
        aside: Aside = self.settings["hpcnb_aside"]
        return aside

    @property
    def site(self) -> str:
        return self.get_query_argument("site", "")

    async def on_queue(self, name: str, work: Callable[[queue.Queue], T]) -> T:
        """Do something with a queue, in a thread."""
        site = self.site

        def found() -> T:
            from hpcnb.queue import desk, queue

            return work(queue.Queue(desk.desk_of(site), name))

        return await self.aside.run(found)


class Queues(_Handler):
    """All queues of a site."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Their names, states and counts."""
        site = self.site
        self.reply({"queues": await self.aside.share(f"queues of {site}", lambda: _listing(site))})


def _listing(site: str) -> list[dict[str, Any]]:
    from hpcnb.queue.queue import listing

    return listing(site=site)


class Queue(_Handler):
    """One queue."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Its state and counts."""
        self.reply(await self.on_queue(name, lambda found: found.status()))


class Tasks(_Handler):
    """The tasks of a queue."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """A page of them, by id: ``most`` with an id above ``after``, in one ``state``; ``next`` is where to go on."""
        after, most = self.number("after", 0, 10**15), self.number("most", 100, PAGE, 1)
        state = self.get_query_argument("state", "")
        if state and state not in STATES:
            raise self.refuse("state", state, f"one of {', '.join(STATES)}")
        tasks = await self.on_queue(name, lambda found: found.page(after, most, state=state or None))
        self.reply(
            {"tasks": [one.to_json() for one in tasks], "next": tasks[-1].id if len(tasks) == most else None},
        )


class TaskLog(_Handler):
    """What a task has printed."""

    @web.authenticated
    @authorized
    async def get(self, name: str, id: str) -> None:
        """By one ``attempt``, by default the last; after so many bytes of stdout (``out``) and stderr (``err``), by default the end of both."""
        attempt = self.number("attempt", 0, 10**9)
        read = [self.number(word, -1, 10**15, -1) for word in ("out", "err")]
        asked = (int(id), attempt or None, None if -1 in read else read)
        piece = await self.on_queue(name, lambda found: found.piece(*asked))
        out, err = piece.pop("read")
        self.reply(piece | {"out": out, "err": err})


class Pause(_Handler):
    """Whether a queue gives out tasks."""

    @web.authenticated
    @authorized
    async def post(self, name: str, verb: str) -> None:
        """Give out none (``pause``), or go on (``resume``)."""
        self.body(())
        await self.on_queue(name, lambda found: found.pause() if verb == "pause" else found.resume())
        self.reply(await self.on_queue(name, lambda found: found.status()))


class Retry(_Handler):
    """The tasks of a queue that have failed."""

    @web.authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Have them carried out again."""
        self.body(())
        self.reply({"retried": await self.on_queue(name, lambda found: found.retry())})


class Launch(_Handler):
    """Jobs that drain a queue."""

    @web.authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Submit so many ``jobs`` with these ``wishes``, of which ``queued`` wait at a time; or one job: with ``pack`` of so many workers, or of ``core_hours``."""
        asked = self.body({"jobs", "pack", "queued", "core_hours", "script", "wishes"})
        jobs, pack = asked.get("jobs", 1), asked.get("pack", False)
        script, wishes = asked.get("script", ""), asked.get("wishes", {})
        if not isinstance(jobs, int) or isinstance(jobs, bool) or not 1 <= jobs <= MOST_JOBS:
            raise self.refuse("jobs", jobs, f"a whole number from 1 to {MOST_JOBS}")
        if not isinstance(pack, bool):
            raise self.refuse("pack", pack, "true or false")
        several = {word: asked[word] for word in ("queued", "core_hours") if asked.get(word) is not None}
        for word, value in several.items():
            if not isinstance(value, int if word == "queued" else int | float) or isinstance(value, bool):
                raise self.refuse(word, value, "a whole number" if word == "queued" else "a number")
        if not isinstance(script, str):
            raise self.refuse("script", script, "a string")
        if not isinstance(wishes, dict) or not GIVEN.isdisjoint(wishes) or not isinstance(wishes.get("nodes", 1), int):
            raise self.refuse("wishes", wishes, "an object with what a job may be asked for")
        shape = several | {"pack": pack, "script": script}
        launched = await self.on_queue(name, lambda found: found.launch(jobs, **shape, **wishes))
        self.reply({"jobs": list(launched)}, 201)
