"""Carry out a queue's tasks in this very process."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from typing import Any

from hpcnb.pilot.queue.draining import Candidate
from hpcnb.pilot.queue.place import Place
from hpcnb.pilot.queue.wire import OWNER, WORKER
from hpcnb.pilot.queue.worker import Worker

_LIFETIME = 3600 * 24 * 3650


def certify(place: Place) -> None:
    """See to it that the queue has certificates for its owner and its workers."""
    if (place / "tls").is_dir():
        return
    from hpcnb.site.authority import Authority, Role  # cryptography is dear

    authority = Authority.create(f"queue {place.name}")
    files = {"ca.pem": authority.certificate}
    for role in (OWNER, WORKER):
        identity = authority.issue(Role(role), lifetime=_LIFETIME)
        files |= {f"{role}.pem": identity.certificate, f"{role}.key": identity.key}
    aside = place / f".tls.{secrets.token_hex(4)}"
    aside.mkdir(mode=0o700)
    for name, text in files.items():
        with open(os.open(aside / name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(text)
    try:
        aside.rename(place / "tls")
    except OSError:  # somebody was faster
        shutil.rmtree(aside)


def drain(place: Place, call: Callable[[Any], Any] | None, script: str) -> None:
    """Own the queue unless somebody does, and work until nothing is left to do."""
    certify(place)
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
