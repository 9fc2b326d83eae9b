"""A shell is how a site is reached: run a command, move a file, open a byte pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A command that ended: its exit status, all it wrote, and what the login shell had said by itself before (`chatter`)."""

    returncode: int
    stdout: bytes
    stderr: bytes
    chatter: bytes = b""

    @property
    def out(self) -> str:
        return self.stdout.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        return self.stderr.decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A question that only the user can answer.

    Parameters
    ----------
    kind : str
        ``"secret"`` (a password or code: no echo, never kept), ``"text"`` (echoed), ``"confirm"`` (answer ``yes`` or ``no``), or ``"notice"``
        (nothing to answer: who waits is told for what).
    title : str
        Who asks, and for what.
    text : str
        The question as the server put it.
    """

    kind: str
    title: str
    text: str


Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""A connection, as `asyncio.open_connection` gives it."""

Ask = Callable[[Prompt], Awaitable[str]]
"""Puts a question to whoever started the connection; raises `AuthenticationFailed` when nobody can answer."""


class Shell(Protocol):
    """One connection to a site, shared by all that use the site. Safe for concurrent use.

    Paths are absolute. A failed file operation raises `OSError` with the errno and path that the site gave;
    a connection that cannot be made or is lost raises `ConnectionFailed`, `AuthenticationFailed` or `HostKeyMismatch`.
    """

    name: str
    """What errors call this end: ``"this machine"`` or the host."""

    @property
    def alive(self) -> bool:
        """Whether the connection is still there, as far as this end can tell."""

    @property
    def login_ends(self) -> float | None:
        """POSIX time at which the certificate that opened it expires, and a new connection would be refused."""

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        """Run a command given as a list (no shell ever sees an unquoted word); raises `TimeoutError`."""

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """Read at most `limit` bytes from `offset`; a negative `offset` counts from the end."""

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Write a whole file: aside with its final mode from the first byte, fsync, rename."""

    async def mkdir(self, path: str) -> None:
        """Make a directory and its missing parents, each 0700; one that exists is left as it is."""

    async def list(self, path: str) -> list[str]:
        """The names in a directory, in order."""

    async def remove(self, path: str) -> None:
        """Delete a file."""

    async def dial(self, host: str, port: int) -> Pipe:
        """Open a TCP connection *from the site* (from its login node); it is the caller's to close."""

    async def pipe(self, argv: Sequence[str]) -> Pipe:
        """Start a command; its stdin is what is written to the pipe, its stdout and stderr what is read.

        The pipe is like that of `dial`. What a login shell prints may come first. The command is to end with its stdin.
        """

    async def close(self) -> None:
        """End the connection. Every pipe from `dial` and `pipe` sees its end."""
