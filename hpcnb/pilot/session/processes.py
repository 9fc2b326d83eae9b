"""The processes that a session's kernel started: found, and ended if need be by force."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence

import psutil

from hpcnb.pilot.born import born

__all__ = ["end", "now", "of_kernel", "stop"]

COURTESY = 0.5
"""Seconds that a process has to end by itself before it gets the next signal."""
SLACK = 0.01
"""Seconds by which the start of a process as /proc tells it may be early."""


def now() -> float:
    """Return seconds since the machine's start, by which the age of processes is told."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def of_kernel(kernel: int, since: float = 0.0, until: float = math.inf) -> list[psutil.Process]:
    """Return the processes that descend from a kernel, or are left in its session, started in a span of time (of `now`)."""
    found = {process.pid: process for process in _descendants(kernel)}
    for process in psutil.process_iter():
        if process.pid not in found and process.pid != kernel and _session(process.pid) == kernel:
            found[process.pid] = process
    return [process for process in found.values() if since - SLACK <= born(process.pid) <= until]


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


async def stop(kernel: int, since: float, until: Callable[[], float]) -> None:
    """End what an interrupted cell has started: the kernel's process group has had its SIGINT, the others get it now.

    Parameters
    ----------
    kernel : int
    since : float
        When the cell began.
    until : callable
        Says when it ended, once it has: what the next cell starts is left alone.
    """
    left = await asyncio.to_thread(of_kernel, kernel, since, until())
    for process in left:
        if _group(process.pid) != kernel:
            _tell(process, signal.SIGINT)
    await asyncio.to_thread(psutil.wait_procs, left, timeout=COURTESY)
    await end(await asyncio.to_thread(of_kernel, kernel, since, until()))


async def end(left: Sequence[psutil.Process]) -> None:
    """End processes, in the end by force; returns as soon as none is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = [process for process in left if _alive(process)]
        for process in left:
            _tell(process, number)
        if left:
            await asyncio.to_thread(psutil.wait_procs, left, timeout=COURTESY)


def _tell(process: psutil.Process, number: signal.Signals) -> None:
    # What has become another user is not ours to end.
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(number)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _alive(process: psutil.Process) -> bool:
    try:
        # A zombie is gone; it only waits for its parent to take notice.
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
