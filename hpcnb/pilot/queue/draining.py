"""An owner that serves workers: one turn after the other, each one transaction, and only then the answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from hpcnb.pilot.queue.lease import Fenced, Watch
from hpcnb.pilot.queue.owner import Owner
from hpcnb.pilot.queue.place import Place, passes
from hpcnb.pilot.queue.records import Worker
from hpcnb.pilot.queue.requests import VANISHED, gone, lives_here, told
from hpcnb.pilot.queue.running import ENDED_EARLY
from hpcnb.pilot.queue.states import TaskState
from hpcnb.pilot.queue.wire import OWNER, alert, context, packed, received

LOOK = 0.1
"""Seconds between two looks into the inbox: nothing but a look tells that somebody far away has put a file there."""
RETRY = 0.5
HANDSHAKE = 15.0
GRACE = 10.0
"""Seconds that a worker that is away has to come back before its tasks are given to others."""


T = TypeVar("T")


class Caller:
    """A worker that is connected."""

    def __init__(self, hello: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self.writer = writer
        self.number = 0
        self.outcomes: list[list[Any]] = []
        self.back: list[list[int]] = []
        self.wants: int | None = None
        self.waits = False
        self.suspects = False
        # What it goes on with though its connection was cut: the task that it was carrying out.
        self.holds: set[tuple[int, int]] = {(id, attempt) for id, attempt in hello.get("holds", ())}


class Draining:
    """The owner's work while there is any.

    Parameters
    ----------
    owner : Owner

    Attributes
    ----------
    winding_up : bool
        Our job ends.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._store = owner.store
        self._callers: dict[int, Caller] = {}
        self._away = {worker.id: time.monotonic() + GRACE for worker in self._store.running()}
        self._looked = 0.0
        self._killed = 0
        self.winding_up = False

    def end(self) -> None:
        """Let go of the queue, with all that was told by file; who does not belong to a job that lives is not waited for."""
        while self._owner.serve():
            pass
        self._owner.close()

    # -- a turn: in the one thread that touches the store ---------------------------------------------------------------

    def begin(self) -> None:
        """Go on with what the job before us could not finish."""
        while self._owner.serve():
            pass
        with self._owner.change():
            self._go_on()

    def turn(self, callers: list[Caller], left: list[Caller]) -> list[tuple[Caller, Any]]:
        """Do what is to be done now; returns what is to be said, to whom.

        Parameters
        ----------
        callers : list of Caller
            Those who wait for an answer.
        left : list of Caller
            Those who have lost their connection.
        """
        said: list[tuple[Caller, Any]] = []
        for caller in left:
            self._leave(caller)
        lost = self._lost()
        if callers or lost or time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            served = self._owner.serve()
            while lost and self._owner.serve():  # all of it: what somebody left before he died counts
                pass
            if served:
                said += self._stops()
        with self._owner.change():
            for caller in callers:
                self._hear(caller)
            self._release(lost)
            self._go_on()
            self._store.wake(time.time())
            said += self._give(callers)
        self._owner.publish()
        return said

    def _hear(self, caller: Caller) -> None:
        new = not caller.number
        if new:
            name, hello = caller.hello["name"], caller.hello
            caller.number = self._store.worker(name, host=hello["host"], pid=hello["pid"], job=hello["job"])
            self._callers[caller.number] = caller
            self._away.pop(caller.number, None)
            self._owner.present.add(caller.number)
        self._store.finish(caller.number, told(caller.outcomes))
        if new:  # what else it had when it was cut off it has dropped
            self._store.release(caller.number, VANISHED, but=[id for id, _ in caller.holds])
        self._store.give_back(caller.number, caller.back)
        caller.holds.difference_update((row[0], row[1]) for row in (*caller.outcomes, *caller.back))
        caller.outcomes, caller.back = [], []

    def _lost(self) -> list[int]:
        """Those who are away and have died, or have not come back in time."""
        if not self._away:
            return []
        now = time.monotonic()
        holding = {worker.id: worker for worker in self._store.running()}
        lost = []
        for number, end in self._away.items():
            worker = holding.get(number)
            if worker is None or gone(worker.host, worker.pid) or (now > end and not _by_hand(worker)):
                lost.append(number)
        return lost

    def _release(self, lost: list[int]) -> None:
        """Take back what they have, unless they are here again."""
        for number in lost:
            if self._away.pop(number, None) is not None:
                self._store.release(number, VANISHED)

    def _go_on(self) -> None:
        """Have tasks carried out again that another job could not finish; what ours cannot is its successor's."""
        killed = self._store.counts[TaskState.KILLED]
        if killed > self._killed and not self.winding_up:
            self._store.revive(ENDED_EARLY)
        self._killed = self._store.counts[TaskState.KILLED]

    def _give(self, callers: list[Caller]) -> list[tuple[Caller, Any]]:
        said: list[tuple[Caller, Any]] = []
        for caller in callers:
            if caller.wants is None:
                continue
            # Towards the end each gets a little, so that all end together.
            share = -(-self._store.counts[TaskState.PENDING] // (2 * len(self._callers)))
            most = 0 if caller.suspects and not caller.waits else min(caller.wants, share)
            tasks = self._store.take(caller.number, most, alone=caller.waits) if most else []
            if tasks:  # one that costs workers is to be the only one that it has
                caller.suspects = tasks[0][1] > 1
            caller.holds.update((id, attempt) for id, attempt, *_ in tasks)
            if tasks or not caller.waits:
                said.append((caller, {"tasks": tasks}))
            elif self.over:
                said.append((caller, {"over": True}))
        return said

    def _stops(self) -> list[tuple[Caller, Any]]:
        """What was taken from workers by hand, to be said once."""
        said = []
        for caller in self._callers.values():
            if gone := caller.holds - self._store.held(caller.number):
                said.append((caller, {"stop": sorted(gone)}))
                caller.holds -= gone
        return said

    @property
    def over(self) -> bool:
        """Whether there is nothing to do, and nothing running that could make something to do."""
        counts = self._store.counts
        if counts[TaskState.RUNNING]:
            return False
        return self._store.paused or not (counts[TaskState.PENDING] or self._store.due)

    def _leave(self, caller: Caller) -> None:
        """A worker is no longer connected."""
        if self._callers.get(caller.number) is caller:
            del self._callers[caller.number]
            self._owner.present.discard(caller.number)
            self._away[caller.number] = time.monotonic() + GRACE


def _by_hand(worker: Worker) -> bool:
    """Whether somebody has taken a task by hand who lives: he has no connection to come back by."""
    return worker.name.startswith("get-") and lives_here(worker.host, worker.pid)


class Candidate:
    """Somebody who owns the queue and serves its workers whenever nobody else does, until it is told to end.

    Parameters
    ----------
    place : Place
    host : str
        The address of this machine that workers are to use.
    failed : callable, optional
        Called with what keeps the queue from being written, as a full disk does, which is then tried again; without it that is the end.
    """

    def __init__(self, place: Place, host: str, failed: Callable[[Exception], None] | None = None) -> None:
        self._place = place
        self._failed = failed
        self._host = host
        self._ending = asyncio.Event()
        self._news = asyncio.Event()
        self._waiting: list[Caller] = []
        self._left: list[Caller] = []
        self._connections: set[asyncio.StreamWriter] = set()
        self._store_thread = ThreadPoolExecutor(1, "queue")  # the only one that touches the store
        self._draining: Draining | None = None

    def end(self) -> None:
        """Let go of the queue soon."""
        self._ending.set()
        self._news.set()

    def wind_up(self) -> None:
        """Our job is about to end: what its workers cannot finish is left as it is."""
        if self._draining:
            self._draining.winding_up = True

    async def run(self) -> None:
        """Try to own the queue, and serve while it is ours."""
        watch = Watch(self._place)
        try:
            while not self._ending.is_set():
                if not await self._own(watch):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._ending.wait(), RETRY)
        finally:
            self._store_thread.shutdown()

    async def _own(self, watch: Watch) -> bool:
        """Own the queue for as long as it lasts and can be written; whether we did."""
        try:
            return await self._once(watch)
        except (OSError, sqlite3.OperationalError) as exc:  # no other error of the store's: a damaged file stays so
            if self._failed is None or not (passes(exc) or isinstance(exc, sqlite3.Error)):
                raise
            self._failed(exc)
            return False

    async def _once(self, watch: Watch) -> bool:
        """Own the queue for as long as it lasts; whether we did."""
        if watch.claimable() is None:
            return False
        with socket.socket() as listener:
            listener.bind((self._host, 0))
            owner = await self._in_thread(Owner.take, self._place, watch, {"address": listener.getsockname()})
            if owner is None:
                return False
            await self._serve(owner, listener)
        return True

    async def _serve(self, owner: Owner, listener: socket.socket) -> None:
        draining = self._draining = Draining(owner)
        try:
            await self._in_thread(draining.begin)
            server = await asyncio.start_server(self._call, sock=listener)
            try:
                while not self._ending.is_set():
                    await self._turn(draining)
            finally:
                server.close()
                for writer in list(self._connections):
                    writer.transport.abort()
            await self._in_thread(draining.end)
        except Fenced:
            await self._in_thread(owner.abandon)
        except BaseException:
            await self._in_thread(owner.abandon)  # in silence: in time somebody else tries
            raise
        finally:
            self._waiting.clear()

    async def _turn(self, draining: Draining) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), LOOK)
        self._news.clear()
        left, self._left = self._left, []
        callers = list(self._waiting)
        for caller, value in await self._in_thread(draining.turn, callers, left):
            if "stop" not in value:
                caller.wants = None
                self._waiting = [one for one in self._waiting if one is not caller]  # it may have left meanwhile
            caller.writer.write(packed(value))

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        alert(writer.get_extra_info("socket"))
        self._connections.add(writer)
        caller = None
        try:
            # Here and not by the server, so that whoever is still shaking hands at our end is let go of, too.
            await writer.start_tls(context(self._place, OWNER), ssl_handshake_timeout=HANDSHAKE)
            caller = Caller(await received(reader), writer)
            while True:
                message = await received(reader)
                caller.outcomes, caller.back = message["outcomes"], message["back"]
                caller.wants, caller.waits = message["want"], message["waits"]
                self._waiting.append(caller)
                self._news.set()
        except (OSError, EOFError):
            pass  # it has ended, or comes back
        finally:
            self._connections.discard(writer)
            writer.transport.abort()
            if caller:
                self._waiting = [one for one in self._waiting if one is not caller]
                self._left.append(caller)
                self._news.set()

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._store_thread, work, *arguments)
