"""The extension of the Jupyter server: its routes, and its connection to the user's agent."""

from __future__ import annotations

from typing import Any

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.utils import url_path_join

from hpcnb.server.aside import Aside
from hpcnb.server.clusters import Cluster, Clusters, Keep, Log, Logs, Scale
from hpcnb.server.dashboard import Dashboard
from hpcnb.server.description import Description
from hpcnb.server.news import News
from hpcnb.server.panels import Panels
from hpcnb.server.queues import Launch, Pause, Queue, Queues, Retry, TaskLog, Tasks
from hpcnb.server.sites import Limits, Login, Sites

__all__ = ["HPCApp"]

CLUSTER = r"clusters/(?P<id>[0-9a-f]{16})"
QUEUE = r"queues/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})"
ROUTES: tuple[tuple[str, type[Any]], ...] = (
    ("openapi.yaml", Description),
    ("clusters", Clusters),
    (CLUSTER, Cluster),
    (f"{CLUSTER}/scale", Scale),
    (f"{CLUSTER}/keep", Keep),
    (f"{CLUSTER}/logs", Logs),
    (rf"{CLUSTER}/logs/(?P<name>.+)", Log),
    ("sites", Sites),
    (r"sites/(?P<name>[^/]+)/login", Login),
    (r"sites/(?P<name>[^/]+)/limits", Limits),
    ("queues", Queues),
    (QUEUE, Queue),
    (f"{QUEUE}/tasks", Tasks),
    (rf"{QUEUE}/tasks/(?P<id>[0-9]{{1,15}})/log", TaskLog),
    (rf"{QUEUE}/(?P<verb>pause|resume)", Pause),
    (f"{QUEUE}/retry", Retry),
    (f"{QUEUE}/launch", Launch),
    ("news", News),
)


class HPCApp(ExtensionApp):
    """Nothing of ours runs before somebody asks for it: an agent is started by the first panel or request."""

    name = "hpcnb"
    open_browser = False

    def initialize_settings(self) -> None:
        self.settings["hpcnb_panels"] = Panels()
        self.settings["hpcnb_aside"] = Aside()

    def initialize_handlers(self) -> None:
        self.handlers.extend((url_path_join("hpcnb", "api", route), handler) for route, handler in ROUTES)
        self.handlers.append((r"proxy/hpcnb/(?P<id>[0-9a-f]{16})/(?P<path>.*)", Dashboard))

    async def stop_extension(self) -> None:
        await self.settings["hpcnb_panels"].close()
