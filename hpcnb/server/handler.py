"""What the handlers share: who may ask, and how a refusal is told."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from jupyter_server.base.handlers import APIHandler
from tornado import web

from hpcnb.errors import ConfigError, HPCError, NoSuchQueue
from hpcnb.server.panels import Panels

__all__ = ["Handler"]


class Handler(APIHandler):
    """A handler whose errors are ours, as JSON: a wrong request is 400, what cannot be done now 409."""

    auth_resource = "hpcnb"

    @property
    def panels(self) -> Panels:
        panels: Panels = self.settings["hpcnb_panels"]
        return panels

    async def ask(self, call: str, /, **arguments: Any) -> Any:
        """Ask the agent something."""
        return await self.panels.agent.call(call, **arguments)

    def body(self, allowed: Collection[str]) -> dict[str, Any]:
        """The request's JSON object, which has no other keys than these."""
        try:
            found = json.loads(self.request.body or b"{}")
        except ValueError as exc:
            raise web.HTTPError(400, f"the body is not JSON: {exc}".replace("%", "%%")) from exc
        if not isinstance(found, dict) or (unknown := found.keys() - set(allowed)):
            what = f"has unknown keys: {sorted(unknown)}" if isinstance(found, dict) else "is not an object"
            allowed_keys = ", ".join(sorted(allowed)) or "none"
            raise web.HTTPError(400, f"the body {what}; allowed: {allowed_keys}".replace("%", "%%"))
        return found

    def number(self, key: str, default: int, most: int, least: int = 0) -> int:
        """A whole number of the query."""
        text = self.get_query_argument(key, str(default))
        if not re.fullmatch(r"-?[0-9]{1,15}", text, re.ASCII) or not least <= int(text) <= most:
            raise self.refuse(key, text, f"a whole number from {least} to {most}")
        return int(text)

    def refuse(self, key: str, found: Any, wanted: str) -> web.HTTPError:
        """The error for a value that is not allowed."""
        return web.HTTPError(400, f"{key} is {json.dumps(found)[:100]}; it must be {wanted}".replace("%", "%%"))

    def reply(self, value: Any, status: int = 200) -> None:
        self.set_status(status)
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        if not isinstance(error, HPCError):
            super().write_error(status_code, **kwargs)
            return
        self.set_header("Content-Type", "application/json")
        self.reply({"message": str(error), "error": error.to_json()}, _status(error))

    def log_exception(self, *exception: Any) -> None:
        if not isinstance(exception[1], HPCError):  # those are told to who asked
            super().log_exception(*exception)


def _status(error: HPCError) -> int:
    kinds = {ConfigError: 400, NoSuchQueue: 404}
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), 409)
