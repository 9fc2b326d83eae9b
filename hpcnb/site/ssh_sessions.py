"""The session channels of a connection: as many as its server allows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import paramiko

from hpcnb.errors import ConnectionFailed
from hpcnb.site.ssh_channel import ChannelTransport
from hpcnb.site.ssh_transport import Transport

_PAUSE, _LONGEST = 0.05, 1.0
_AT_FIRST, _LATER = 4, 60


class Sessions:
    """Opens sessions, and waits for one to end where a server (``MaxSessions``) refuses more."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._open: set[paramiko.Channel] = set()
        self._refusals = _AT_FIRST
        self._ended = asyncio.Event()
        self.limited = False
        """The server has refused a session."""
        self.spare: Callable[[], None] = lambda: None
        """Gives up a session that is open but idle, if there is one."""

    async def open(self, carrier: ChannelTransport | None = None) -> paramiko.Channel:
        """A session of the caller's, who gives it back by `end`; what comes over it goes to `carrier`.

        Raises
        ------
        ConnectionFailed
            The server refuses even one.
        """
        pause, refusals = _PAUSE, 0
        while True:
            self._ended.clear()
            try:
                channel = await self._transport.open("session", carrier=carrier)
            except paramiko.ChannelException as error:
                # A server counts a session for a moment after its end, and longer if what ran in it goes on.
                # One behind a pipe is not given back, it just ends.
                self._open = {channel for channel in self._open if not channel.closed}
                refusals += not self._open
                if refusals > self._refusals:
                    raise self._refused(error) from None
                self.spare()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._ended.wait()
                pause = min(2 * pause, _LONGEST)
                self.limited = True
            else:
                self._open.add(channel)
                self._refusals = _LATER
                return channel

    def end(self, channel: paramiko.Channel, first: Callable[[], None] | None = None) -> None:
        """Close a session, without waiting for it; do something else in a thread first."""
        self._open.discard(channel)
        with contextlib.suppress(ConnectionFailed):  # closed with its connection
            self._transport.submit(self._end, channel, first)

    def _end(self, channel: paramiko.Channel, first: Callable[[], None] | None) -> None:
        lost = (paramiko.SSHException, EOFError, OSError)
        with contextlib.suppress(*lost):
            if first is not None:
                first()
        with contextlib.suppress(*lost):
            channel.close()
            self._transport.flush()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ended.set)

    def _refused(self, error: paramiko.ChannelException) -> ConnectionFailed:
        if self._refusals == _AT_FIRST:
            what = "lets us in but runs nothing for us"
            remedy = "It may be a gateway: then name the login node as host, and this one as its ProxyJump."
        else:
            what, remedy = "allows no more sessions", "Something that an earlier command left may still run there."
        where = self._transport.where
        return ConnectionFailed(f"{where} {what}", where=where, evidence=error.text, remedy=remedy)
