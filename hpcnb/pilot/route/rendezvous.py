"""Where the agent cannot reach the pilot, it leaves word in a folder of the run directory, and the pilot comes.

``<name>.json`` names a relay on the login node and holds the token to show there; ``<name>/`` is a mailbox.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path

from hpcnb.pilot.route import mailbox

FOLDER = "rendezvous"
_PATIENCE = 4.0


def words(folder: Path) -> Sequence[Path]:
    """What the agent has left; seen by listing, since a shared file system may take its time to tell of a single file."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


async def meet(word: Path) -> socket.socket:
    """Follow a word: a connected, non-blocking socket of the caller's.

    Raises
    ------
    OSError
        Nobody is there any more, or it cannot be reached from here.
    """
    if word.suffix != ".json":
        return mailbox.answer(word)
    said = json.loads(await asyncio.to_thread(word.read_text))
    word.unlink(missing_ok=True)  # a token is good for once
    failures = []
    for host in dict.fromkeys(said["hosts"]):
        try:
            async with asyncio.timeout(_PATIENCE):
                return await _connect(host, said["port"], bytes.fromhex(said["token"]))
        except OSError as exc:
            failures.append(f"{host}: {exc or 'no answer'}")
    raise ConnectionRefusedError(f"no way to the relay at port {said['port']} ({'; '.join(failures)})")


async def _connect(host: str, port: int, token: bytes) -> socket.socket:
    loop = asyncio.get_running_loop()
    family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, token)
    except BaseException:
        sock.close()
        raise
    return sock
