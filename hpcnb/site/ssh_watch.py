"""Notice a connection that has died without a word: silent, while its server answers others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from hpcnb.errors import ConnectionFailed
from hpcnb.site import tcp
from hpcnb.site.ssh_config import Endpoint
from hpcnb.site.ssh_transport import Transport

TICK = 0.5
BUSY_SILENCE = 2.0
"""Seconds of silence after which whoever waits for the server wants to know."""

ANSWER = 2.0
PATIENCE, DEAR_PATIENCE = 1.0, 60.0
"""Seconds that a silent connection gets when the way is free; more where a new login needs the user."""

_PROBE_TIMEOUT = 5.0


async def watch(links: Sequence[Transport], first: Endpoint) -> None:
    """Keep a connection alive, and end it when it is dead.

    The way may be cut for long, and an old connection carries on when it is back: no reason to log in again. But after
    a change of network, or once a router has forgotten it, it never will, and nobody says so. Hence the test: it has
    died if it stays silent while the server greets a new connection.

    Parameters
    ----------
    links : sequence of Transport
        The connections of a route, each through the one before it.
    first : Endpoint
        The server that is reached directly.
    """
    last = links[-1]
    patience = DEAR_PATIENCE if any(link.dear for link in links) else PATIENCE
    answer = ANSWER
    while last.is_active():
        await asyncio.sleep(TICK)
        if time.monotonic() - last.heard_at < (BUSY_SILENCE if last.busy else first.alive_interval):
            continue
        asked_at = time.monotonic()
        last.ping()
        if await _heard(last, asked_at, answer):
            answer = ANSWER
            continue
        if not await _greets(first):
            answer = 0.0  # the way is cut, and what matters now is when it is back
            continue
        if await _heard(last, asked_at, patience):
            continue
        for link in reversed(links):
            link.farewell = f"silent for {time.monotonic() - last.heard_at:.0f} s, while {first.host} answers others"
            await asyncio.to_thread(link.close)


async def _heard(link: Transport, since: float, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while link.heard_at < since and link.is_active() and time.monotonic() < deadline:  # noqa: ASYNC110 (a thread hears)
        await asyncio.sleep(TICK / 5)
    return link.heard_at >= since or not link.is_active()


async def _greets(end: Endpoint) -> bool:
    """Whether a server says hello to a new connection."""
    try:
        with await tcp.connect(end.host, end.port, timeout=_PROBE_TIMEOUT, where=end.alias) as sock:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                return bool(await asyncio.get_running_loop().sock_recv(sock, 255))
    except (ConnectionFailed, OSError, TimeoutError):
        return False
