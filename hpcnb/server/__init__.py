"""The Jupyter server's half: the clusters of its user over REST and one websocket."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from hpcnb.server.app import HPCApp

    return [{"module": "hpcnb.server", "app": HPCApp}]
