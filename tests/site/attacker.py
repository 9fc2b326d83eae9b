"""Another user of the same machine: becomes one, tries everything, and tells what it got.

``python attacker.py UID`` reads its targets from stdin, a JSON object, and writes what it found to stdout: a list of
``[attack, target, what it got]``. An attack that got nothing is not listed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

from distributed import Client
from distributed.security import Security

PATIENCE = 1.5
"""Seconds that something may take to answer."""

PAGES = ("/", "/health", "/info/main/workers.html", "/json/identity.json", "/metrics", "/sitemap.json", "/status")
GARBAGE = b"\x80\x04\x95" + bytes(range(256))


async def talk(host: str, port: int, data: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Say something to a port, and return the answer."""
    heard = b""
    # Whatever is refused, and however, got nothing.
    with contextlib.suppress(OSError, TimeoutError, EOFError):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                writer.write(data)
                while piece := await reader.read(65536):
                    heard += piece
            finally:
                writer.transport.abort()
    return heard


async def garbage(host: str, port: int) -> str:
    """Noise may be answered by a complaint of TLS, which says nothing."""
    heard = await talk(host, port, GARBAGE)
    return repr(heard[:200]) if heard and not alert(heard) else ""


async def pages(host: str, port: int) -> str:
    """There are none, not even one that says so."""
    asked = (talk(host, port, f"GET {page} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()) for page in PAGES)
    found = zip(PAGES, await asyncio.gather(*asked), strict=True)
    return "; ".join(f"{page}: {heard[:200]!r}" for page, heard in found if heard and not alert(heard))


def alert(heard: bytes) -> bool:
    """Whether this is no more than TLS's own complaint."""
    return heard[:1] == b"\x15" and len(heard) <= 7


async def tls(host: str, port: int, identity: str = "") -> str:
    """Whoever shows no certificate, or one of another authority, hears nothing."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if identity:
        context.load_cert_chain(identity)
    return repr(heard[:200]) if (heard := await talk(host, port, b"GET / HTTP/1.0\r\n\r\n", context)) else ""


async def dask(host: str, port: int, identity: str = "") -> str:
    """Dask's own client does not get in, with or without TLS."""
    security, scheme = None, "tcp"
    if identity:
        scheme = "tls"
        security = Security(
            tls_ca_file=identity, tls_client_cert=identity, tls_client_key=identity, require_encryption=True
        )
    try:
        async with asyncio.timeout(2 * PATIENCE):
            await Client(f"{scheme}://{host}:{port}", asynchronous=True, timeout=PATIENCE, security=security)
            return "connected"
    except Exception:  # also what Dask makes of an answer that is none of Dask's
        return ""


def unix_socket(path: str) -> str:
    """Connect, and see whether anybody answers."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            return repr(heard) if (heard := sock.recv(100)) else ""
        except OSError:
            return ""


def opened(path: str) -> str:
    """Read a file, list a directory, or put something into it."""
    got = []
    with contextlib.suppress(OSError):
        got.append(f"listed {list(Path(path).iterdir())[:3]}")
    with contextlib.suppress(OSError):
        got.append(f"read {Path(path).read_bytes()[:40]!r}")
    with contextlib.suppress(OSError):
        os.close(os.open(f"{path}/planted", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        got.append("wrote into it")
    return "; ".join(got)


def process(pid: int) -> str:
    """Look into a process, or signal it."""
    got = []
    for name in ("environ", "mem", "maps", "io"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            got.append(f"{name}: {file.read(40)!r}")
    with contextlib.suppress(OSError):
        got.append(f"fd: {list(Path(f'/proc/{pid}/fd').iterdir())}")
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        got.append("signal")
    return "; ".join(got)


async def attack(targets: dict[str, list]) -> list[tuple[str, object, str]]:
    """Try everything on everything, as much as possible at the same time."""
    calls = [
        (name, port, function(*port, *more))
        for port in targets.get("ports", ())
        for name, function, more in (
            ("garbage", garbage, ()),
            ("pages", pages, ()),
            ("TLS without a certificate", tls, ()),
            *((f"TLS with {identity}", tls, (identity,)) for identity in targets.get("identities", ())),
            ("Dask", dask, ()),
            *((f"Dask with {identity}", dask, (identity,)) for identity in targets.get("foreign", ())),
        )
    ]
    heard = await asyncio.gather(*(call for _, _, call in calls))
    found = [(name, port, got) for (name, port, _), got in zip(calls, heard, strict=True)]
    return [*found, *quiet(targets)]


def quiet(targets: dict[str, list]) -> Iterator[tuple[str, object, str]]:
    yield from (("socket", path, unix_socket(path)) for path in targets.get("sockets", ()))
    yield from (("file", path, opened(path)) for path in targets.get("files", ()))
    yield from (("process", pid, process(pid)) for pid in targets.get("processes", ()))


def main() -> None:
    targets = json.load(sys.stdin)
    logging.disable()  # Dask's client complains at length of every refusal
    uid = int(sys.argv[1])
    # All is imported: the other user may not be able to read this Python.
    os.chdir("/")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    loop = asyncio.new_event_loop()
    json.dump([row for row in loop.run_until_complete(attack(targets)) if row[2]], sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # Dask's clients would go on trying


if __name__ == "__main__":
    main()
