"""A pipe in use: it carries a core's frames over one connection and feels its pulse, until it dies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from hpcnb.link.frames import PIECE
from hpcnb.link.protocol import Core

__all__ = ["Pipe", "left_over", "lost_once"]

SUSPECT = 2.5
"""Intervals of silence after which a pipe is suspect: two pings in a row, each unanswered for one and a half."""
DEAD = 15.0
"""Intervals of silence after which a pipe is given up."""
_SLEPT = 5.0
_FAREWELL = 1.0


async def left_over(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """What a reader holds whose connection was given to another protocol, and whether it has seen the end.

    To be awaited before the loop turns again, or what comes next would come first.
    """
    held = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):  # if nothing is there, nothing comes
            held = await reader.read(1 << 30)
    return held, reader.at_eof()


def lost_once(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A loop's handler of exceptions that does not complain of a connection that was lost twice.

    When a transport has room again, and what its protocol then writes fails, CPython reports the loss at once and once
    more from the loop, where neither protocol nor socket is left. TLS writes so, too; nothing is lost by it.
    """
    twice = "_call_connection_lost" in context["message"] and isinstance(context.get("exception"), AttributeError)
    if not twice:
        loop.default_exception_handler(context)


class Pipe(asyncio.BufferedProtocol):
    """Carry the frames of `core` over one connection.

    It is the connection's protocol itself: tasks that read and write streams would cost two copies and two turns of the
    loop for each message.

    Parameters
    ----------
    core : Core
    reader, writer : StreamReader, StreamWriter
        The connection, no longer to be used by anyone else.
    interval : float
        Seconds between pings.
    doubted : callable
        Called with True when the other end has fallen silent, with False when it is heard again.
    died : callable
        Called once with the cause, unless the pipe was closed from here.
    """

    def __init__(
        self,
        core: Core,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        interval: float,
        doubted: Callable[[bool], None],
        died: Callable[[str], None],
    ) -> None:
        self._core, self._writer = core, writer  # a writer that nobody holds closes its connection
        self._interval, self._doubted, self._died = interval, doubted, died
        self._loop = asyncio.get_running_loop()
        self._suspect = False
        self._heard = self._loop.time()
        self._stopped = False
        self._full = False  # the connection takes no more at the moment
        self._woken = self._pushing = False
        self._ended = asyncio.Event()
        self._transport = writer.transport
        self._transport.set_protocol(self)
        _shorten_queue(writer)
        self._tasks = [self._start(self._begin(reader)), self._start(self._feel())]
        self.wake()

    def wake(self) -> None:
        """Note that the core has something to send; it is sent when the caller is done."""
        if not (self._woken or self._pushing):
            self._woken = True
            self._loop.call_soon(self.push)

    def stop(self) -> None:
        """Carry nothing more from this very moment on."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    def close(self) -> None:
        """Stop, and break the pipe off."""
        self.stop()
        self._transport.abort()

    async def part(self, last: bytes) -> None:
        """After `stop`, send `last` and wait until the other end has closed the pipe in turn, or for a second."""
        self._writer.write(last)
        # Were the pipe closed with something unread, a reset might overtake the last words.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._ended.wait()
        self._transport.abort()

    # What the connection reports.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._core.room()

    def buffer_updated(self, nbytes: int) -> None:
        if self._stopped:
            return
        self._heard = self._loop.time()
        self._doubt(False)
        try:
            self._core.came(nbytes)
        except Exception as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()
        self._fail(exc or ConnectionResetError("the other end closed the pipe"))

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self.push()

    # What goes on meanwhile.

    def push(self) -> None:
        """Send what the core has, as far as the connection takes it."""
        self._woken = False
        if self._pushing:  # the core says more while it is asked
            return
        self._pushing = True
        try:
            while not (self._full or self._stopped) and (frames := self._core.take()):
                self._transport.writelines(frames)
        finally:
            self._pushing = False

    async def _begin(self, reader: asyncio.StreamReader) -> None:
        held, ended = await left_over(reader)
        self._core.receive(held)
        if ended:
            raise ConnectionResetError("the other end closed the pipe")

    async def _feel(self) -> None:
        while True:
            self._core.ping(round(self._loop.time() * 1e6))
            ahead = time.time() - self._loop.time()
            await asyncio.sleep(self._interval)
            silent = self._loop.time() - self._heard
            if silent > DEAD * self._interval:
                raise TimeoutError(f"nothing came over the pipe for {silent:.0f} s")
            # The monotonic clock stands still while a laptop sleeps, the wall clock does not.
            slept = abs(time.time() - self._loop.time() - ahead) > _SLEPT
            if slept or silent > SUSPECT * self._interval:
                self._doubt(True)

    def _doubt(self, suspect: bool) -> None:
        if suspect != self._suspect:
            self._suspect = suspect
            self._doubted(suspect)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._stopped:
            return
        self.close()
        if not isinstance(error, OSError):
            self._loop.call_exception_handler({"message": "a link's pipe failed", "exception": error})
        self._died(str(error))


def _shorten_queue(writer: asyncio.StreamWriter) -> None:
    """Keep little between the core and the wire, so that a bulk transfer delays a small write by little."""
    writer.transport.set_write_buffer_limits(high=PIECE)
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2 * PIECE)
