"""Dask's dashboards for a browser on this machine: a server on the loopback whose links are capabilities."""

from __future__ import annotations

import asyncio
import hmac
import html
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado import httpclient, httpserver, httputil, netutil, simple_httpclient, web, websocket

from hpcnb.agent import places
from hpcnb.model import ClusterStatus

__all__ = ["Dashboards", "Forward"]

log = logging.getLogger(__name__)

LARGEST = 100 << 20
"""Bytes of one answer or message."""
PATIENCE = 120.0
"""Seconds that a page may take: the first one imports bokeh, perhaps from a slow file system."""
LOOPBACK = ("127.0.0.1", "localhost")
HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "date", "server"}
"""Headers that belong to one connection, in lower case."""
OURS = HOP | {"host", "origin", "cookie", "authorization", "referer"}
"""Those of a request that go no further."""


class _OneSocket(netutil.Resolver):
    """Every name leads to one unix socket."""

    def initialize(self, path: Path) -> None:
        self._path = path

    async def resolve(self, host: str, port: int, family: Any = socket.AF_UNSPEC) -> list[tuple[int, Any]]:
        return [(socket.AF_UNIX, str(self._path))]


class Forward(websocket.WebSocketHandler):
    """Passes GET and websockets on to what serves pages at a unix socket; whoever derives from it decides who may `get`."""

    where: Path
    """The socket."""
    inner = "/"
    """The path there."""
    outer = ""
    """What stands before the path here."""
    _offered: Sequence[str] = ()
    _upstream: websocket.WebSocketClientConnection | None = None
    _pump: asyncio.Task[None] | None = None

    async def get(self, *args: Any, **kwargs: Any) -> None:
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            await super().get(*args, **kwargs)
        else:
            await self.forward()

    def _asked(self, scheme: str) -> httpclient.HTTPRequest:
        headers = httputil.HTTPHeaders()
        for name, value in self.request.headers.get_all():
            # Neither the secrets that the browser has for this host nor what only this connection means.
            if name.lower() not in OURS and not name.lower().startswith("sec-websocket"):
                headers.add(name, value)
        kept = "&".join(part for part in self.request.query.split("&") if not part.startswith("token="))
        query = f"?{kept}" if kept else ""
        return httpclient.HTTPRequest(
            f"{scheme}://localhost{self.inner}{query}",
            method=self.request.method or "GET",
            headers=headers,
            follow_redirects=False,
            decompress_response=False,
            connect_timeout=PATIENCE,
            request_timeout=PATIENCE,
        )

    async def forward(self) -> None:
        """Answer with the page that is there."""
        client = simple_httpclient.SimpleAsyncHTTPClient(
            force_instance=True, resolver=_OneSocket(path=self.where), max_body_size=LARGEST
        )
        try:
            answer = await client.fetch(self._asked("http"), raise_error=False)
        finally:
            client.close()
        self.clear()
        self.clear_header("Content-Type")
        self.set_status(answer.code, answer.reason)
        for name, value in answer.headers.get_all():
            if name.lower() not in HOP:
                here = name.lower() == "location" and value.startswith("/")
                self.add_header(name, f"{self.outer}{value}" if here else value)
        self.protect()
        if answer.code != 304:
            self.write(answer.body or b"")
        await self.finish()

    def protect(self) -> None:
        """Let no other site learn our address."""
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")

    # -- websockets ----------------------------------------------------------------------------------------------------

    @property
    def max_message_size(self) -> int:
        return LARGEST

    def check_origin(self, origin: str) -> bool:
        return urlsplit(origin).netloc == self.request.host

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        # Bokeh offers its name and a token in this place, and its server takes the name.
        self._offered = subprotocols
        return subprotocols[0] if subprotocols else None

    async def open(self, *args: str, **kwargs: str) -> None:
        try:
            self._upstream = await websocket.websocket_connect(
                self._asked("ws"),
                subprotocols=list(self._offered),
                resolver=_OneSocket(path=self.where),
                max_message_size=LARGEST,
            )
        except (OSError, httpclient.HTTPClientError) as exc:
            log.info("a websocket of a dashboard cannot be had: %r", exc)
            self.close()
            return
        if self.ws_connection is None:  # the browser has left meanwhile
            self._upstream.close()
            return
        self._pump = asyncio.create_task(self._pass_back(self._upstream))

    async def _pass_back(self, upstream: websocket.WebSocketClientConnection) -> None:
        try:
            while (message := await upstream.read_message()) is not None:
                await self.write_message(message, binary=isinstance(message, bytes))
        except websocket.WebSocketClosedError:
            pass  # the browser has left
        finally:
            self.close()

    async def on_message(self, message: str | bytes) -> None:
        if self._upstream:
            await self._upstream.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        if self._upstream:
            self._upstream.close()
        if self._pump:
            self._pump.cancel()


