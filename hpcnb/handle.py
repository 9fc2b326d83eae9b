"""One cluster as a client sees it, without Dask: its status as it changes, waiting for it, ending it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcnb import config
from hpcnb.agent.client import AgentClient, nobody_to_ask
from hpcnb.agent.loop import background
from hpcnb.errors import HPCError, NotReady, error_from_json
from hpcnb.model import ClusterSpec, ClusterStatus, State
from hpcnb.notebook_name import notebook_name
from hpcnb.site.environment import versions
from hpcnb.site.shell import Ask, Prompt
from hpcnb.views.logs import LEVELS, Line, lines_text

Heard = Callable[[ClusterStatus], None]

_asker: Ask | None = None
_otherwise: Ask = nobody_to_ask
_agent: AgentClient | None = None
_lock = threading.Lock()


def ask_with(asker: Ask) -> None:
    """Say how this process puts questions (a password, an unknown host key) to its user."""
    global _asker
    _asker = asker


def shown_by(asker: Ask) -> None:
    """Say who puts questions as long as nobody is named by `ask_with`."""
    global _otherwise
    _otherwise = asker


async def _ask(prompt: Prompt) -> str:
    return await (_asker or _otherwise)(prompt)


def agent() -> AgentClient:
    """This process's connection to the agent; use it on the background loop."""
    global _agent
    with _lock:
        if _agent is None:
            _agent = AgentClient(_ask)
        return _agent


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a client shows and believes: PEM texts. Masked in `repr`."""

    authority: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Credentials(…)"


class Handle:
    """A cluster, by its id.

    Parameters
    ----------
    status : ClusterStatus
        As last heard; kept up to date from then on.
    """

    def __init__(self, status: ClusterStatus) -> None:
        self.status = status
        self.id = status.id
        self._changed = asyncio.Event()
        self._heard: list[Heard] = []
        self._awaited = 0
        self._counting = threading.Lock()
        self._asked = False
        # Weakly: a handle is made for each line of a listing, and none says when it is no longer needed.
        this = weakref.WeakMethod(self._hear)
        self._stop = agent().listen(self.id, lambda status: (hear := this()) and hear(status))
        weakref.finalize(self, self._stop)

    @classmethod
    def new(cls, spec: ClusterSpec) -> Handle:
        """A cluster that is about to be asked for (`request`)."""
        return cls(ClusterStatus(id=secrets.token_hex(8), spec=spec, state=State.REQUESTED))

    def _hear(self, status: ClusterStatus) -> None:
        self.status = status
        self._changed.set()
        for heard in self._heard:
            heard(status)
        self._see_to_login()

    def on_change(self, heard: Heard) -> None:
        """Call `heard`, on the background loop, with every new status."""
        self._heard.append(heard)

    async def request(self) -> None:
        """Ask for the cluster; returns when its job is submitted.

        Raises
        ------
        HPCError
            It was refused, and nothing was submitted.
        """
        await self._call("create", spec=self.status.spec.to_json())
        await self.refresh()

    async def refresh(self) -> None:
        """Ask for the status, for when a change may have been missed.

        Raises
        ------
        NotReady
            The agent knows no such cluster.
        """
        for found in await agent().call("list"):
            if found["id"] == self.id:
                self._hear(ClusterStatus.from_json(found))
                return
        raise NotReady(
            f"cluster {self.status.spec.name!r} is not known any more",
            where=f"site {self.status.spec.site}",
            remedy="`%hpc` lists those that are.",
        )

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """While somebody waits here, he is asked for whatever a lost connection needs to be made again."""
        with self._counting:
            self._awaited += 1
        if self.status.notices:  # to wake the loop costs as much as a short call
            background().asyncio_loop.call_soon_threadsafe(self._see_to_login)
        try:
            yield
        finally:
            with self._counting:
                self._awaited -= 1

    def _see_to_login(self) -> None:
        if "login" not in self.status.notices:
            self._asked = False
        elif self._awaited and not self._asked:
            self._asked = True  # once: who answered wrong, or not at all, logs in when he wants to
            # Its failure is no news: the notice stays.
            background().start(login(self.status.spec.site)).add_done_callback(lambda done: done.exception())

    async def ready(self) -> None:
        """Wait until the cluster is ready, however long it takes.

        Raises
        ------
        HPCError
            It has ended instead, and why.
        """
        with self.awaited():
            await self.until_ready()

    async def until_ready(self) -> None:
        """Wait likewise where no user does, who could be asked for a password."""
        while self.status.state is not State.READY:
            if self.status.state is State.ENDED:
                raise self.error()
            self._changed.clear()
            # Now and then we ask ourselves: a change may have happened while the agent was being replaced.
            try:
                await asyncio.wait_for(self._changed.wait(), 5)
            except TimeoutError:
                await self.refresh()

    def error(self) -> HPCError:
        """Why it cannot be used."""
        if self.status.error:
            return error_from_json(self.status.error)
        return NotReady(
            f"cluster {self.status.spec.name!r} is {self.status.state}: {self.status.detail}",
            where=f"site {self.status.spec.site}",
            remedy="`%hpc up` starts another.",
        )

    async def dashboard(self) -> str:
        """The link to its dashboard, for a browser on this machine.

        In a hub's pod, whose loopback no browser reaches, it is a path of the pod's Jupyter server (`hpcnb.server`).
        """
        if prefix := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
            return f"{prefix}proxy/hpcnb/{self.id}/status"
        return str(await self._call("dashboard"))

    async def credentials(self) -> Credentials:
        """Join the users of the cluster; what is needed to connect to it."""
        given = await self._call("attach")
        return Credentials(authority=given["authority"], certificate=given["certificate"], key=given["key"])

    async def scale(self, nodes: int) -> None:
        """Have so many nodes."""
        await self._call("scale", nodes=nodes)

    async def keep(self) -> None:
        """Begin the idle time anew."""
        await self._call("keep")

    async def close(self) -> None:
        """End the cluster; returns when its jobs are gone."""
        await self._call("close")
        await self.refresh()

    async def logs(self, name: str = "", most: int = 65536) -> dict[str, str]:
        """The ends (at most so many bytes) of the logs whose name contains `name`."""
        found: dict[str, str] = await self._call("logs", name=name, most=most)
        return found

    async def log_text(self, target: str, last: int, *, level: str = "", **filters: str) -> str:
        """The last lines of each log whose name contains `target`, or else of that task (see `hpcnb.cluster.Cluster.logs`)."""
        if not (level or filters) and (ends := await self.logs(target or "job")):
            return "\n".join(f"── {log} ──\n" + "\n".join(text.splitlines()[-last:]) for log, text in ends.items())
        lines, _ = await self.lines(target, last, level=level, since=None, **filters)
        return lines_text(lines)

    async def lines(
        self, target: str, last: int, *, level: str = "", since: dict[str, int] | None = None, **filters: Any
    ) -> tuple[list[Line], dict[str, int]]:
        """The last lines that are wanted, and where to go on (see `hpcnb.pilot.output.search.Query`)."""
        asked = {"target": target, "last": last, "since": since, "level": LEVELS[level] if level else 0, **filters}
        found = await self.search("lines", **asked)
        return [Line(*line) for line in found.get("lines", ())], found.get("since", {})

    async def search(self, what: str, **question: Any) -> dict[str, Any]:
        """Look for something in its logs, all of them (see `hpcnb.pilot.output.search`); nothing where it has none."""
        found: dict[str, Any] = await self._call("search", question={"what": what, **question})
        return found

    async def printed(self, key: str, member: int | None = None) -> list[dict[str, Any]]:
        """All that a task has printed, by attempts (see `hpcnb.pilot.output.search.task`)."""
        runs: list[dict[str, Any]] = []
        skip: int | None = 0
        while skip is not None:
            found = await self.search("task", key=key, member=member, skip=skip)
            more = found.get("runs", [])
            runs = [{**old, "text": old["text"] + new["text"]} for old, new in zip(runs, more, strict=False)] + more[
                len(runs) :
            ]
            skip = found.get("next")
        return runs

    def _call(self, call: str, /, **arguments: Any) -> Awaitable[Any]:
        return agent().call(call, id=self.id, **arguments)


async def login(site: str = "") -> None:
    """Have a connection to a site, by default the default one; whatever it asks, the user is asked.

    Raises
    ------
    SiteError
        It cannot be reached, or would not let the user in.
    """
    await agent().call("login", site=site)


def spec_for(site: str = "", *, name: str = "", **wishes: Any) -> ClusterSpec:
    """What is asked for: the site's entry with the user's wishes on top.

    Raises
    ------
    ConfigError
        A wish or the configuration is wrong; the message says what is allowed.
    """
    entry = config.load().site(site)
    spec = config.cluster_spec(entry, name=name, directory="" if entry.host else os.getcwd(), **wishes)
    # The agent may run in another environment than the notebook, whose modules the workers need.
    spec = replace(spec, python=entry.python, client=versions(), notebook=notebook_name())
    return spec if entry.host else replace(spec, umask=_umask())


def _umask() -> int:
    # To ask the system call is to change it, for all threads.
    status = Path("/proc/self/status").read_text(errors="replace")  # the name in it may end in the middle of a letter
    found = re.search(r"^Umask:\s*([0-7]+)$", status, re.MULTILINE)
    return int(found[1], 8) if found else 0o077


async def handles(*, live: bool = True) -> list[Handle]:
    """The user's clusters, oldest first; `live` leaves out those that have ended."""
    found = [ClusterStatus.from_json(c) for c in await agent().call("list")]
    return [Handle(status) for status in found if not (live and status.state is State.ENDED)]


def run(work: Any, *, timeout: float | None = None) -> Any:
    """Run a coroutine of this module on the background loop and wait for it."""
    return background().run(work, timeout=timeout)
