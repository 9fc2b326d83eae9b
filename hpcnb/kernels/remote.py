"""The kernel in the allocation, seen from here: what is sent arrives once and in order, and so does what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hpcnb.errors import TaskLost, Unreachable
from hpcnb.kernels.sockets import Parts
from hpcnb.pilot.rpc import Peer

__all__ = ["RemoteKernel"]

POLL = 30.0
"""Seconds that the host keeps a question for messages before it answers that there are none."""
ANSWER = 4 << 20
"""Bytes of messages in one answer, and in one request."""
WAITING = 1000
"""Messages that may wait to be sent; beyond that the front end waits."""
PAUSES = 0.1, 5.0
"""Seconds between two attempts to reach the host: at first, and at last."""


class RemoteKernel:
    """One kernel, from its start to its end.

    Parameters
    ----------
    name : str
        Another name is another kernel; the one before is ended.
    peer : Peer
        The session host.
    hear : callable
        Is given what it says: the channel and the message's parts.
    """

    def __init__(self, name: str, peer: Peer, hear: Callable[[str, Parts], None]) -> None:
        self._name = name
        self._peer = peer
        self._hear = hear
        self._outbox: asyncio.Queue[tuple[str, Parts]] = asyncio.Queue(WAITING)

    async def post(self, channel: str, parts: Parts) -> None:
        """Send it a message."""
        await self._outbox.put((channel, parts))

    async def run(self, started: Callable[[], None]) -> tuple[int, TaskLost]:
        """Start it, and carry messages until it has ended: its exit code, and what there is to say about it."""
        try:
            await self._insist("kernel")
            started()
            sending = asyncio.ensure_future(self._send())
            listening = asyncio.ensure_future(self._listen())
            try:
                await asyncio.wait([sending, listening], return_when=asyncio.FIRST_COMPLETED)
                return await (listening if listening.done() else sending)
            finally:
                sending.cancel()
                listening.cancel()
        finally:
            await self._peer.close()

    async def _send(self) -> Any:
        number = 1
        while True:
            batch = [await self._outbox.get()]
            size = sum(map(len, batch[0][1]))
            while size < ANSWER and not self._outbox.empty():
                batch.append(self._outbox.get_nowait())
                size += sum(map(len, batch[-1][1]))
            await self._insist("kernel_post", number=number, messages=[(name, list(parts)) for name, parts in batch])
            number += len(batch)

    async def _listen(self) -> tuple[int, TaskLost]:
        seen = 0
        while True:
            answer = await self._insist("kernel_messages", since=seen, wait=POLL, max_bytes=ANSWER)
            for channel, parts in answer["messages"]:
                self._hear(channel, [bytes(part) for part in parts])
            seen += len(answer["messages"])
            if answer["ended"]:
                what, _, evidence = answer["ended"].partition("\n")
                return answer["code"], TaskLost(what, evidence=evidence, remedy="Its variables are gone; restart it.")

    async def _insist(self, call: str, **request: Any) -> dict[str, Any]:
        """Ask the host until it answers, for the path to it comes back; the cluster's end is heard of elsewhere."""
        pause, longest = PAUSES
        while True:
            try:
                return await self._peer.call(call, kernel=self._name, **request)
            except Unreachable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
