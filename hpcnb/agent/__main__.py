"""`python -m hpcnb.agent`: the per-user daemon. One at a time, guarded by a lock that dies with it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import logging.handlers
import os
import resource
import signal
import sys

from hpcnb.agent import places
from hpcnb.agent.server import Server
from hpcnb.link import lost_once

log = logging.getLogger("hpcnb.agent")

CHECK = 30.0
DESCRIPTORS = 8192
"""As many as the system allows, up to this: each stream of each kernel takes two."""


def main() -> int:
    """Run until stopped, handed over or idle; 0, also when another agent runs already."""
    os.umask(0o077)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    for number in (signal.SIGHUP, signal.SIGQUIT):
        # Whoever started us may ignore these (nohup); the jobs of this machine are not to inherit that.
        signal.signal(number, signal.SIG_DFL)
    lock = os.open(places.agent_lock(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    handler = logging.handlers.RotatingFileHandler(places.agent_log(), maxBytes=2 << 20, backupCount=1)
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    asyncio.run(_serve())
    return 0


async def _serve() -> None:
    server = Server()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lost_once)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.calls.ending.set)
    server.calls.resume()
    server.start()
    while not server.calls.ending.is_set() and not server.calls.is_idle():
        try:
            await asyncio.wait_for(server.calls.ending.wait(), CHECK)
        except TimeoutError:
            continue
    await server.stop()
    log.info("agent %d ends", os.getpid())


if __name__ == "__main__":
    sys.exit(main())
