"""Jupyter's channels on this machine: sockets that only their user can open, as a front end expects them of a kernel."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.session import DELIM, Session

__all__ = ["Channels", "Parts"]

CHANNELS = {"shell": zmq.ROUTER, "iopub": zmq.PUB, "stdin": zmq.ROUTER, "hb": zmq.ROUTER, "control": zmq.ROUTER}
REMEMBERED = 10_000
"""Requests whose sender is known still."""

log = logging.getLogger(__name__)

Parts = Sequence[bytes]
"""A message as it travels: header, parent's header, metadata and content, each JSON, and buffers."""
Take = Callable[[str, dict[str, Any], Parts], Awaitable[None]]


class Channels:
    """The five sockets of one kernel; make and use it on one loop.

    Parameters
    ----------
    key : bytes
        Signs the messages.
    take : callable
        Is given what front ends send: the channel, the header and the parts. While it waits nothing else is read from that channel.
    """

    def __init__(self, key: bytes, take: Take) -> None:
        self._wire = Session(key=key)
        self._take = take
        self._directory = Path(tempfile.mkdtemp(prefix="hpcnb-", dir="/tmp"))  # short, and 0700
        self._senders: OrderedDict[str, list[bytes]] = OrderedDict()
        self._context = zmq.asyncio.Context()
        self._sockets: dict[str, zmq.asyncio.Socket] = {}
        self._reading: list[asyncio.Task[None]] = []

    @property
    def connection(self) -> dict[str, Any]:
        """What a front end has to know, as in Jupyter's connection file."""
        ports = {f"{name}_port": number for number, name in enumerate(CHANNELS, 1)}
        signed = {"key": self._wire.key, "signature_scheme": self._wire.signature_scheme}
        return {"transport": "ipc", "ip": str(self._directory / "k"), **ports, **signed}

    async def open(self) -> None:
        """Listen, or listen anew: Jupyter removes the sockets' names whenever it restarts a kernel."""
        await self._hang_up()
        for number, (name, kind) in enumerate(CHANNELS.items(), 1):
            socket = self._sockets[name] = self._context.socket(kind)
            socket.linger = 1000
            socket.sndhwm = 0  # what was said during a cut comes all at once, and must not be dropped here
            if kind == zmq.ROUTER:
                socket.router_handover = 1
                self._reading.append(asyncio.ensure_future(self._echo() if name == "hb" else self._read(name)))
            socket.bind(f"ipc://{self._directory}/k-{number}")

    async def _echo(self) -> None:
        socket = self._sockets["hb"]
        while True:
            await socket.send_multipart(await socket.recv_multipart())

    async def _read(self, channel: str) -> None:
        socket = self._sockets[channel]
        while True:
            frames: list[bytes] = await socket.recv_multipart()
            sender, (signature, *parts) = _split(frames)
            if len(parts) < 4 or not hmac.compare_digest(signature, self._wire.sign(parts[:4])):
                continue  # not of the one who knows the key
            try:
                header = json.loads(parts[0])
                self._senders[header["msg_id"]] = sender
                if len(self._senders) > REMEMBERED:
                    self._senders.popitem(last=False)
                await self._take(channel, header, parts)
            except (
                AttributeError,
                KeyError,
                TypeError,
                ValueError,
            ):  # a front end's fault, which others need not suffer
                log.exception("a message on the %s channel was not understood", channel)

    def send(self, channel: str, parts: Parts) -> None:
        """Send a message to whom it answers, or on the channel that all hear."""
        if channel == "iopub":
            to: list[bytes] | None = [json.loads(parts[0])["msg_type"].encode()]
        else:
            to = self._senders.get(json.loads(parts[1]).get("msg_id", ""))
        if to is not None and channel in self._sockets:
            frames = [*to, DELIM, self._wire.sign(list(parts[:4])), *parts]
            sent: Any = self._sockets[channel].send_multipart(frames)
            sent.add_done_callback(lambda done: done.cancelled() or done.exception())

    def say(self, channel: str, kind: str, content: dict[str, Any], parent: dict[str, Any]) -> None:
        """Send a message of our own about a request, given by its header."""
        made = self._wire.msg(kind, content)
        self.send(channel, [self._wire.pack(value) for value in (made["header"], parent, made["metadata"], content)])

    async def _hang_up(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        self._reading.clear()
        for socket in self._sockets.values():
            socket.close()
        self._sockets.clear()

    async def close(self) -> None:
        """Listen no more."""
        await self._hang_up()
        await asyncio.to_thread(self._context.term)  # it sends what is on its way
        shutil.rmtree(self._directory, ignore_errors=True)


def _split(frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Who sent a message, and its signature and parts."""
    at = frames.index(DELIM) if DELIM in frames else len(frames)
    return frames[:at], frames[at + 1 :] or [b""]
