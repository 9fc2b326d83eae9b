"""The processes that a session's kernel started: found, and ended if need be by force."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable

import psutil

__all__ = ["end", "of_kernel"]

STEPS = ((signal.SIGINT, 0.6), (signal.SIGTERM, 0.4), (signal.SIGKILL, 0.4))
"""What a process is told, and for how many seconds it may think about it."""
SLACK = 0.05
"""Seconds by which the start of a process as /proc tells it may be early."""


def of_kernel(kernel: int, since: float = 0.0) -> list[psutil.Process]:
    """Return the processes that descend from a kernel, or are left in its session, started after `since` (POSIX time)."""
    found = {process.pid: process for process in _descendants(kernel)}
    for process in psutil.process_iter():
        if process.pid not in found and process.pid != kernel and _session(process.pid) == kernel:
            found[process.pid] = process
    return [process for process in found.values() if _started(process) >= since - SLACK]


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


def _started(process: psutil.Process) -> float:
    try:
        started: float = process.create_time()
    except psutil.NoSuchProcess:
        return -1.0
    return started


async def end(processes: Iterable[psutil.Process], steps: Iterable[tuple[signal.Signals, float]] = STEPS) -> None:
    """End processes: by interrupt, by termination, by force; returns as soon as none is left."""
    left = list(processes)
    for number, patience in steps:
        left = [process for process in left if _alive(process)]
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        await asyncio.to_thread(psutil.wait_procs, left, timeout=patience)


def _alive(process: psutil.Process) -> bool:
    try:
        # A zombie is gone; it only waits for its parent to take notice.
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
