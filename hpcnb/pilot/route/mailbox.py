"""A pipe made of files: each end writes numbered files into one folder and takes them out of the other.

A file appears by rename and so is whole; who has read it deletes it. An empty one is the end. Of what has not been taken yet there
are at most `BUDGET` bytes; beyond it the sender waits. Both ends look often while there is traffic, and ever more rarely
while there is none. They look by listing the folder: what a shared file system remembers of a single file may be long out of date.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import shutil
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from hpcnb.errors import HPCError
from hpcnb.pilot.written import write_whole

log = logging.getLogger(__name__)

PIECE = 256 << 10
BUDGET = 16 * PIECE
FASTEST, SLOWEST = 0.01, 0.5
"""Seconds between two looks."""
_PARTING = 10.0
"""Seconds that the agent has for our last words."""

_running: set[asyncio.Task[None]] = set()  # the loop itself would let them be collected


class Files(Protocol):
    """What a mailbox needs of a place; a `hpcnb.site.shell.Shell` has it."""

    async def list(self, path: str) -> list[str]: ...

    async def read(self, path: str) -> bytes: ...

    async def write(self, path: str, data: bytes) -> None: ...

    async def remove(self, path: str) -> None: ...


def pipe(
    files: Files, *, inbox: str, outbox: str, then: Callable[[bool], Awaitable[None]] | None = None
) -> socket.socket:
    """One end of a mailbox, as a connected, non-blocking socket of the caller's.

    Parameters
    ----------
    files : Files
    inbox, outbox : str
        The folders to take from and to write to.
    then : coroutine function, optional
        Called when the pipe has ended, with whether the other end ended it.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    task = asyncio.create_task(_carry(theirs, files, inbox, outbox, then), name=f"mailbox {inbox}")
    _running.add(task)
    task.add_done_callback(_running.discard)
    return ours


async def _carry(
    sock: socket.socket, files: Files, inbox: str, outbox: str, then: Callable[[bool], Awaitable[None]] | None
) -> None:
    stirred = asyncio.Event()
    with sock:
        told = await _first(_receive(sock, files, inbox, stirred), _send(sock, files, outbox, stirred))
    if then is not None:
        await then(told)


async def _first(*works: Coroutine[Any, Any, None]) -> bool:
    """Run until one has ended; return whether it was the first. A lost place is an end, too."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        try:
            for task in done:
                task.result()
        except (OSError, HPCError) as exc:
            log.info("a mailbox ended: %s", exc)
        return tasks[0] in done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send(sock: socket.socket, files: Files, outbox: str, stirred: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    waiting: dict[str, int] = {}  # written and, as far as we know, not taken yet
    number, data = 0, b"-"
    while data:
        data = await loop.sock_recv(sock, PIECE)
        if data and not await _room(files, outbox, waiting, sock):
            return
        await files.write(f"{outbox}/{_name(number)}", data)
        waiting[_name(number)] = len(data)
        number += 1
        stirred.set()  # an answer may come soon


async def _room(files: Files, outbox: str, waiting: dict[str, int], sock: socket.socket) -> bool:
    """Wait until the other end has taken enough; False if our own has gone and cares no more."""
    pause = FASTEST
    while sum(waiting.values()) + PIECE > BUDGET:
        if _gone(sock):
            return False
        there = set(await files.list(outbox))
        for name in waiting.keys() - there:
            del waiting[name]
            pause = 0.0
        await asyncio.sleep(pause)
        pause = min(max(2 * pause, FASTEST), SLOWEST)
    return True


def _gone(sock: socket.socket) -> bool:
    """Whether the other end of a socket pair is closed for good, whatever is still to be read."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


async def _receive(sock: socket.socket, files: Files, inbox: str, stirred: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    number, pause = 0, FASTEST
    while True:
        stirred.clear()
        there = set(await files.list(inbox))
        ready = []
        while (name := _name(number)) in there:
            ready.append(f"{inbox}/{name}")
            number += 1
        pieces = await asyncio.gather(*map(files.read, ready))
        await asyncio.gather(*map(files.remove, ready))
        for data in pieces:
            if not data:
                return
            await loop.sock_sendall(sock, data)
        pause = FASTEST if ready else min(2 * pause, SLOWEST)
        if not ready and await _happens(stirred, pause):
            pause = FASTEST


async def _happens(event: asyncio.Event, within: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            return await event.wait()
    return False


def _name(number: int) -> str:
    return f"{number:010}"


class Here:
    """The files of this machine."""

    async def list(self, path: str) -> list[str]:
        return await asyncio.to_thread(os.listdir, path)

    async def read(self, path: str) -> bytes:
        return await asyncio.to_thread(Path(path).read_bytes)

    async def write(self, path: str, data: bytes) -> None:
        await asyncio.to_thread(write_whole, Path(path), data)

    async def remove(self, path: str) -> None:
        await asyncio.to_thread(os.unlink, path)


def answer(folder: Path) -> socket.socket:
    """The pilot's end of the mailbox that the agent has made; when the pipe has ended, nothing is left of it."""
    down, up = folder / "down", folder / "up"
    for path in (down, up):
        path.mkdir(mode=0o700, exist_ok=True)  # the agent may be about to

    async def clear(told: bool) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PARTING):
                while not told and any(up.iterdir()) and not any(down.iterdir()):  # noqa: ASYNC110 (files tell nothing)
                    await asyncio.sleep(SLOWEST / 5)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    return pipe(Here(), inbox=str(down), outbox=str(up), then=clear)
