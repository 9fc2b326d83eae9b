"""The end of Python, which is not the end of a notebook's futures: its client says that it leaves, and drops nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from hpcnb.errors import HPCError
from hpcnb.model import State
from hpcnb.notebook_name import shell

if TYPE_CHECKING:
    from hpcnb.kept import NotebookClient

__all__ = ["FAREWELL", "farewell", "leave"]

FAREWELL = 1.0
"""Seconds that the end of Python is held up for it."""
CONNECTING = 10.0
"""The same for what is submitted to a cluster that is ready, but not connected yet."""


def leave(known: weakref.ref[NotebookClient]) -> None:
    """Have a client leave before Python drops its futures one by one."""
    client = known()
    if client is None or client.status in ("closing", "closed"):
        return
    loop: Any = client.loop
    if loop.asyncio_loop.is_running() and _all_sent(client):
        client.looks.settle(FAREWELL)
        client.printed.settle(at_once=True)
        with contextlib.suppress(TimeoutError):  # then it is dropped without a word, which is as good
            asyncio.run_coroutine_threadsafe(farewell(client), loop.asyncio_loop).result(FAREWELL)


def _all_sent(client: NotebookClient) -> bool:
    """See to it that what was submitted has left this process, if the cluster is there; else say that it is lost.

    A script waits for its cluster, as it would for threads of its own. A kernel has no time for that.
    """
    number = sum(len(batch.indices) for batch in client.ledger.known())
    ready = client.handle is not None and client.handle.status.state is State.READY
    waits = not ready and bool(number) and shell() is None
    if not client.connected and (ready or waits):
        with contextlib.suppress(HPCError, OSError, TimeoutError, KeyboardInterrupt, CancelledError):
            if waits:
                sys.stderr.write(
                    f"hpcnb: the end of Python waits for the cluster to take {number} calls; Ctrl-C gives them up\n"
                )
            client.finish_connecting(None if waits else CONNECTING)
    if not client.connected and number:
        sys.stderr.write(f"hpcnb: {number} submitted calls are lost: their cluster was not ready when Python ended\n")
    return client.connected


async def farewell(client: Any) -> None:
    """Say that a client leaves, behind all that it has said, and say nothing more."""
    await asyncio.sleep(0)  # what was dropped is said in two steps
    await asyncio.sleep(0)
    for periodic in client._periodic_callbacks.values():  # noqa: SLF001 - else it would go on saying that it is there
        periodic.stop()
    client.status = "closed"
    if (comm := client.scheduler_comm) is not None:
        with contextlib.suppress(OSError):
            comm.send({"op": "close-client"})
            await comm.close()
