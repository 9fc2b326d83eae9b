"""The OpenAPI description of the REST interface, as it lies beside this module."""

from __future__ import annotations

from importlib import resources

from jupyter_server.auth.decorator import authorized
from tornado import web

from hpcnb.server.handler import Handler

__all__ = ["Description"]


class Description(Handler):
    """The description itself."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """YAML."""
        text = (resources.files("hpcnb.server") / "openapi.yaml").read_text(encoding="utf-8")
        self.finish(text, set_content_type="application/yaml")
