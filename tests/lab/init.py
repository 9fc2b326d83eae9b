"""The first process of a host: lays out its files, says so, and stays. When it ends, the kernel ends all of the host.

It is run by path, as a program: what it mounts may hide the project.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

MS_BIND, MS_REC = 4096, 16384

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """The system call: mount(8) would look a source up by a name that has just been hidden."""
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()):
        raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())}: mount {source}", target)


def main(plan: dict[str, dict[str, str]]) -> None:
    """Mount, announce, wait for the owner's end."""
    opened = {target: os.open(source, os.O_PATH) for target, source in plan["binds"].items()}
    for target, options in plan["empty"].items():
        mount("tmpfs", target, "tmpfs", options=options)
    for target, descriptor in opened.items():
        if not os.path.lexists(target):
            Path(target).mkdir(parents=True)
        mount(f"/proc/self/fd/{descriptor}", target, "none", MS_BIND | MS_REC)
        os.close(descriptor)
    socket.sethostname(plan["host"]["name"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel reaps the orphans of this host
    print("ready", flush=True)  # noqa: T201 - to the owner
    # Whoever holds the other end of this pipe owns the host; his death, however sudden, ends it.
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
