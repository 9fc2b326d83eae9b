"""The address of a node that the login node and the other nodes can reach."""

from __future__ import annotations

import os
import socket
import subprocess


def own_address(launcher: str) -> str:
    """Return this node's address.

    A machine that is a site by itself (`launcher` is not ``srun``) needs none but the loopback's. In Slurm a node's name is
    resolvable on most sites; where it is not, Slurm itself knows the address.
    """
    if launcher != "srun":
        return "127.0.0.1"
    name = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    if (address := _resolve(name)) and not address.startswith("127."):
        return address
    shown = subprocess.run(
        ["scontrol", "show", "node", name], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    words = shown.stdout.split()
    known = next((word.removeprefix("NodeAddr=") for word in words if word.startswith("NodeAddr=")), name)
    return _resolve(known) or socket.gethostbyname(socket.gethostname())


def _resolve(name: str) -> str:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return ""
