"""The allocation's end of the link: where the agent joins, and the streams that it may open."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable

from hpcnb.link import Link, LinkRefused, Stream, splice
from hpcnb.pilot.run import Run

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that an opener waits for a service of ours that is still starting."""

Talk = Callable[[Stream], Awaitable[None]]


class Gateway:
    """Listens on the first node and serves the streams of the link.

    Parameters
    ----------
    run : Run
    host : str
        The address to listen on; the port is the kernel's choice.
    control : callable
        Serves a stream named ``control``.

    Notes
    -----
    Two things are asked of who joins: a certificate of this cluster's authority (TLS 1.3, both ways) and the
    link's secret. Streams lead to services of this cluster by name, never to an address that the other side chose.
    """

    def __init__(self, run: Run, host: str, *, control: Talk) -> None:
        self._run = run
        self._host = host
        self._control = control
        self._link = Link(run.id, run.secret, initiator=False, on_stream=self._serve)
        self._server: asyncio.Server | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; return the address."""
        self._server = await asyncio.start_server(self._join, self._host, 0, ssl=self._tls())
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._run.file("tls/ca.pem"))
        context.load_cert_chain(self._run.file("tls/gateway.pem"), self._run.file("tls/gateway.key"))
        return context

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._link.attach(reader, writer)
        except (LinkRefused, OSError) as exc:
            log.warning("a joiner was refused: %s", exc)

    async def _serve(self, name: str, stream: Stream) -> None:
        if name == "control":
            await self._control(stream)
            return
        await splice(stream, *await self._connect(name))

    async def _connect(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        files = {"scheduler": "scheduler.json", "session": "sessions.json"}
        if name not in files:
            raise LinkRefused(f"there is no stream {name!r}")
        try:
            async with asyncio.timeout(PATIENCE):
                address = await self._published(files[name])
        except TimeoutError as exc:
            raise LinkRefused(f"the {name} service did not start within {PATIENCE:.0f} s") from exc
        host, port = address.removeprefix("tls://").rsplit(":", 1)
        return await asyncio.open_connection(host.strip("[]"), int(port))

    async def _published(self, file: str) -> str:
        while True:
            try:
                return str(json.loads(self._run.file(file).read_text())["address"])
            except (FileNotFoundError, json.JSONDecodeError):
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Stop listening and end every stream."""
        if self._server:
            self._server.close()
        await self._link.close()
