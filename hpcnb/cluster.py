"""`Cluster`: one Dask scheduler with the workers of one or more allocations, wherever its site is."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from distributed import rpc
from distributed.deploy.cluster import Cluster as DaskCluster
from tornado.ioloop import IOLoop

from hpcnb import handle
from hpcnb.agent.connection import client_context
from hpcnb.agent.loop import background
from hpcnb.comm import SCHEME, ClusterSecurity
from hpcnb.errors import NotReady
from hpcnb.facts import Facts
from hpcnb.handle import Handle
from hpcnb.kept import NotebookClient
from hpcnb.model import ClusterStatus, State
from hpcnb.notebook_name import notebook_name
from hpcnb.past import Timeline, timeline
from hpcnb.scaling import Nodewise, leaving, nodes_for, workers_per_node
from hpcnb.site.authority import Identity

if TYPE_CHECKING:
    from hpcnb.session import Session

T = TypeVar("T")

__all__ = ["Cluster"]

ANSWER = 30.0
"""Seconds that the agent has for a question that needs no site."""


class Cluster(Facts, DaskCluster):
    """A Dask cluster inside an allocation of a site.

    The constructor returns when the job is submitted, not when it runs: a wrong request is an error at once, and a
    full machine is no reason to block.

    Parameters
    ----------
    site : str
        A site of the configuration; empty: the default site (``local`` unless configured).
    name : str
        Unique among your live clusters; empty: the site's name.
    asynchronous : bool
        For use with ``await`` and ``async with``.
    loop : tornado.ioloop.IOLoop, optional
        Dask's own parameter; by default hpcnb's background loop.
    **wishes
        ``nodes`` (1), ``walltime`` (``"1h"``, or seconds), ``partition``, ``account``, ``qos``, ``cores_per_node``,
        ``memory_per_node`` (``"64GiB"``), ``gpus_per_node``, ``workers_per_node``, ``cores_per_worker``,
        ``memory_per_worker``, ``gpus_per_worker``, ``idle_timeout``, ``options`` (``{"--constraint": "haswell"}``). What is
        not given comes from the site's entry.

    Raises
    ------
    ConfigError
        A wish is wrong; nothing was submitted.
    SiteError
        The site cannot be reached, or its Python cannot be used; nothing was submitted.
    SubmissionRejected
        The batch system said no.

    Examples
    --------
    >>> with Cluster("local") as cluster:           # doctest: +SKIP
    ...     cluster.client.submit(sum, [1, 2]).result()
    3
    """

    def __init__(
        self, site: str = "", *, name: str = "", asynchronous: bool = False, loop: IOLoop | None = None, **wishes: Any
    ) -> None:
        self._handle = Handle.new(handle.spec_for(site, name=name, **wishes))
        self._prepare(asynchronous, loop)
        if not asynchronous:
            self.sync(self._request)

    @classmethod
    def of(cls, known: Handle, *, asynchronous: bool = False) -> Cluster:
        """The `Cluster` of one that exists already; the same object each time."""
        if known.id in _known:
            return _known[known.id]
        self = cls.__new__(cls)
        self._handle = known
        self._prepare(asynchronous, None)
        self._requested = True
        if not asynchronous:
            self.sync(self._take_credentials)
        _known[known.id] = self
        return self

    def _prepare(self, asynchronous: bool, loop: IOLoop | None) -> None:
        if loop is None and not asynchronous:
            loop = background().run(_this_loop())
        super().__init__(asynchronous=asynchronous, loop=loop, quiet=True, name=self._handle.status.spec.name)
        self.scheduler_comm: Any = None
        self.security: ClusterSecurity | None = None
        self._requested = False
        self._starting: asyncio.Task[None] | None = None
        self._link = ""  # of the dashboard: on the loop of an asynchronous cluster nobody can wait for it
        self._keeps_link = asynchronous
        self._state = State.REQUESTED
        self._client: NotebookClient | None = None
        self._sessions: dict[str, Session] = {}
        self._client_lock, self._session_lock = threading.Lock(), threading.Lock()
        self._handle.on_change(self._hear)

    # -- life --------------------------------------------------------------------------------------------------

    async def _request(self) -> None:
        if not self._requested:
            self._requested = True
            await self._on_agent(self._handle.request())
            await self._take_credentials()
            _known[self._handle.id] = self

    async def _take_credentials(self) -> None:
        given = await self._on_agent(self._handle.credentials())
        identity = Identity(certificate=given.certificate, key=given.key)
        self.security = ClusterSecurity(client_context(given.authority, identity))

    async def _become_ready(self) -> None:
        await self._request()
        await self._on_agent(self._handle.until_ready())
        if self.scheduler_comm is None and self.security is not None:
            shown = self.security.get_connection_args("client")
            self.scheduler_comm = rpc(self.scheduler_address, connection_args=shown)
            await super()._start()
        if self._keeps_link:
            await self._on_agent(self._learn_link())

    async def become_ready(self) -> None:
        """Wait until it is, without anybody who could be asked for a password."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._become_ready())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        with self._handle.awaited():
            await self.become_ready()

    def __await__(self) -> Generator[Any, None, Cluster]:
        yield from self._start().__await__()
        return self

    def wait_until_ready(self, timeout: float | None = None) -> Any:
        """Wait until the scheduler and at least one worker run.

        Parameters
        ----------
        timeout : float, optional
            Seconds; by default as long as it takes.

        Raises
        ------
        NotReady
            The time is over; the cluster goes on waiting, and the message says for what.
        HPCError
            It has ended, and why.
        """
        return self.sync(self._wait_until_ready, timeout)

    async def _wait_until_ready(self, timeout: float | None) -> None:
        try:
            await asyncio.wait_for(self._start(), timeout)
        except TimeoutError:
            raise NotReady(
                f"cluster {self.name!r} is still {self.state} after {timeout} s: {self._handle.status.detail}",
                where=f"site {self.site}",
                remedy="It goes on waiting; wait_until_ready() again, or close() it.",
            ) from None
        if self.state is State.ENDED:  # after it had been ready
            raise self._handle.error()

    async def _close(self) -> None:
        if self._starting and not self._starting.done():
            self._starting.cancel()
        for session in self.sessions:
            await self._on_agent(session.disconnect())
        if self._client is not None:
            await self._client._close()
        await super()._close()
        if self._requested:
            await self._on_agent(self._handle.close())
        _known.pop(self._handle.id, None)

    def __del__(self, _warn: Any = None) -> None:
        """Do not warn as Dask does: a cluster outlives the object, and may be attached to again."""

    async def _on_agent(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something that belongs to the background loop, from whichever loop this is."""
        loop = background()
        if asyncio.get_running_loop() is loop.asyncio_loop:
            return await work
        return await asyncio.wrap_future(loop.start(work))

    def _hear(self, status: ClusterStatus) -> None:
        before, self._state = self._state, status.state
        if status.state is State.READY and self.scheduler_comm is not None:
            if self.loop and status.counts.workers != len(self.scheduler_info["workers"]):
                self.loop.add_callback(self._see_workers)
            if self._keeps_link and before is not State.READY:
                background().start(self._learn_link())
        if status.state is State.ENDED:
            # Cells that wait end with the cause, not with silence.
            for session in self.sessions:
                session.lose(self._handle.error())
            if self._client is not None:
                self._client.ledger.close(self._handle.error())
                # Or it would try for half a minute to reach what is gone.
                background().start(self._client._close(fast=True))

    async def _see_workers(self) -> None:
        # Of its workers the scheduler tells one client of a cluster alone: the one that came last.
        try:
            there = await self.scheduler_comm.identity(n_workers=-1)
        except OSError:
            return  # it is away, and there will be news when it is back
        self.scheduler_info["workers"] = there["workers"]

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op != "remove" or msg in self.scheduler_info["workers"]:
            super()._update_worker_status(op, msg)

    async def _learn_link(self) -> None:
        self._link = await self._handle.dashboard()

    # -- what Dask's Cluster is asked ----------------------------------------------------------------------------

    @property
    def scheduler_address(self) -> str:
        return f"{SCHEME}://{self._handle.id}/scheduler"

    @property
    def dashboard_link(self) -> str:
        """Where a browser on this machine finds Dask's dashboard: whoever has the link may look, so keep it to yourself.

        Empty before the cluster is submitted, after its end, and where it would be waited for on the loop that brings it.
        """
        if not self._requested or self.state is State.ENDED:
            return ""
        if self.asynchronous or background().is_here:
            return self._link
        return background().run(self._handle.dashboard(), timeout=ANSWER)

    def scale(self, n: int | None = None, *, nodes: int | None = None) -> Any:
        """Have at least `n` workers, or exactly so many nodes.

        Nodes are added by further batch jobs of one node each, so that they come as the queue allows. The nodes of the
        first job stay as long as the cluster.

        Parameters
        ----------
        n : int, optional
            Workers; rounded up to whole nodes.
        nodes : int, optional
        """
        if nodes is None:
            nodes = nodes_for(n or 0, self._handle.status)
        if adaptive := getattr(self, "_adaptive", None):
            adaptive.stop()  # it would undo this
        return self.sync(self._scale, nodes)

    def adapt(self, *kind: Any, nodes: tuple[int, int] | None = None, **wishes: Any) -> Any:
        """Have as many workers as the work needs, as long as this process lives; the first job's nodes always stay.

        Between ``minimum`` and ``maximum`` workers, as with Dask, or between so many `nodes`.
        """
        if self.state is not State.READY:
            raise NotReady(f"cluster {self.name!r} is {self.state}", remedy="Adapt it once it is ready.")
        if self.scheduler_comm is None:
            self.wait_until_ready()
        if nodes is not None:
            wishes["minimum"], wishes["maximum"] = (n * workers_per_node(self._handle.status) for n in nodes)
        return super().adapt(*(kind or (Nodewise,)), **wishes)

    async def _scale(self, nodes: int) -> None:
        await self._on_agent(self._handle.scale(nodes))

    async def scale_up(self, n: int) -> None:
        """For `adapt`: have `n` workers."""
        await self._scale(nodes_for(n, self._handle.status))

    async def scale_down(self, workers: list[str]) -> None:
        """For `adapt`: have so many workers fewer."""
        there = await self.scheduler_comm.identity(n_workers=-1)
        known = [str(worker["name"]) for worker in there["workers"].values()]
        nodes = nodes_for(len(known) - len(workers), self._handle.status)
        if names := leaving(known, nodes, self._handle.status):  # their results move to those that stay
            await self.scheduler_comm.retire_workers(names=names, remove=True, close_workers=True)
            await self._scale(nodes)

    plan = requested = DaskCluster.observed

    def __repr__(self) -> str:
        return f"<Cluster {self.name!r} on {self.site}: {self.state}>"

    # -- what there is to know (see also `Facts`) ---------------------------------------------------------------------

    def timeline(self) -> Timeline:
        """What its nodes have done when: allocation, tasks and waits in the queue, as plots in a notebook, else as text."""
        return timeline(self)

    def logs(self, name: str = "", n: int = 50, *, level: str = "", **filters: str) -> str:
        """The last `n` lines of its logs whose name contains `name` (``job``, ``scheduler``, ``sessions``, ``worker``).

        Or of the tasks whose keys begin so; of a `level` (``"warning"``) and above; by ``task=``, ``node=`` and ``grep=``.
        """
        return str(background().run(self._handle.log_text(name, n, level=level, **filters)))

    # -- what a user programs with -------------------------------------------------------------------------------

    @property
    def client(self) -> NotebookClient:
        """The Dask client of this cluster; waits until the cluster is ready."""
        client = self.early_client
        client.wait_until_connected()
        return client

    @property
    def early_client(self) -> NotebookClient:
        """The same, which may not be connected yet: what is submitted to it waits in order."""
        with self._client_lock:  # else two threads have a client each, which refuse each other's futures
            if self._client is None or self._client.status == "closed":
                self._client = NotebookClient(self, self._handle)
            return self._client

    @property
    def session(self) -> Session:
        """The main session: a persistent IPython kernel inside the allocation; waits until the cluster is ready."""
        return self.session_named("main")

    @property
    def sessions(self) -> list[Session]:
        """Those that this kernel has used."""
        return list(self._sessions.values())

    def session_named(self, name: str) -> Session:
        """One of several sessions beside each other, made when first asked for; waits until the cluster is ready."""
        from hpcnb.session import Session  # with jupyter_client, which a cluster does without

        with self._session_lock:
            if name not in self._sessions:
                self.wait_until_ready()
                if self.security is None:
                    raise NotReady(f"cluster {self.name!r} gave no credentials")
                self._sessions[name] = Session(
                    f"{SCHEME}://{self._handle.id}/session",
                    security=self.security,
                    loop=background().asyncio_loop,
                    name=name,
                    notebook=notebook_name(),
                    awaited=self._handle.awaited,
                    patience=math.inf,  # however long it does not answer, the cluster's end is what ends it
                )
            return self._sessions[name]


_known: dict[str, Cluster] = {}
"""The clusters that this process has an object for, so that there is one for each."""


async def _this_loop() -> IOLoop:
    return IOLoop.current()
