"""Work that blocks, in threads, so that the server's loop does not: a few at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from hpcnb.errors import HPCError

__all__ = ["Aside"]

MOST = 8
"""So many at a time: a site that hangs must not have the server collect threads."""

T = TypeVar("T")


class Aside:
    """Threads of our own. Those of `asyncio.to_thread` keep a server that ends until a site that hangs has answered."""

    def __init__(self) -> None:
        self._busy = 0
        self._shared: dict[str, asyncio.Future[Any]] = {}

    async def run(self, work: Callable[[], T]) -> T:
        """Do it in a thread; raises what it raises.

        Raises
        ------
        HPCError
            Too much is under way already; nothing was done.
        """
        return await asyncio.shield(self._start(work))

    async def share(self, what: str, work: Callable[[], T]) -> T:
        """The same for what many ask at once: all who come while it is under way have its answer."""
        if what not in self._shared:
            running = self._shared[what] = self._start(work)
            running.add_done_callback(lambda done: self._shared.pop(what))
        answer: T = await asyncio.shield(self._shared[what])
        return answer

    def _start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._busy >= MOST:
            raise HPCError(f"{MOST} requests are under way already", remedy="Ask again when a site has answered.")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(self._ended)

        def tell(say: Callable[[Any], None], what: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(partial(say, what))

        def thread() -> None:
            try:
                found = work()
            except BaseException as exc:  # raised where it is waited for
                tell(done.set_exception, exc)
            else:
                tell(done.set_result, found)

        self._busy += 1
        threading.Thread(target=thread, name="hpcnb aside", daemon=True).start()
        return done

    def _ended(self, done: asyncio.Future[Any]) -> None:
        self._busy -= 1
        done.exception()  # whoever asked may have gone
