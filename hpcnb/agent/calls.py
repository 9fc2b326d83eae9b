"""What a client may ask of the agent: one method for each call, plain values in and out."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import asdict, replace
from typing import Any

import hpcnb
from hpcnb import config
from hpcnb.agent import queues, record
from hpcnb.agent.clusters import LiveCluster
from hpcnb.agent.dashboard import Dashboards
from hpcnb.agent.doctor import examine
from hpcnb.agent.record import ClusterRecord
from hpcnb.agent.sites import Site
from hpcnb.errors import AuthenticationFailed, ClusterError, ConfigError, NotReady
from hpcnb.model import ClusterSpec, ClusterStatus, State
from hpcnb.site.authority import Role
from hpcnb.site.shell import Ask, Prompt

log = logging.getLogger(__name__)

IDLE = 3600.0
"""Seconds without a client and without a live cluster after which the agent ends."""


def _ignore(part: Any) -> None:
    """Stand in for a callback that nobody gave."""


class Calls:
    """The agent's state and what can be asked of it.

    Parameters
    ----------
    changed : callable
        Called with every new status of any cluster.
    """

    def __init__(self, changed: Callable[[ClusterStatus], None]) -> None:
        self._changed = changed
        self._sites: dict[str, Site] = {}
        self._clusters: dict[str, LiveCluster] = {}
        self._orphans: dict[str, tuple[ClusterRecord, str]] = {}  # whose site is not to be found, and why
        self._attached: dict[object, set[str]] = {}
        self._last_use = time.monotonic()
        self._dashboards = Dashboards(lambda cluster: self._find(cluster).status.detail)
        self._tasks: set[asyncio.Task[None]] = set()
        self.ending = asyncio.Event()

    def in_parts(self, name: str) -> bool:
        """Whether a call is answered in parts; such a one changes nothing, and may be given up."""
        return inspect.isasyncgenfunction(getattr(self, f"call_{name}", None))

    async def call(
        self, name: str, arguments: dict[str, Any], *, client: object, ask: Ask, part: Callable[[Any], None] = _ignore
    ) -> Any:
        """Answer one call by name; `part` is told each part of an answer that comes in parts."""
        method = getattr(self, f"call_{name}", None)
        if method is None:
            raise ClusterError(f"the agent knows no call {name!r}", remedy="Restart it: `hpcnb agent stop`.")
        self._last_use = time.monotonic()
        if not self.in_parts(name):
            return await method(client=client, ask=ask, **arguments)
        async with contextlib.aclosing(method(client=client, ask=ask, **arguments)) as parts:
            async for one in parts:
                part(one)
        return None

    # -- the agent itself --------------------------------------------------------------------------------------

    async def call_hello(self, *, version: str, client: object, ask: Ask, uses: Sequence[str] = ()) -> dict[str, Any]:
        """Who we are; the client decides whether we are too old for it, and says what it `uses` since an earlier agent."""
        used = self._attached.setdefault(client, set())
        for id in self._clusters.keys() & set(uses) - used:
            used.add(id)
            self._later(self._count(id))
        live = sum(c.status.state is not State.ENDED for c in self._clusters.values())
        return {"version": hpcnb.__version__, "pid": os.getpid(), "clients": len(self._attached), "clusters": live}

    async def call_stop(self, *, client: object, ask: Ask) -> None:
        """End the agent; the clusters go on, and the next agent finds them again."""
        self.ending.set()

    # -- clusters ----------------------------------------------------------------------------------------------

    async def call_create(self, *, id: str, spec: dict[str, Any], client: object, ask: Ask) -> dict[str, Any]:
        """Ask for a cluster; answers once the job is submitted. Asking again with the same id is harmless."""
        if known := self._clusters.get(id):
            return self._shown(known.status).to_json()
        if not re.fullmatch(r"[0-9a-f]{16}", id):
            raise ClusterError(f"{id!r} is no id of a cluster")
        wanted = ClusterSpec.from_json(spec)
        for other in self._live():
            if other.status.spec.name == wanted.name:
                raise ClusterError(
                    f"a cluster named {wanted.name!r} is {other.status.state} already",
                    where=f"site {other.status.spec.site}",
                    remedy=f"Use it (`%hpc attach {wanted.name}`), end it (`%hpc down {wanted.name}`), or pass another --name.",
                )
        site = self._site(wanted.site)
        self._forget()
        cluster = self._clusters[id] = LiveCluster(record.new(id, wanted), site, self._on_status)
        self._attached.setdefault(client, set()).add(id)
        await cluster.request(ask)
        await self._count(id)
        return self._shown(cluster.status).to_json()

    async def call_list(self, *, client: object, ask: Ask) -> list[dict[str, Any]]:
        """Every cluster that is alive or ended lately, oldest first."""
        self._adopt()
        orphans = [replace(kept.status, detail=why) for kept, why in self._orphans.values()]
        return [status.to_json() for status in [*orphans, *(self._shown(c.status) for c in self._clusters.values())]]

    async def call_attach(self, *, id: str, client: object, ask: Ask) -> dict[str, Any]:
        """Count the client among those who use a cluster, and give it what it needs to connect."""
        cluster = self._find(id)
        await cluster.resume(ask)
        if cluster.status.state is State.ENDED:
            raise NotReady(f"cluster {cluster.status.spec.name!r} has ended: {cluster.status.detail}")
        self._attached.setdefault(client, set()).add(id)
        await self._count(id)
        identity = cluster.identity(Role.CLIENT)
        return {
            "authority": cluster.authority_certificate,
            "certificate": identity.certificate,
            "key": identity.key,
            "status": self._shown(cluster.status).to_json(),
        }

    async def call_scale(self, *, id: str, nodes: int, client: object, ask: Ask) -> None:
        """Have so many nodes."""
        cluster = self._find(id)
        await cluster.resume(ask)
        await cluster.scale(nodes)

    async def call_keep(self, *, id: str, client: object, ask: Ask) -> None:
        """Begin a cluster's idle time anew."""
        await self._find(id).keep()

    async def call_dashboard(self, *, id: str, client: object, ask: Ask) -> str:
        """The link to a cluster's dashboard, for a browser on this machine."""
        return self._dashboards.link(self._find(id).status)

    async def call_close(self, *, id: str, client: object, ask: Ask) -> dict[str, Any]:
        """End a cluster; answers when its jobs are gone."""
        cluster = self._find(id)
        await cluster.resume(ask)
        await cluster.close()
        return self._shown(cluster.status).to_json()

    async def call_logs(
        self, *, id: str, name: str = "", most: int = 65536, client: object, ask: Ask
    ) -> dict[str, str]:
        """The ends of a cluster's logs by name: all of them, or those whose name contains `name`."""
        return await self._find(id).logs(name, most, ask)

    async def call_log(self, *, id: str, name: str, offset: int, most: int, client: object, ask: Ask) -> dict[str, Any]:
        """A piece of one log (see `hpcnb.agent.remains.log_piece`); whoever follows it asks often, and is asked nothing."""
        return await self._find(id).log(name, offset, most, _nobody_to_ask)

    async def call_search(self, *, id: str, question: dict[str, Any], client: object, ask: Ask) -> dict[str, Any]:
        """Look for something in a cluster's logs (see `hpcnb.pilot.output.search`)."""
        return await self._find(id).search(question, ask)

    # -- queues --------------------------------------------------------------------------------------------------

    async def call_queue(
        self, *, site: str, spec: dict[str, Any], request: str, client: object, ask: Ask
    ) -> dict[str, Any]:
        """Have something done with a site's queues; the request lies in a file of this machine."""
        return await queues.ask(self._site(site), ClusterSpec.from_json(spec), request, ask)

    async def call_launch(
        self,
        *,
        site: str,
        spec: dict[str, Any],
        queue: str,
        tokens: Sequence[str],
        work: dict[str, str],
        queued: int,
        client: object,
        ask: Ask,
    ) -> list[str]:
        """Submit jobs that drain a queue."""
        return await queues.launch(
            self._site(site), ClusterSpec.from_json(spec), queue, tokens, work, ask, queued=queued
        )

    async def call_room(
        self, *, site: str, spec: dict[str, Any], client: object, ask: Ask
    ) -> tuple[int | None, int | None]:
        """Cores of a node, and nodes at most, of such a job at a site."""
        return await queues.room(self._site(site), ClusterSpec.from_json(spec), ask)

    async def call_soonest(
        self, *, site: str, specs: Sequence[dict[str, Any]], queue: str, token: str, client: object, ask: Ask
    ) -> list[tuple[float | None, str]]:
        """When jobs of these shapes that drain a queue would start at a site, or what speaks against each."""
        return await queues.soonest(self._site(site), [*map(ClusterSpec.from_json, specs)], queue, token, ask)

    async def call_alive(self, *, site: str, spec: dict[str, Any], token: str, client: object, ask: Ask) -> list[str]:
        """The jobs with a token that wait or run."""
        return await queues.alive(self._site(site), ClusterSpec.from_json(spec), token, ask)

    # -- sites -------------------------------------------------------------------------------------------------

    async def call_login(self, *, site: str, client: object, ask: Ask) -> None:
        """Have a connection to a site, with somebody there to answer what it asks."""
        waiting = {c.site for c in self._live() if c.site.name == site and "login" in c.site.notices}
        for one in waiting or {self._site(site or config.load().site().name)}:  # an entry may have been edited since
            await one.connect(ask)

    async def call_sites(self, *, client: object, ask: Ask) -> list[dict[str, Any]]:
        """The configured sites."""
        settings = config.load()
        return [
            {"name": s.name, "host": s.host, "batch": s.batch, "default": s.name == settings.default_site}
            for s in settings.sites.values()
        ]

    async def call_doctor(
        self, *, site: str, spec: dict[str, Any], client: object, ask: Ask
    ) -> AsyncGenerator[dict[str, Any]]:
        """What there is to find out about a site before the first cluster, each thing as soon as it is known."""
        async with contextlib.aclosing(examine(self._site(site), ClusterSpec.from_json(spec), ask)) as findings:
            async for finding in findings:
                yield finding.to_json()

    async def call_limits(self, *, site: str, client: object, ask: Ask) -> dict[str, Any]:
        """What a site lets its user choose from, and what its entry chooses; nobody is asked to log in for that."""
        one = self._site(site)
        await one.connect(_nobody_to_ask)
        chosen = {name: getattr(one.config, name) for name in ("nodes", "walltime", "partition", "account", "qos")}
        return asdict(await one.batch.limits()) | {"defaults": chosen}

    # -- within ------------------------------------------------------------------------------------------------

    def _site(self, name: str) -> Site:
        wanted = config.load().site(name)
        known = self._sites.get(name)
        if known is None or known.config != wanted:
            # An edited entry is a new site to us; clusters that run keep the connection they have.
            if known is not None and known not in (cluster.site for cluster in self._live()):
                self._later(known.close())
            known = self._sites[name] = Site(wanted, self._on_notices)
        return known

    def _on_notices(self, site: Site) -> None:
        for cluster in self._live():
            if cluster.site is site:
                self._on_status(cluster.status)

    def _on_status(self, status: ClusterStatus) -> None:
        if status.state is State.ENDED:
            self._dashboards.forget(status.id)
        self._changed(self._shown(status))

    def _shown(self, status: ClusterStatus) -> ClusterStatus:
        """A status with what its site wants of the user."""
        cluster = self._clusters.get(status.id)
        if cluster is None or status.state is State.ENDED:
            return status
        return replace(status, notices=status.notices | cluster.site.notices)

    def _find(self, id: str) -> LiveCluster:
        if lost := self._orphans.get(id):
            spec, why = lost[0].status.spec, lost[1]
            raise NotReady(
                f"cluster {spec.name!r}: {why}",
                remedy=f"Put the entry of {spec.site!r} back into the configuration, and this will work; its jobs, if it has any, go on.",
            )
        if id not in self._clusters:
            raise NotReady("there is no such cluster any more", remedy="`%hpc` lists those that exist.")
        return self._clusters[id]

    def _live(self) -> list[LiveCluster]:
        return [c for c in self._clusters.values() if c.status.state is not State.ENDED]

    def _forget(self) -> None:
        """Remember no more clusters that have ended than a later agent would."""
        ended = [id for id, cluster in self._clusters.items() if cluster.status.state is State.ENDED]
        for id in ended[: -record.KEPT]:
            del self._clusters[id]

    async def _count(self, id: str) -> None:
        if cluster := self._clusters.get(id):
            await cluster.attached(sum(id in used for used in self._attached.values()))

    def gone(self, client: object) -> None:
        """A client has disconnected."""
        self._last_use = time.monotonic()
        used = self._attached.pop(client, set())
        for id in used:
            if (cluster := self._clusters.get(id)) and cluster.status.state is not State.ENDED:
                self._later(self._count(id))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def resume(self) -> None:
        """Find again what an earlier agent left, each cluster in its own time: a site may be slow, or ask for a password."""
        self._orphans = {kept.status.id: (kept, "") for kept in record.load_all()}
        self._adopt()

    def _adopt(self) -> None:
        """Follow the clusters whose site can be found in the configuration by now; the others are shown with the reason."""
        for id, (kept, _) in list(self._orphans.items()):
            try:
                site = self._site(kept.status.spec.site)
            except ConfigError as exc:
                log.warning("cluster %s cannot be followed: %s", id, exc)
                self._orphans[id] = (kept, f"it cannot be followed: {exc.what}")
                continue
            del self._orphans[id]
            cluster = self._clusters[id] = LiveCluster(kept, site, self._on_status)
            if cluster.status.state is not State.ENDED:
                self._later(self._resume(cluster))

    async def _resume(self, cluster: LiveCluster) -> None:
        try:
            await cluster.resume(_nobody_to_ask)
        except Exception as exc:  # the agent must come up; a client's next call tries again, and can be asked
            log.warning("cluster %s cannot be reached: %s", cluster.status.id, exc)

    async def leave(self) -> None:
        """Let go of all clusters and sites."""
        for task in self._tasks:
            task.cancel()
        for cluster in self._clusters.values():
            await cluster.leave()
        for site in self._sites.values():
            await site.close()
        await self._dashboards.close()

    def is_idle(self) -> bool:
        """Whether nobody is connected, nothing lives, and that for an hour."""
        return not self._attached and not self._live() and time.monotonic() - self._last_use > IDLE


async def _nobody_to_ask(prompt: Prompt) -> str:
    raise AuthenticationFailed(f"{prompt.title}: {prompt.text}: nobody is here to answer yet")
