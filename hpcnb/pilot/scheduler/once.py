"""What a notebook's client says is heard once each, in order, over however many connections it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from inspect import iscoroutinefunction
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler

__all__ = ["HEARD", "HELLO", "ONCE", "Once"]

HELLO = "hpcnb-hello"
"""The first message over each connection of a client: who it is, the same over all of them."""
ONCE = "hpcnb-once"
"""A message with another one in it, and its number."""
HEARD = "hpcnb-heard"
"""The message to a client that says up to which number it was heard."""

PAUSE = 0.25
"""Seconds between two of those."""


class Speaker:
    """Who speaks, and what was heard of it.

    Attributes
    ----------
    turn : asyncio.Lock
        A message of a lost connection may still be carried out when it comes again over the next one.
    """

    def __init__(self) -> None:
        self.heard = 0
        self.turn = asyncio.Lock()


class Once(SchedulerPlugin):
    """Passes on what clients say with a number, as if it had come without one; what it has heard before it leaves out.

    A connection that breaks takes with it what was on its way, and nobody knows how much that was. So a client keeps what it says until it
    was heard, and says the rest again over its next connection.
    """

    name = "hpcnb-once"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler: Any = scheduler
        self._speakers: dict[str, Speaker] = {}
        self._clients: dict[str, Speaker] = {}
        self._telling: set[str] = set()
        said: dict[str, Any] = {HELLO: self._hello, ONCE: self._once}
        scheduler.stream_handlers.update(said)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        self._clients.pop(client, None)

    def _hello(self, who: str, client: str) -> None:
        self._clients[client] = self._speakers.setdefault(who, Speaker())

    async def _once(self, number: int, said: Mapping[str, Any], client: str) -> None:
        speaker = self._clients[client]
        async with speaker.turn:
            if number > speaker.heard:
                speaker.heard = number
                more = {**said, "client": client}  # what is said again may name the client that it was
                handler = self._scheduler.stream_handlers[more.pop("op")]
                # As Dask's own `handle_stream` does.
                if iscoroutinefunction(handler):
                    await handler(**more)
                else:
                    handler(**more)
        if client not in self._telling:
            self._telling.add(client)
            asyncio.get_running_loop().call_later(PAUSE, self._tell, client)

    def _tell(self, client: str) -> None:
        self._telling.discard(client)
        if speaker := self._clients.get(client):
            self._scheduler.report({"op": HEARD, "number": speaker.heard}, client=client)
