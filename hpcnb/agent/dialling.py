"""Make a pipe to a pilot: by the route that is configured, or that worked before, or the first that works."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import ssl
from collections.abc import Mapping

from hpcnb.agent import places
from hpcnb.errors import ConnectionFailed, HPCError
from hpcnb.link import Link, LinkRefused, secure
from hpcnb.pilot.written import write_whole
from hpcnb.site.authority import Role
from hpcnb.site.routes import ROUTES, Goal, Route
from hpcnb.site.shell import Pipe

log = logging.getLogger(__name__)

LOYALTY = 4
"""How many times in a row a route that has carried this link may fail before the others are tried, too, which takes long."""
ANSWER = 5.0
"""Seconds that the login node has to answer a small question, when a route has failed."""
FORGOTTEN = {"mailbox"}
"""Too slow to be taken first the next time."""


class Silent(ConnectionFailed):
    """The login node does not answer: nothing is known of any route."""


class Dialler:
    """Makes the pipes of one link.

    Parameters
    ----------
    site : str
        For which it is remembered which route worked.
    wish : str
        The route to take, or ``auto``.
    tls : ssl.SSLContext
        To show to the gateway.
    """

    def __init__(self, site: str, wish: str, tls: ssl.SSLContext) -> None:
        self._site = site
        self._wish = wish
        self._tls = tls
        self._proven = ""
        self._failures = 0

    async def dial(self, link: Link, goal: Goal) -> str:
        """Attach a new pipe to the link; return its route.

        Raises
        ------
        LinkRefused
            The two ends do not belong together.
        Silent
            The login node does not answer.
        ConnectionFailed
            No route works now; the message says why for each.
        """
        failed: dict[str, str] = {}
        for name, route in self._choice().items():
            why = await self._try(route, link, goal)
            if why is None:
                self._succeeded(name)
                return name
            log.info("link %s: %s: %s", link.name, name, why)
            failed[name] = why
        self._failures += 1
        raise ConnectionFailed(
            "the pilot cannot be reached: " + "; ".join(f"{name}: {why}" for name, why in failed.items()),
            where=f"site {self._site}",
        )

    @property
    def better(self) -> Mapping[str, Route]:
        """The routes that may be taken in the place of the one that carries the link, best first."""
        if self._wish != "auto":
            return {}
        return dict(itertools.takewhile(lambda one: one[0] != self._proven, ROUTES.items()))

    async def climb(self, link: Link, goal: Goal) -> str:
        """Have a better route carry the link, which lives, than the one that does; return its name, empty if none works.

        A fault that has passed since may be all that keeps a link, and each later one of the site, from its best route.

        Raises
        ------
        LinkRefused, Silent
            As of `dial`; the link is carried as before.
        """
        for name, route in self.better.items():
            if await self._try(route, link, goal) is None:
                log.info("link %s: %s carries it in the place of %s", link.name, name, self._proven)
                self._succeeded(name)
                return name
        return ""

    async def _try(self, route: Route, link: Link, goal: Goal) -> str | None:
        """Take a route; return why it failed, None if it did not."""
        why = ""
        for _ in range(2):
            try:
                async with asyncio.timeout(route.deadline):
                    await self._attach(link, await route.open(goal))
            except LinkRefused:
                raise
            except (HPCError, OSError) as exc:
                why, lost = _why(exc, route), not goal.shell.alive
                await _check_answers(goal, exc)
                if not lost:  # else by another connection it may work
                    return why
            else:
                return None
        return why

    def _choice(self) -> Mapping[str, Route]:
        if self._wish != "auto":
            return {self._wish: ROUTES[self._wish]}
        first = self._proven or remembered(self._site)
        if self._proven and self._failures < LOYALTY:
            return {first: ROUTES[first]}
        return {name: ROUTES[name] for name in sorted(ROUTES, key=lambda name: name != first)}

    async def _attach(self, link: Link, pipe: Pipe) -> None:
        await link.attach(*await secure(*pipe, self._tls, server_hostname=Role.GATEWAY.server_name))

    def _succeeded(self, name: str) -> None:
        self._proven, self._failures = name, 0
        if self._wish == "auto" and name not in FORGOTTEN:
            remember(self._site, name)


def _why(exc: Exception, route: Route) -> str:
    if isinstance(exc, TimeoutError):
        return f"no answer within {route.deadline:.0f} s"
    return exc.what if isinstance(exc, HPCError) else str(exc) or type(exc).__name__


async def _check_answers(goal: Goal, failure: Exception) -> None:
    """Have the login node answer something, or none of the other routes could either."""
    try:
        async with asyncio.timeout(ANSWER):
            await goal.shell.read(f"{goal.path}/pilot.json", limit=1)
    except FileNotFoundError:
        pass  # an answer, too
    except (HPCError, OSError) as exc:
        why = exc.what if isinstance(exc, HPCError) else "the login node does not answer"
        raise Silent(why, where=goal.shell.name, evidence=str(failure)) from exc


def remembered(site: str) -> str:
    """The route that worked last at a site; empty when there is none."""
    name = _memory().get(site, "")
    return name if name in ROUTES else ""


def remember(site: str, route: str) -> None:
    """Keep for the next cluster which route worked."""
    known = _memory()
    if known.get(site) == route:
        return
    path = places.routes()
    try:
        write_whole(path, json.dumps(known | {site: route}).encode())
    except OSError:  # the disk is full: the next cluster tries the routes in their order
        log.exception("%s could not be written", path)


def _memory() -> dict[str, str]:
    try:
        known = json.loads(places.routes().read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
