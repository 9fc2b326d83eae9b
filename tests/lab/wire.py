"""One end of a slow wire between two hosts: what this kernel's netem would be, if it had one.

Run on each host, by path. Packets that the host sends into the interface ``wire`` come out at the other end, through
a socket that both inherited: later, in another order, or never.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
LARGEST = 65536
OUTER = "198.18.0.0/25"


def interface() -> int:
    """Make the interface."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"wire", IFF_TUN | IFF_NO_PI))
    return tun


async def carry(tun: int, other: socket.socket, *, delay: float, jitter: float, loss: float) -> None:
    """Take packets from here and bring them there, until the other end has gone."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    chance = random.Random(1)  # the same faults each time

    def leave(packet: bytes) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # a full wire loses packets, as wires do
            other.send(packet)

    def depart() -> None:
        with contextlib.suppress(BlockingIOError):
            while packet := os.read(tun, LARGEST):
                if chance.random() >= loss:
                    loop.call_later(delay + chance.uniform(0, jitter), leave, packet)

    def arrive() -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while packet := other.recv(LARGEST):
                os.write(tun, packet)
            ended.set()

    loop.add_reader(tun, depart)
    loop.add_reader(other, arrive)
    print("ready", flush=True)  # noqa: T201 - to whoever laid the wire
    await ended.wait()


def main(descriptor: int, address: str, faults: dict[str, float]) -> None:
    """Make this end, route what goes to the other hosts of the outer network through it, and carry it."""
    tun = interface()
    other = socket.socket(fileno=descriptor)
    other.setblocking(False)
    subprocess.run(["ip", "link", "set", "wire", "up", "txqueuelen", "1000"], check=True)
    # A narrower net than that of the fast wire, which it therefore replaces, for connections that exist, too.
    subprocess.run(["ip", "route", "add", OUTER, "dev", "wire", "src", address], check=True)
    asyncio.run(carry(tun, other, **faults))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
