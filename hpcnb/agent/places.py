"""Where the agent keeps its things on the user's machine, and that nobody else can reach them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs

from hpcnb.errors import ConfigError


def private_directory(path: Path) -> Path:
    """Make a directory 0700, or refuse one that another user could read, write or has made.

    Raises
    ------
    ConfigError
        It belongs to somebody else, is a link, or is open to others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"{path} is not a directory of yours",
            remedy="Somebody may be waiting there for your connections: remove it, or set XDG_RUNTIME_DIR.",
        )
    if found.st_mode & 0o077:
        raise ConfigError(f"{path} is open to other users", remedy=f"chmod 700 {path}")
    return path


def runtime() -> Path:
    """Sockets and locks: ``$XDG_RUNTIME_DIR/hpcnb``, gone after a reboot."""
    return private_directory(Path(platformdirs.user_runtime_dir("hpcnb")))


def data() -> Path:
    """What must outlive the agent: its log and what it knows of its clusters."""
    return private_directory(Path(platformdirs.user_data_dir("hpcnb")))


def agent_socket() -> Path:
    return runtime() / "agent.sock"


def agent_lock() -> Path:
    return runtime() / "agent.lock"


def agent_log() -> Path:
    return data() / "agent.log"


def records() -> Path:
    """One file for each cluster that has not ended, and for the last ones that have."""
    return private_directory(data() / "clusters")


def stream_socket(cluster: str, stream: str) -> Path:
    """Where a stream into a cluster is reached (``scheduler``, ``session``)."""
    return runtime() / cluster / f"{stream}.sock"
