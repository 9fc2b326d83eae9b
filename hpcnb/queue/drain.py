"""Carry out a queue's tasks in this very process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from hpcnb.pilot.queue.draining import Candidate
from hpcnb.pilot.queue.place import Place
from hpcnb.pilot.queue.worker import Worker


def drain(place: Place, call: Callable[[Any], Any] | None, script: str) -> None:
    """Own the queue, which has certificates, unless somebody does, and work until nothing is left to do."""
    began = threading.Event()
    owning: list[tuple[asyncio.AbstractEventLoop, Candidate]] = []
    errors: list[BaseException] = []

    async def own() -> None:
        candidate = Candidate(place, "127.0.0.1")
        owning.append((asyncio.get_running_loop(), candidate))
        began.set()
        await candidate.run()

    def thread() -> None:
        try:
            asyncio.run(own())
        except BaseException as exc:  # raised where the user is
            errors.append(exc)

    beside = threading.Thread(target=thread, name=f"owner of queue {place.name}", daemon=True)
    beside.start()
    began.wait()
    try:
        Worker(place, call=call, script=script, alone=lambda: bool(errors)).run()
    finally:
        loop, candidate = owning[0]
        if not errors:
            loop.call_soon_threadsafe(candidate.end)
        beside.join()
    if errors:
        raise errors[0]
