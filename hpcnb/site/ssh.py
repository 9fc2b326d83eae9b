"""A site that is reached by SSH: one connection, many channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpcnb.errors import ConnectionFailed
from hpcnb.site.shell import Ask, Completed, Pipe
from hpcnb.site.ssh_channel import streams
from hpcnb.site.ssh_config import Config, Endpoint
from hpcnb.site.ssh_files import Files
from hpcnb.site.ssh_link import forward, reach
from hpcnb.site.ssh_run import Commands
from hpcnb.site.ssh_sessions import Sessions
from hpcnb.site.ssh_transport import Transport
from hpcnb.site.ssh_watch import watch

_DIAL_TIMEOUT = 30.0
_WARM_UP_TIMEOUT = 10.0


async def route_to(host: str, config_file: Path | None = None) -> Sequence[Endpoint]:
    """The servers between here and a login node, which is the last, as the user's OpenSSH configuration has them.

    Raises
    ------
    ConfigError
        That configuration is wrong.
    """
    return await asyncio.to_thread(lambda: Config(config_file).route(host))


class SSHShell:
    """The shell of a site behind a login node; see `hpcnb.site.shell.Shell`, and `connect` for a new one.

    Once lost it stays lost: every method raises `ConnectionFailed`, and the owner connects anew.
    """

    def __init__(self, name: str, route: Sequence[Endpoint], links: Sequence[Transport]) -> None:
        self.name = name
        self._links = links
        self._transport = links[-1]
        sessions = Sessions(self._transport)
        self._commands = Commands(self._transport, sessions)
        self._files = Files(self._transport, sessions)
        self._watch = asyncio.create_task(watch(links, route[0]), name=f"watch over {name}")

    @classmethod
    async def connect(
        cls, host: str, *, ask: Ask, config_file: Path | None = None, timeout: float | None = None
    ) -> SSHShell:
        """Connect and log in, as the user's OpenSSH configuration says.

        Parameters
        ----------
        host : str
            An alias of that configuration, or a host name; ``user@host:port`` will do too.
        ask : Ask
            Answers what only the user knows: an unknown host key, a passphrase, a password, a code.
        config_file : Path, optional
            Instead of the user's and the machine's.
        timeout : float, optional
            Seconds for each connection to be made, instead of what the configuration says.

        Raises
        ------
        ConnectionFailed, HostKeyMismatch, AuthenticationFailed, ConfigError
        """
        route = await route_to(host, config_file)
        if timeout is not None:
            route = tuple(replace(end, connect_timeout=timeout) for end in route)
        shell = cls(host, route, await reach(route, ask))
        try:
            await shell._warm_up()
        except BaseException:
            await shell.close()
            raise
        return shell

    async def _warm_up(self) -> None:
        # sshd sends small pieces without delay only after it has started something: so the session for files, now.
        with contextlib.suppress(ConnectionFailed, TimeoutError):  # told to whoever wants a file
            async with asyncio.timeout(_WARM_UP_TIMEOUT):
                await self._files.open()

    @property
    def alive(self) -> bool:
        return all(link.is_active() for link in self._links)

    @property
    def login_ends(self) -> float | None:
        return min((link.login_ends for link in self._links if link.login_ends), default=None)

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        return await self._commands.run(argv, stdin, timeout)

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        return await self._files.read(path, offset, limit)

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        await self._files.write(path, data, mode)

    async def mkdir(self, path: str) -> None:
        await self._files.mkdir(path)

    async def list(self, path: str) -> list[str]:
        return await self._files.list(path)

    async def remove(self, path: str) -> None:
        await self._files.remove(path)

    async def pipe(self, argv: Sequence[str]) -> Pipe:
        return streams(await self._commands.start(argv))

    async def dial(self, host: str, port: int) -> Pipe:
        return streams(await forward(self._transport, host, port, timeout=_DIAL_TIMEOUT, where=self.name))

    async def close(self) -> None:
        self._watch.cancel()
        for link in reversed(self._links):
            await asyncio.to_thread(link.close)
