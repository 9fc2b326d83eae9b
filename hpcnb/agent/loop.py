"""The one event loop of a client process, in a thread of its own, and how to wait for it from others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """An asyncio loop in a daemon thread.

    A kernel's main thread is the user's: while a cell runs, only another thread can hear of anything.
    """

    def __init__(self) -> None:
        self.asyncio_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hpcnb", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.asyncio_loop)
        self.asyncio_loop.run_forever()

    @property
    def is_here(self) -> bool:
        """Whether this is its own thread, which must not wait for it."""
        return threading.current_thread() is self._thread

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self.asyncio_loop)

    def run(self, work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
        """Run a coroutine and wait for it, as `run_on` does."""
        return run_on(self.asyncio_loop, work, timeout)


def run_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run a coroutine on the loop of another thread and wait for it; Ctrl-C, or `TimeoutError`, cancels it and is raised here."""
    running = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return running.result(timeout)
    except BaseException:
        running.cancel()
        raise


_lock = threading.Lock()
_background: BackgroundLoop | None = None


def background() -> BackgroundLoop:
    """The process's loop, started when first needed."""
    global _background
    with _lock:
        if _background is None:
            _background = BackgroundLoop()
        return _background
