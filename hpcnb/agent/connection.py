"""The user's end of one cluster's link: dial it, keep it, and give its streams to local sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hpcnb.agent import places
from hpcnb.agent.dialling import Dialler, Silent
from hpcnb.agent.record import ClusterRecord
from hpcnb.agent.sites import Site
from hpcnb.errors import HPCError, SiteError
from hpcnb.link import Joint, Link, LinkRefused, LinkState, Stream, StreamError
from hpcnb.link.peer import peer_uid
from hpcnb.pilot.lead import lines
from hpcnb.site.authority import Identity
from hpcnb.site.routes import Goal
from hpcnb.site.slurm import Slurm

log = logging.getLogger(__name__)

STREAMS = ("scheduler", "session", "dashboard")
SOONEST, LATEST = 0.1, 2.0
"""Seconds between two looks for the pilot's address."""
REDIAL = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each further attempt to make a lost connection again; the last one repeats."""
CLIMBS = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds that the link is up before each attempt to find a better route for it; the last one repeats."""
LASTING = 600.0
"""Seconds after which a route is none that breaks as soon as it is taken: what breaks it then is a fault of its own."""


@dataclass(frozen=True, kw_only=True)
class Ears:
    """Who hears of a connection.

    Parameters
    ----------
    link : callable
        Called with the route when the link is up, with an empty string when it is down.
    trouble : callable
        Called with the reason why the link cannot be made, each time that it is tried in vain.
    event : callable
        Called with what the pilot says.
    """

    link: Callable[[str], None]
    trouble: Callable[[str], None]
    event: Callable[[dict[str, Any]], None]


