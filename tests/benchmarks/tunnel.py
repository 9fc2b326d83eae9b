"""The processes of a tunnel, each on its own as in reality: ``python -m tests.benchmarks.tunnel ROLE ...``.

They say one line when they are ready, and end with their stdin.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

CLUSTER = "c0ffee"
STREAM = "scheduler"
REQUEST = struct.Struct("!cQ")
"""What is asked of the service: `DOWN`, `UP`, `ECHO` or `PIECES`, and how many bytes."""
DOWN, UP, ECHO, PIECES = b"d", b"u", b"e", b"p"
_CHUNK = bytes(1 << 20)


def service() -> None:
    """What is at the far end: a TCP server with a thread a connection."""
    server = socket.create_server(("127.0.0.1", 0), backlog=200)
    threading.Thread(target=_accept, args=(server,), daemon=True).start()
    ready(str(server.getsockname()[1]))


def _accept(server: socket.socket) -> None:
    while True:
        sock, _ = server.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(sock,), daemon=True).start()


def _answer(sock: socket.socket) -> None:
    with sock:
        while question := sock.recv(REQUEST.size, socket.MSG_WAITALL):
            what, size = REQUEST.unpack(question)
            if what == DOWN:
                send(sock, size)
            elif what == UP:
                receive(sock, size)
                sock.sendall(b"!")
            elif what == ECHO:
                sock.sendall(bytes(size))
            else:
                sock.sendall(b"1")
                time.sleep(0.0002)  # or both would travel in one packet
                sock.sendall(b"2")


def send(sock: socket.socket, size: int) -> None:
    """Send so many bytes."""
    while size:
        size -= sock.send(_CHUNK[:size] if size < len(_CHUNK) else _CHUNK)


def receive(sock: socket.socket, size: int) -> None:
    """Receive so many bytes and forget them."""
    while size:
        got = len(sock.recv(min(size, len(_CHUNK))))
        if not got:
            raise EOFError("the tunnel is gone")
        size -= got


def gateway(folder: str, port: str) -> None:
    """The allocation's end: a real gateway before that service."""
    from hpcnb.pilot.route.gateway import Gateway
    from hpcnb.pilot.run import Run

    async def serve() -> None:
        run = Run.load(folder)
        run.publish("scheduler.json", {"address": f"tls://127.0.0.1:{port}"})
        server = Gateway(run, "127.0.0.1", control=lambda stream: stream.read())
        run.publish("pilot.json", {"gateway": await server.start()})
        await asyncio.to_thread(ready, "")
        await server.close()

    asyncio.run(serve())


def agent(folder: str, config: str) -> None:
    """The user's end: one SSH connection, and the agent's connection to the cluster through it."""
    from hpcnb.agent.connection import Connection, Ears
    from hpcnb.agent.record import ClusterRecord, JobRecord
    from hpcnb.agent.sites import Site
    from hpcnb.config import SiteConfig
    from hpcnb.model import ClusterStatus, State
    from hpcnb.pilot.run import Run
    from hpcnb.site.authority import Identity

    async def keep() -> None:
        run, told = Run.load(folder), json.loads(Path(folder, "agent.json").read_text())
        kept = ClusterRecord(
            status=ClusterStatus(id=CLUSTER, spec=run.spec, state=State.STARTING),
            jobs=(JobRecord(index=0, token=run.token, path=folder),),
            authority_certificate=told["authority"],
            authority_key="",
            secret=told["secret"],
        )
        site = Site(SiteConfig(name="site", host="site", ssh_config=config, link="direct"))
        up, runs = asyncio.Event(), asyncio.Event()
        runs.set()
        connection = Connection(kept, site, identity=Identity(certificate=told["certificate"], key=told["key"]))
        ears = Ears(link=lambda route: route and up.set(), trouble=print, event=print)
        keeping = asyncio.create_task(connection.keep(ears, runs=runs))
        await up.wait()
        await asyncio.to_thread(ready, "")
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await connection.close()
        await site.close()

    asyncio.run(keep())


def kernel() -> None:
    """A kernel whose cell runs a loop; it says how many turns that took in each quarter of a second."""
    threading.Thread(target=_leave, daemon=True).start()
    print("ready", flush=True)
    while True:
        turns, end = 0, time.perf_counter() + 0.25
        while time.perf_counter() < end:
            turns += 1
        print(turns, flush=True)


def _leave() -> None:
    sys.stdin.read()
    os._exit(0)


def ready(word: str) -> None:
    """Say so, and wait for the end."""
    print(f"ready {word}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    roles = {"service": service, "gateway": gateway, "agent": agent, "kernel": kernel}
    roles[sys.argv[1]](*sys.argv[2:])
