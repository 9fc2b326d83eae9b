"""A pipe in use: three tasks that carry a core's frames and feel its pulse, until the pipe dies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

from hpcnb.link.frames import PIECE
from hpcnb.link.protocol import Core

__all__ = ["Pipe"]

SUSPECT = 2.5
"""Intervals of silence after which a pipe is suspect: two pings in a row, each unanswered for one and a half."""
DEAD = 15.0
"""Intervals of silence after which a pipe is given up."""
_SLEPT = 5.0
_FAREWELL = 1.0


class Pipe:
    """Carry the frames of `core` over one pipe.

    Parameters
    ----------
    core : Core
    reader, writer : StreamReader, StreamWriter
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
        self._core, self._reader, self._writer = core, reader, writer
        self._interval, self._doubted, self._died = interval, doubted, died
        self._suspect = False
        self._heard = _now()
        self._sendable = asyncio.Event()
        self._sendable.set()
        _shorten_queue(writer)
        self._tasks = [asyncio.create_task(work) for work in (self._pull(), self._push(), self._feel())]
        for task in self._tasks:
            task.add_done_callback(self._done)

    def wake(self) -> None:
        """Note that the core has something to send."""
        self._sendable.set()

    def stop(self) -> None:
        """Carry nothing more from this very moment on."""
        self._died = lambda _: None  # a task that has failed already may be yet to say so
        for task in self._tasks:
            task.cancel()

    def close(self) -> None:
        """Stop, and break the pipe off."""
        self.stop()
        self._writer.transport.abort()

    async def part(self, last: bytes) -> None:
        """After `stop`, send `last` and wait until the other end has closed the pipe in turn, or for a second."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_FAREWELL):
                self._writer.write(last)
                # Were the pipe closed with something unread, a reset might overtake the last words.
                while await self._reader.read(4 * PIECE):
                    pass
        self._writer.transport.abort()

    async def _pull(self) -> None:
        while data := await self._reader.read(4 * PIECE):
            self._heard = _now()
            self._doubt(False)
            self._core.receive(data)
        raise ConnectionResetError("the other end closed the pipe")

    async def _push(self) -> None:
        while True:
            await self._sendable.wait()
            self._sendable.clear()
            while frames := self._core.take():
                self._writer.writelines(frames)
                await self._writer.drain()

    async def _feel(self) -> None:
        while True:
            self._core.ping(round(_now() * 1e6))
            ahead = time.time() - _now()
            await asyncio.sleep(self._interval)
            silent = _now() - self._heard
            if silent > DEAD * self._interval:
                raise TimeoutError(f"nothing came over the pipe for {silent:.0f} s")
            # The monotonic clock stands still while a laptop sleeps, the wall clock does not.
            slept = abs(time.time() - _now() - ahead) > _SLEPT
            if slept or silent > SUSPECT * self._interval:
                self._doubt(True)

    def _doubt(self, suspect: bool) -> None:
        if suspect != self._suspect:
            self._suspect = suspect
            self._doubted(suspect)

    def _done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        died = self._died
        self.close()
        if not isinstance(error, OSError):
            asyncio.get_running_loop().call_exception_handler({"message": "a link's pipe failed", "exception": error})
        died(str(error))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _shorten_queue(writer: asyncio.StreamWriter) -> None:
    """Keep little between the core and the wire, so that a bulk transfer delays a small write by little."""
    writer.transport.set_write_buffer_limits(high=PIECE)
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2 * PIECE)
