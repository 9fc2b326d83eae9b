r"""The websocket by which a page hears of its user's clusters, and answers questions.

Messages, a JSON object each::

    ← {"type": "clusters", "clusters": […]}              first of all, and again after the agent was away
    ← {"type": "cluster", "cluster": {…}}                a new status
    ← {"type": "question", "number": 3, "kind": "secret", "title": …, "text": …}
    → {"type": "answer", "number": 3, "text": …}         text null: the user would not answer
    ← {"type": "answered", "number": 3}                  here or on another page
    ← {"type": "notice", "title": …, "text": …}          what somebody waits for
    ← {"type": "error", "message": …}                    the agent cannot be asked
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import ensure_async
from tornado import web, websocket

from hpcnb.errors import HPCError
from hpcnb.server.panels import Panels

__all__ = ["News"]

PACE = 0.25
"""Seconds between two messages about the same cluster; what is older by then is left out."""
RATE = 80
"""Messages in a second, however many clusters there are."""


class Outbox:
    """What a page has still to be told: of each subject only the last, so that a page that reads slowly costs no memory."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, Any]] = {}
        self._news = asyncio.Event()

    def put(self, subject: str, message: dict[str, Any]) -> None:
        """Tell it soon; what was to be told of the same subject is left out."""
        self._waiting[subject] = message
        self._news.set()

    async def tell(self, write: Callable[[str], Awaitable[Any]]) -> None:
        """Write what is new, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            waiting, self._waiting = self._waiting, {}
            for message in waiting.values():
                await write(json.dumps(message))
            await asyncio.sleep(max(PACE, len(waiting) / RATE))


class News(WebSocketMixin, websocket.WebSocketHandler, JupyterHandler):
    """One page."""

    auth_resource = "hpcnb"

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        user = self.current_user
        if not await ensure_async(self.authorizer.is_authorized(self, user, "execute", self.auth_resource)):
            raise web.HTTPError(403)
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        super().open(*args, **kwargs)
        panels: Panels = self.settings["hpcnb_panels"]
        self._panels = panels
        self._outbox = Outbox()
        self._leave: Callable[[], None] = panels.join(self._outbox.put)
        self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            await self.write_message(json.dumps(await self._all()))
            await self._outbox.tell(self.write_message)
        except websocket.WebSocketClosedError:
            pass  # `on_close` follows

    async def _all(self) -> dict[str, Any]:
        try:
            return {"type": "clusters", "clusters": await self._panels.agent.call("list")}
        except HPCError as exc:
            return {"type": "error", "message": str(exc)}

    def on_message(self, message: str | bytes) -> None:
        said = json.loads(message)
        match said:
            case {"type": "answer", "number": int(number), "text": str() | None as text}:
                self._panels.answer(number, text)
            case _:
                self.close(1003, "not understood")

    def on_close(self) -> None:
        self._leave()
        self._sending.cancel()