class Connection:
    """The link into one cluster.

    Parameters
    ----------
    kept : ClusterRecord
        With its leading allocation submitted.
    site : Site
    identity : Identity
        Our certificate, role *agent*.
    """

    scheduler: str = ""
    """The scheduler's address inside the allocation, once it is known."""

    def __init__(self, kept: ClusterRecord, site: Site, *, identity: Identity) -> None:
        self._kept = kept
        self._site = site
        self._cluster = kept.status.id
        self._path = kept.jobs[0].path
        self._shell = site.shell
        self._dialler = Dialler(site.name, site.config.link, client_context(kept.authority_certificate, identity))
        self._route = ""
        self._climbs = _climbs()
        self._taken = 0.0  # when the route was
        self._link = Link(self._cluster, bytes.fromhex(kept.secret), initiator=True, on_state=self._note)
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._control: Stream | None = None
        self._servers: list[asyncio.Server] = []

    async def keep(self, ears: Ears, *, runs: asyncio.Event) -> None:
        """Dial as soon as the pilot listens, and again whenever the connection is lost; runs until cancelled.

        Parameters
        ----------
        ears : Ears
        runs : asyncio.Event
            Set while the job may be running; until then the pilot is looked for ever more rarely.
        """
        goal = self._goal(*await self._published(runs))
        listening: asyncio.Task[None] | None = None
        try:
            while True:
                await self._come_up(goal, ears.trouble)
                if listening is None:
                    await self._open_sockets()
                if listening is None or listening.done():
                    self._control = self._link.open("control")
                    listening = asyncio.create_task(self._listen(self._control, ears.event))
                # Last, since whoever hears of it uses the sockets and the control stream at once.
                ears.link(self._route)
                await self._stay_up(goal, ears.link)
                ears.link("")
        finally:
            if listening:
                listening.cancel()

    def _note(self, state: LinkState) -> None:
        for event, holds in ((self._up, state is LinkState.UP), (self._down, state is not LinkState.UP)):
            (event.set if holds else event.clear)()

    async def _come_up(self, goal: Goal, trouble: Callable[[str], None]) -> None:
        """Dial until the link is up; a pipe that was only silent may be heard again first."""
        dialling = asyncio.create_task(self._dial(goal, trouble))
        try:
            await self._up.wait()
        finally:
            dialling.cancel()
            await asyncio.gather(dialling, return_exceptions=True)

    async def _stay_up(self, goal: Goal, told: Callable[[str], None]) -> None:
        """Until the link is lost, try now and then whether a better route can carry it."""
        climbing = asyncio.create_task(self._climb(goal, told))
        try:
            await self._down.wait()
        finally:
            climbing.cancel()
            await asyncio.gather(climbing, return_exceptions=True)
            if time.monotonic() > self._taken + LASTING:
                self._climbs = _climbs()

    async def _climb(self, goal: Goal, told: Callable[[str], None]) -> None:
        while self._dialler.better:
            await asyncio.sleep(next(self._climbs))
            try:
                if route := await self._dialler.climb(self._link, goal):
                    self._route, self._taken = route, time.monotonic()
                    told(route)
            except Exception as exc:  # whatever it was, the link is as it was
                log.info("cluster %s: %s carries the link on: %r", self._cluster, self._route, exc)

    async def _published(self, runs: asyncio.Event) -> tuple[str, int]:
        pause = SOONEST
        while True:
            try:
                host, port = json.loads(await self._shell.read(f"{self._path}/pilot.json"))["gateway"]
                return host, port
            except (FileNotFoundError, json.JSONDecodeError):
                pass  # not yet
            except (OSError, SiteError) as exc:
                log.info("cluster %s: cannot look for the pilot: %s", self._cluster, exc)
            if runs.is_set():
                await asyncio.sleep(pause)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(runs.wait(), pause)
                    pause = SOONEST
            pause = min(pause * 1.2, LATEST)

    def _goal(self, host: str, port: int) -> Goal:
        job_id = self._kept.jobs[0].job_id
        return Goal(
            shell=self._shell,
            environment=self._site.environment(self._kept.status.spec),
            zip_path=self._kept.zip_path,
            path=self._path,
            host=host,
            port=port,
            step=partial(self._site.batch.step, job_id) if isinstance(self._site.batch, Slurm) else None,
        )

    async def _dial(self, goal: Goal, trouble: Callable[[str], None]) -> None:
        attempt = 0
        while True:
            await asyncio.sleep(REDIAL[min(attempt, len(REDIAL) - 1)])
            attempt += 1
            try:
                self._route = await self._dialler.dial(self._link, goal)
                self._taken = time.monotonic()
                return
            except LinkRefused as exc:
                log.error("cluster %s: %s", self._cluster, exc)
                trouble(f"the pilot refuses us: {exc.what}")
                await asyncio.Future()  # dialling again would not help; the end of the job will
            except Exception as exc:  # whatever it was, nobody else would make the link again
                log.warning("cluster %s: cannot reach the pilot at %s:%d: %r", self._cluster, goal.host, goal.port, exc)
                trouble(exc.what if isinstance(exc, HPCError) else f"{type(exc).__name__}: {exc}")
                if isinstance(exc, Silent) and await self._answer(trouble) > REDIAL[1]:
                    attempt = 0  # the way is free again: the moment to dial

    async def _answer(self, trouble: Callable[[str], None]) -> float:
        """Wait until the login node answers; return how long that took."""
        began = time.monotonic()
        while True:
            try:
                await self._shell.read(f"{self._path}/pilot.json", limit=1)
            except OSError:
                pass  # an answer, too
            except SiteError as exc:
                trouble(exc.what)
                await self._shell.patience()
                continue
            return time.monotonic() - began

    async def _listen(self, control: Stream, on_event: Callable[[dict[str, Any]], None]) -> None:
        try:
            async for event in lines(control):
                try:
                    if event["event"] == "scheduler":
                        self.scheduler = event["address"]
                    on_event(event)
                except Exception:  # a pilot of another version may say what is not understood here
                    log.exception("cluster %s: what the pilot said was not understood", self._cluster)
        except (StreamError, ValueError) as exc:
            log.info("cluster %s: the pilot no longer speaks: %s", self._cluster, exc)

    async def tell(self, wish: dict[str, Any]) -> bool:
        """Say something to the pilot; False if there is no way to."""
        if self._control is None:
            return False
        try:
            await asyncio.wait_for(self._control.write(json.dumps(wish).encode() + b"\n"), 5)
        except (OSError, TimeoutError):
            return False
        return True

    async def _open_sockets(self) -> None:
        loop, folder = asyncio.get_running_loop(), places.private_directory(places.runtime() / self._cluster)
        for name in STREAMS:
            path = places.stream_socket(self._cluster, name)
            path.unlink(missing_ok=True)
            server = await loop.create_unix_server(partial(Joint, partial(self._admit, name)), path)
            path.chmod(0o600)
            self._servers.append(server)
        log.info("cluster %s: streams at %s", self._cluster, folder)

    def _admit(self, name: str, connection: asyncio.Transport) -> Stream:
        if peer_uid(connection.get_extra_info("socket")) != os.getuid():
            log.warning("cluster %s: another user's program was refused at stream %s", self._cluster, name)
            raise PermissionError("another user's program")
        return self._link.open(name)

    async def close(self) -> None:
        """End every stream and remove the sockets."""
        for server in self._servers:
            server.close()
        await self._link.close()
        shutil.rmtree(places.runtime() / self._cluster, ignore_errors=True)


def _climbs() -> Iterator[float]:
    return itertools.chain(CLIMBS, itertools.repeat(CLIMBS[-1]))


def client_context(authority: str, identity: Identity) -> ssl.SSLContext:
    """TLS as a client of one cluster: its authority alone is believed, and the server's role is checked as its name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    # The ssl module reads a key from a file only; this one is 0600 in a 0700 directory, for a moment.
    with tempfile.TemporaryDirectory(dir=places.runtime()) as folder:
        path = Path(folder, "identity.pem")
        path.touch(0o600)
        path.write_text(identity.certificate + identity.key)
        context.load_cert_chain(path)
    return context
