"""Dask's dashboards below the Jupyter server's base URL, behind its own authentication."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import httpclient, web

from hpcnb.agent import places
from hpcnb.agent.dashboard import Forward

__all__ = ["Dashboard"]


class Dashboard(WebSocketMixin, Forward, JupyterHandler):
    """A page of a cluster's dashboard, or the websocket by which it lives."""

    auth_resource = "hpcnb"

    @web.authenticated
    @authorized
    async def get(self, id: str, path: str) -> None:  # type: ignore[override]  # of what decorates it
        """Pass it on through the link."""
        base = self.settings["base_url"].rstrip("/")
        self.inner, self.outer = f"/{path}", f"{base}/proxy/hpcnb/{id}"
        self.where = places.stream_socket(id, "dashboard")
        if not self.where.exists():
            raise web.HTTPError(503, "this cluster has no dashboard now: it is not ready yet, or it has ended")
        try:
            await super().get(id, path)
        except (OSError, httpclient.HTTPClientError) as exc:
            raise web.HTTPError(502, "the cluster does not answer") from exc

    def get_compression_options(self) -> dict[str, Any] | None:
        return None
