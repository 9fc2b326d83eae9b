"""Where a client reaches the queues of a site: in this process where the site is this machine, else through the agent."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from hpcnb import config, handle
from hpcnb.agent import places
from hpcnb.errors import error_from_json
from hpcnb.pilot.queue import desk
from hpcnb.pilot.queue.inbox import new_name
from hpcnb.pilot.queue.place import home


class Desk(Protocol):
    """Does something with the queues of one site; see `hpcnb.pilot.queue.desk`."""

    site: str
    root: Path | None
    """Our folder at the site, where that is this machine."""

    def __call__(self, call: str, lines: Iterable[str] = (), /, **arguments: Any) -> Any: ...


class Here:
    """The desk of a site that is this machine."""

    def __init__(self, site: str, root: Path) -> None:
        self.site = site
        self.root: Path | None = root

    def __call__(self, call: str, lines: Iterable[str] = (), /, **arguments: Any) -> Any:
        return desk.serve(self.root or home(), call, lines, arguments)


class There:
    """The desk of a site that the agent reaches."""

    root: Path | None = None

    def __init__(self, site: str) -> None:
        self.site = site

    def __call__(self, call: str, lines: Iterable[str] = (), /, **arguments: Any) -> Any:
        spec = handle.spec_for(self.site).to_json()
        # By a file: a million tasks are too much for one message, and are not sent before all of them are there.
        with tempfile.NamedTemporaryFile("w", dir=places.runtime(), encoding="utf-8", errors="surrogateescape") as file:
            file.write(json.dumps([call, arguments]) + "\n")
            file.writelines(lines)
            file.flush()
            answer = handle.run(handle.agent().call("queue", site=self.site, spec=spec, request=file.name))
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer["value"]


def desk_of(site: str) -> Desk:
    """The desk of a site, of the default site when no name is given."""
    entry = config.load().site(site)
    if entry.host:
        return There(entry.name)
    return Here(entry.name, Path(os.path.expandvars(entry.home)).expanduser() if entry.home else home())


class Asking:
    """Asks the owner of one queue, wherever that is.

    Parameters
    ----------
    desk : Desk
    name : str
    """

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk = desk
        self.name = name

    def ask(self, op: str, lines: Iterable[str] = (), /, **arguments: Any) -> Any:
        """Have a request carried out, once, and return what was answered."""
        return self.desk("ask", lines, name=self.name, op=op, request=new_name(), arguments=arguments)