class _Page(Forward):
    """One request of a browser: whose link it has, and whether it comes from where it may."""

    def initialize(self, dashboards: Dashboards) -> None:
        self._dashboards = dashboards

    async def prepare(self) -> None:
        token, _, path = self.request.path.lstrip("/").partition("/")
        cluster = self._dashboards.cluster_of(token)
        origin = self.request.headers.get("Origin")
        # A page of another site that has this address under a name of its own (DNS rebinding) has another host.
        strange = urlsplit(f"//{self.request.host}").hostname not in LOOPBACK
        if cluster is None or strange or (origin is not None and not self.check_origin(origin)):
            raise web.HTTPError(403)
        self.inner, self.outer = f"/{path}", f"/{token}"
        self.where = places.stream_socket(cluster, "dashboard")
        if not path:
            self.redirect(f"/{token}/status")
        elif not self.where.exists():
            self._say(503, self._dashboards.why(cluster))

    async def forward(self) -> None:
        try:
            await super().forward()
        except (OSError, httpclient.HTTPClientError) as exc:
            log.info("a dashboard cannot be had: %r", exc)
            self._say(502, "the cluster does not answer")

    def _say(self, code: int, why: str) -> None:
        self.clear()
        self.set_status(code)
        self.set_header("Refresh", "5")
        self.protect()
        self.finish(
            f"<!doctype html><title>no dashboard yet</title><p>There is no dashboard yet: {html.escape(why)}.</p>"
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish(f"{status_code}: {self._reason}\n")


class Dashboards:
    """The server, from the first link that is asked for.

    Parameters
    ----------
    why : callable
        Says of a cluster's id why there is no dashboard yet.
    """

    def __init__(self, why: Callable[[str], str]) -> None:
        self.why = why
        self._tokens: dict[str, str] = {}  # of each cluster
        self._server: httpserver.HTTPServer | None = None
        self._port = 0

    def link(self, status: ClusterStatus) -> str:
        """The address of a cluster's dashboard: who knows it may see it, and nobody else of this machine."""
        if self._server is None:
            self._listen()
        # dask-labextension takes a link for one of itself when "/proxy" is in it, and drops the path of others.
        token = self._tokens.setdefault(status.id, f"proxy-{secrets.token_urlsafe(32)}")
        return f"http://127.0.0.1:{self._port}/{token}/status"

    def _listen(self) -> None:
        # Tornado would log the path of what it refuses: a capability.
        application = web.Application([(".*", _Page, {"dashboards": self})], log_function=lambda handler: None)
        sockets = netutil.bind_sockets(0, "127.0.0.1")
        self._server = httpserver.HTTPServer(application)
        self._server.add_sockets(sockets)
        self._port = sockets[0].getsockname()[1]

    def cluster_of(self, token: str) -> str | None:
        """Whose link that is; each is compared in full, so that the time tells nothing."""
        given = token.encode()
        found = [cluster for cluster, known in self._tokens.items() if hmac.compare_digest(known.encode(), given)]
        return found[0] if found else None

    def forget(self, cluster: str) -> None:
        self._tokens.pop(cluster, None)

    async def close(self) -> None:
        """Listen no more, and end what is open."""
        if self._server:
            self._server.stop()
            await self._server.close_all_connections()
