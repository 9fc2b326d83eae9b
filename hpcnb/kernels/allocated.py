"""A kernel and the allocation that is there for it alone: asked for with the first start, ended with the last shutdown."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hpcnb.agent.connection import client_context
from hpcnb.comm import SCHEME, ClusterSecurity
from hpcnb.errors import HPCError, NotReady
from hpcnb.handle import Handle, spec_for
from hpcnb.kernels.front import Front
from hpcnb.kernels.remote import RemoteKernel
from hpcnb.model import ClusterStatus, State
from hpcnb.pilot.rpc import Peer
from hpcnb.site.authority import Identity
from hpcnb.views.cluster import status_line

__all__ = ["Allocated"]

log = logging.getLogger(__name__)

ENDING = 5.0
"""Seconds that the end of the job is waited for; the agent sees to it in any case."""
KILLED = -9


class Allocated:
    """One kernel of a front end, over all its restarts; all of it happens on the background loop.

    Parameters
    ----------
    site : str
    wishes : mapping
        What the cluster is asked for.
    key : bytes
        Signs the messages between front end and kernel.
    """

    def __init__(self, site: str, wishes: Mapping[str, Any], key: bytes) -> None:
        self._site, self._wishes = site, dict(wishes)
        self._front = Front(key, waits_for=self._waits_for, over=lambda: self._exit(0))
        self._handle: Handle | None = None
        self._serving: asyncio.Task[None] | None = None
        self.code: int | None = None
        """How the kernel has ended; None: it lives, or will."""
        self.exited = asyncio.Event()

    # -- its life --------------------------------------------------------------------------------------------------

    async def launch(self, *, title: str, directory: str) -> dict[str, Any]:
        """Start it, or start it anew; returns when the job is submitted, with what a front end has to know.

        Parameters
        ----------
        title : str
            The cluster's name begins with it.
        directory : str
            Where it runs, on a site that is this machine.

        Raises
        ------
        HPCError
            The job was refused.
        """
        await self._stop()
        if self._handle is None or self._handle.status.state is State.ENDED:
            self._handle = await self._ask_for_cluster(title, directory)
        self.code = None
        self.exited.clear()
        await self._front.wait()
        self._serving = asyncio.create_task(self._serve(self._handle), name=f"kernel in {self._handle.id}")
        return self._front.channels.connection

    async def _ask_for_cluster(self, title: str, directory: str) -> Handle:
        name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', title)[:48]}-{secrets.token_hex(2)}"
        spec = await asyncio.to_thread(spec_for, self._site, name=name, **self._wishes)
        handle = Handle.new(replace(spec, directory=directory) if spec.directory else spec)
        await handle.request()
        handle.on_change(self._changed)
        return handle

    async def kill(self) -> None:
        """Let it be dead here; there it ends with the job, or when another takes its place."""
        await self._stop()
        self._exit(KILLED)

    async def close(self) -> None:
        """End the job, and listen no more."""
        await self._stop()
        self._exit(KILLED)
        await self._front.channels.close()
        if self._handle is None or self._handle.status.state is State.ENDED:
            return
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(self._handle.close())), ENDING)
        except TimeoutError:
            log.info("the job of %s is being ended", self._handle.status.spec.name)
        except NotReady:
            pass  # it has ended already

    # -- within ------------------------------------------------------------------------------------------------------

    async def _serve(self, handle: Handle) -> None:
        relaying: list[asyncio.Task[None]] = []
        try:
            remote = await self._connect(handle)
            code, why = await remote.run(lambda: relaying.append(asyncio.create_task(self._front.relay(remote))))
        except HPCError as error:
            self._front.fail(handle.error() if handle.status.state is State.ENDED else error)
        else:
            self._front.fail(why)
            self._exit(code)
        finally:
            for task in relaying:
                task.cancel()

    async def _connect(self, handle: Handle) -> RemoteKernel:
        showing = asyncio.create_task(self._front.show())
        try:
            await handle.ready()
        finally:
            showing.cancel()
        given = await handle.credentials()
        identity = Identity(certificate=given.certificate, key=given.key)
        shown = ClusterSecurity(client_context(given.authority, identity)).get_connection_args("client")
        peer = Peer(f"{SCHEME}://{handle.id}/session", shown)
        return RemoteKernel(f"kernel-{secrets.token_hex(4)}", peer, self._front.hear)

    def _changed(self, status: ClusterStatus) -> None:
        now = self._handle  # of an earlier one nothing is news
        if status.state is State.ENDED and now and now.id == status.id and self._serving is not None:
            # It stays alive for the front end, so that it says why, and no further job is asked for by itself.
            self._serving.cancel()
            self._front.fail(now.error())

    def _waits_for(self) -> str:
        return status_line(self._handle.status, time.time()) if self._handle else "no job was asked for yet"

    def _exit(self, code: int) -> None:
        if self.code is None:
            self.code = code
            self.exited.set()

    async def _stop(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
            self._serving = None
