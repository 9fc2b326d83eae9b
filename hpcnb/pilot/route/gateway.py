"""The allocation's end of the link: where the agent joins, or is met, and the streams that it may open."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from hpcnb.link import Joint, Link, LinkRefused, LinkState, Stream, lost_once, secure, splice
from hpcnb.pilot.route import rendezvous
from hpcnb.pilot.run import Run

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that an opener waits for a service of ours that is still starting."""

LOOK = 1.0
"""Seconds between two looks, while there is no pipe, at whether the agent has left word where to meet it."""
HANDSHAKE = 20.0

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
        self._tls = self._context()
        self._met: set[Path] = set()
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}  # addresses, and which version of its file said so
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> tuple[str, int]:
        """Listen; return the address."""
        asyncio.get_running_loop().set_exception_handler(lost_once)
        self._server = await asyncio.start_server(self._join, self._host, 0)
        folder = self._run.file(rendezvous.FOLDER)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._begin(self._look(folder))
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    @property
    def joined(self) -> bool:
        """Whether an agent is connected."""
        return self._link.state in (LinkState.UP, LinkState.SUSPECT)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop itself would let it be collected
        task.add_done_callback(self._tasks.discard)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._run.file("tls/ca.pem"))
        context.load_cert_chain(self._run.file("tls/gateway.pem"), self._run.file("tls/gateway.key"))
        return context

    async def _look(self, folder: Path) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if self._link.state is LinkState.UP:
                continue
            try:
                found = set(await asyncio.to_thread(rendezvous.words, folder))
            except OSError as exc:  # a shared file system has its moments
                log.warning("cannot look into %s: %s", folder, exc)
                continue
            for word in found - self._met:
                self._begin(self._meet(word))
            self._met = found

    async def _meet(self, word: Path) -> None:
        """Let the agent join over a connection that we have made, as if it had come to us."""
        try:
            await self._join(*await asyncio.open_connection(sock=await rendezvous.meet(word)))
        except (OSError, ValueError, KeyError) as exc:
            log.warning("nobody met at %s: %r", word.name, exc)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE):
                reader, writer = await secure(reader, writer, self._tls, server_side=True)
            await self._link.attach(reader, writer)
        except (LinkRefused, OSError) as exc:
            log.warning("a joiner was refused: %s", exc)

    async def _serve(self, name: str, stream: Stream) -> None:
        if name == "control":
            await self._control(stream)
            return
        await splice(stream, partial(self._connect, name))

    async def _connect(self, name: str, protocol: Callable[[], Joint]) -> None:
        files = {"scheduler": "scheduler.json", "session": "sessions.json", "dashboard": "dashboard.json"}
        if name not in files:
            raise LinkRefused(f"there is no stream {name!r}")
        try:
            async with asyncio.timeout(PATIENCE):
                address = await self._published(self._run.file(files[name]))
        except TimeoutError as exc:
            raise LinkRefused(f"the {name} service did not start within {PATIENCE:.0f} s") from exc
        loop = asyncio.get_running_loop()
        if address.startswith("/"):
            await loop.create_unix_connection(protocol, address)
        else:
            host, port = address.removeprefix("tls://").rsplit(":", 1)
            await loop.create_connection(protocol, host.strip("[]"), int(port))

    async def _published(self, file: Path) -> str:
        while True:
            try:
                stat = file.stat()
                version = stat.st_mtime_ns, stat.st_ino, stat.st_size
                if self._known.get(file, ((), ""))[0] != version:
                    self._known[file] = version, str(json.loads(file.read_text())["address"])
                return self._known[file][1]
            except (FileNotFoundError, json.JSONDecodeError):
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Stop listening and end every stream."""
        if self._server:
            self._server.close()
        await self._link.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
