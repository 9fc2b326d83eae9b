"""Where the agent keeps its things on the user's machine, and that nobody else can reach them."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import platformdirs

from hpcnb.errors import ConfigError

LONGEST = 107 - len("/0123456789abcdef/scheduler.sock")
"""Bytes of a directory's path, of the 107 that the path of a unix socket may have."""

_ELSEWHERE = "Set XDG_RUNTIME_DIR (for sockets) or XDG_DATA_HOME (for records) to a directory of your own."


def private_directory(path: Path) -> Path:
    """Make a directory 0700, or refuse one that another user could read, write or has made.

    Raises
    ------
    ConfigError
        It belongs to somebody else, is a link, is open to others, or cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_parent(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as exc:
        raise ConfigError(f"{path} cannot be made: {exc.strerror}", remedy=_ELSEWHERE) from exc
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"{path} is not a directory of yours",
            remedy="Somebody may be waiting there for your connections: remove it, or set XDG_RUNTIME_DIR.",
        )
    if found.st_mode & 0o077:
        raise ConfigError(f"{path} is open to other users", remedy=f"chmod 700 {path}")
    return path


def _check_parent(path: Path) -> None:
    # Whoever can rename what is in it can put a directory of his own in the place of ours.
    found = path.stat()
    others_write = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.getuid()) or others_write:
        raise ConfigError(f"{path} belongs to another user, or others can change what is in it", remedy=_ELSEWHERE)


def runtime() -> Path:
    """Sockets and locks: ``$XDG_RUNTIME_DIR/hpcnb``, else ``/run/user/UID/hpcnb`` or ``/tmp/hpcnb-UID``; gone after a reboot."""
    user = os.getuid()
    given, system = os.environ.get("XDG_RUNTIME_DIR"), Path(f"/run/user/{user}")
    path = Path(given or system, "hpcnb")
    if not (given or system.is_dir()):
        # Not $TMPDIR, which a kernel and a terminal may see differently; whether another user was faster is checked.
        path = Path(f"/tmp/hpcnb-{user}")  # noqa: S108
    if len(os.fsencode(path)) > LONGEST:
        raise ConfigError(f"{path} is too long for the sockets in it", remedy=_ELSEWHERE)
    return private_directory(path)


def data() -> Path:
    """What must outlive the agent: its log and what it knows of its clusters."""
    return private_directory(Path(platformdirs.user_data_dir("hpcnb")))


def agent_socket() -> Path:
    """Where the agent listens."""
    return runtime() / "agent.sock"


def agent_lock() -> Path:
    """Held by the agent that runs; its pid is in it."""
    return runtime() / "agent.lock"


def agent_log() -> Path:
    """Where the agent writes its log."""
    return data() / "agent.log"


def records() -> Path:
    """One file for each cluster that has not ended, and for the last ones that have."""
    return private_directory(data() / "clusters")


def routes() -> Path:
    """By which route each site was reached last."""
    return data() / "routes.json"


def stream_socket(cluster: str, stream: str) -> Path:
    """Where a stream into a cluster is reached (``scheduler``, ``session``)."""
    return runtime() / cluster / f"{stream}.sock"
