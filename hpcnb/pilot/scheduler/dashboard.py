"""Dask's own dashboard on a unix socket of ours; it is imported when somebody asks for the first page."""

from __future__ import annotations

import asyncio
import html
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Awaitable
from typing import Any

import dask
from distributed.http.routing import RoutingApplication
from distributed.http.utils import get_handlers
from distributed.scheduler import Scheduler
from distributed.versions import BOKEH_REQUIREMENT
from tornado import httputil, web
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_unix_socket

from hpcnb.link.peer import peer_uid
from hpcnb.pilot.run import Run

__all__ = ["Dashboard", "serve_pages"]

log = logging.getLogger(__name__)

PAGES = [f"distributed.http.{name}" for name in ("scheduler.info", "scheduler.json", "health", "statics")]
"""Beside bokeh's own. Not Dask's proxy to other hosts: what serves the user must lead nowhere else."""


def serve_pages(scheduler: Scheduler) -> None:
    """Serve a scheduler's dashboard where its node has said (`hpcnb.pilot.children.scheduler_child`), and publish that."""
    folder = dask.config.get("hpcnb.dashboard", None)
    if folder is None:
        return
    path = f"{folder}/dashboard"
    try:
        Dashboard(scheduler).listen(path)
    except OSError as exc:  # its name is too long, say: a cluster without a dashboard is a cluster
        log.warning("there is no dashboard: %s: %s", path, exc)
        return
    Run.load(dask.config.get("hpcnb.run")).publish("dashboard.json", {"address": path})


class Dashboard(httputil.HTTPServerConnectionDelegate):
    """Serves the pages of a scheduler.

    Notes
    -----
    Dask's own server is on a TCP port, which every user of the node can reach, without a question. A socket's file is
    the user's alone. Importing bokeh takes seconds of CPU, and more from a parallel file system: nobody waits for that
    who does not look.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._making: asyncio.Task[web.Application] | None = None

    def listen(self, path: str) -> None:
        """Serve on a unix socket, 0600.

        Raises
        ------
        OSError
            There cannot be one.
        """
        self._server = _Server(self)
        self._server.add_socket(bind_unix_socket(path, mode=0o600))

    async def close(self) -> None:
        """Listen no more, and end what is open."""
        self._server.stop()
        await self._server.close_all_connections()

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        return _Request(self, server_conn, request_conn)

    async def application(self) -> web.Application:
        """What serves; made when first asked for, and anew as long as something is missing for it."""
        if self._making is None:
            self._making = asyncio.create_task(self._make())
        making = self._making
        try:
            return await asyncio.shield(making)
        except ImportError as exc:
            if self._making is making:
                self._making = None  # it may be installed while the cluster runs
            return web.Application([(".*", _Missing, {"why": exc})])

    async def _make(self) -> web.Application:
        importlib.invalidate_caches()
        # In a thread: the scheduler has other things to do meanwhile.
        bokeh = await asyncio.to_thread(importlib.import_module, "distributed.dashboard.scheduler")
        made: Any = RoutingApplication(get_handlers(server=self._scheduler, modules=PAGES))
        self._scheduler.http_application = made  # some pages look there for the others
        bokeh.connect(made, self._server, self._scheduler)
        log.info("the dashboard was asked for, and is there")
        application: web.Application = made
        return application


class _Server(HTTPServer):
    """Turns away whoever is not the cluster's own user, should the file's mode not have done so."""

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        if peer_uid(stream.socket) == os.getuid():
            super().handle_stream(stream, address)
        else:
            stream.close()


class _Request(httputil.HTTPMessageDelegate):
    """One request, which waits until there is something to serve it."""

    def __init__(self, dashboard: Dashboard, server_conn: object, request_conn: httputil.HTTPConnection) -> None:
        self._dashboard = dashboard
        self._connections = server_conn, request_conn
        self._inner: httputil.HTTPMessageDelegate | None = None

    async def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> None:
        application = await self._dashboard.application()
        self._inner = application.start_request(*self._connections)
        if waits := self._inner.headers_received(start_line, headers):
            await waits

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk) if self._inner else None

    def finish(self) -> None:
        if self._inner:
            self._inner.finish()

    def on_connection_close(self) -> None:
        if self._inner:
            self._inner.on_connection_close()


class _Missing(web.RequestHandler):
    """The page that says what is missing, and how to get it."""

    def initialize(self, why: ImportError) -> None:
        self._why = why

    def get(self) -> None:
        self.set_status(501)
        command = f"{shlex.quote(sys.executable)} -m pip install '{BOKEH_REQUIREMENT}'"
        self.finish(
            "<!doctype html><title>no dashboard</title><p>Dask's dashboard needs bokeh at the site: "
            f"{html.escape(str(self._why))}.</p><p>There, run</p><pre>{html.escape(command)}</pre>"
            "<p>and load this page again; the cluster need not be started anew.</p>"
        )
