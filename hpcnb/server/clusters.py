"""Clusters over REST: list, start, scale, keep, end, and their logs."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web

from hpcnb.server.handler import Handler

__all__ = ["Cluster", "Clusters", "Keep", "Log", "Logs", "Scale"]

MOST_NODES = 100_000
MOST_LOGS = 1 << 20


class Clusters(Handler):
    """All clusters."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Those that live, or ended lately, oldest first."""
        self.reply({"clusters": await self.ask("list")})

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Start one: ``site``, ``name`` and ``wishes``, as `hpcnb.Cluster` takes them; answers when it is submitted."""
        asked = self.body({"site", "name", "wishes"})
        for key in ("site", "name"):
            if not isinstance(asked.get(key, ""), str):
                raise self.refuse(key, asked[key], "a string")
        wishes = asked.get("wishes", {})
        if not isinstance(wishes, dict) or not {"name", "directory", "site"}.isdisjoint(wishes):
            raise self.refuse("wishes", wishes, "an object with what a cluster may be asked for")
        # To read the configuration imports a good deal.
        spec = await asyncio.to_thread(_spec, asked.get("site", ""), asked.get("name", ""), wishes)
        self.reply(await self.ask("create", id=secrets.token_hex(8), spec=spec), 201)


def _spec(site: str, name: str, wishes: dict[str, Any]) -> dict[str, Any]:
    from hpcnb.handle import spec_for

    return spec_for(site, name=name, **wishes).to_json()


class _One(Handler):
    async def find(self, id: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = await self.ask("list")
        for cluster in found:
            if cluster["id"] == id:
                return cluster
        raise web.HTTPError(404, f"there is no cluster {id}")


class Cluster(_One):
    """One cluster."""

    @web.authenticated
    @authorized
    async def get(self, id: str) -> None:
        """Its status."""
        self.reply(await self.find(id))

    @web.authenticated
    @authorized
    async def delete(self, id: str) -> None:
        """End it; answers when its jobs are gone."""
        await self.find(id)
        self.reply(await self.ask("close", id=id))


class Scale(_One):
    """How many nodes a cluster has."""

    @web.authenticated
    @authorized
    async def post(self, id: str) -> None:
        """Have so many ``nodes``."""
        nodes = self.body({"nodes"}).get("nodes")
        if not isinstance(nodes, int) or isinstance(nodes, bool) or not 0 <= nodes <= MOST_NODES:
            raise self.refuse("nodes", nodes, f"a whole number from 0 to {MOST_NODES}")
        await self.find(id)
        await self.ask("scale", id=id, nodes=nodes)
        self.reply(await self.find(id))


class Keep(_One):
    """The idle time of a cluster."""

    @web.authenticated
    @authorized
    async def post(self, id: str) -> None:
        """Begin it anew."""
        self.body(())
        await self.find(id)
        await self.ask("keep", id=id)
        self.reply(await self.find(id))


class Logs(_One):
    """The ends of a cluster's logs."""

    @web.authenticated
    @authorized
    async def get(self, id: str) -> None:
        """Those whose name contains ``name``, at most ``most`` bytes of each; 0: their names alone."""
        await self.find(id)
        name, most = self.get_query_argument("name", ""), self.number("most", 65536, MOST_LOGS)
        self.reply({"logs": await self.ask("logs", id=id, name=name, most=most)})


class Log(_One):
    """One log, piece by piece."""

    @web.authenticated
    @authorized
    async def get(self, id: str, name: str) -> None:
        """``most`` bytes from ``offset`` on, or from so many before the end; ``next`` is where to go on."""
        await self.find(id)
        offset, most = self.number("offset", 0, 10**15, -MOST_LOGS), self.number("most", 65536, MOST_LOGS, 1)
        piece = await self.ask("log", id=id, name=name, offset=offset, most=most)
        if not piece:
            raise web.HTTPError(404, f"this cluster has no log {name[:200]!a}".replace("%", "%%"))
        self.reply(piece)
