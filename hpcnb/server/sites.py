"""Sites over REST: which there are, and logging in to one."""

from __future__ import annotations

from jupyter_server.auth.decorator import authorized
from tornado import web

from hpcnb.server.handler import Handler

__all__ = ["Limits", "Login", "Sites"]


class Sites(Handler):
    """The configured sites."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Their names, hosts and batch systems, and which is the default."""
        self.reply({"sites": await self.ask("sites")})


class _One(Handler):
    async def check(self, name: str) -> None:
        if name not in {site["name"] for site in await self.ask("sites")}:
            raise web.HTTPError(404, "there is no such site")


class Limits(_One):
    """What a site lets its user choose from."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Partitions with their limits, and accounts; nobody is asked to log in for that."""
        await self.check(name)
        self.reply(await self.ask("limits", site=name))


class Login(_One):
    """A connection to a site."""

    @web.authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Have one; what the login node asks goes to the open pages."""
        self.body(())
        await self.check(name)
        await self.ask("login", site=name)
        self.reply({})
