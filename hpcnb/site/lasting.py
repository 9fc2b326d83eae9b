"""A shell that outlives its connection: made again, when it was lost, by whoever needs it next."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from hpcnb.errors import AuthenticationFailed, HostKeyMismatch, SiteError
from hpcnb.site.shell import Ask, Completed, Pipe, Prompt, Shell
from hpcnb.site.tcp import NoAnswer

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)
"""Seconds between two attempts that nobody asked for; a login node bans who tries too often.

One that no login node has seen bans nobody: after `NoAnswer` the pause stays the first.
"""

WAITS = "another login is under way, and may be waiting for an answer where it was begun; this one goes on when that one ends"
SOON = 2.0
"""Seconds that one login waits for another without a word."""

LASTING = 10.0
"""Seconds after which a connection is not one that the login node ends as soon as it is made."""

FINAL = (AuthenticationFailed, HostKeyMismatch)
"""What another attempt without the user would only repeat; the next command of the user tries again."""


def _ignore(error: SiteError | None) -> None:
    """Stand in for a callback that nobody gave."""


class LastingShell:
    """A `Shell` that connects when it is first used, and again after a loss.

    Parameters
    ----------
    name : str
    connect : callable
        Makes a connection.
    refused : callable, optional
        Called with the error when a login needs the user, and with None when there is a connection.
    clock : callable
        Seconds, as `time.monotonic` counts them.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[Ask], Awaitable[Shell]],
        *,
        refused: Callable[[SiteError | None], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._connect = connect
        self._refused = refused
        self._clock = clock
        self._shell: Shell | None = None
        self._connecting = asyncio.Lock()
        self._made = asyncio.Event()  # cleared while it cannot be
        self._made_at = 0.0
        self._failures = 0
        self._failed_at = 0.0
        self._error: SiteError | None = None

    @property
    def alive(self) -> bool:
        return self._shell is not None and self._shell.alive

    @property
    def login_ends(self) -> float | None:
        return self._shell.login_ends if self._shell is not None else None

    async def connect(self, ask: Ask) -> Shell:
        """Have a connection, with somebody there to answer questions; tries at once, whatever happened before."""
        async with self._turn(ask):
            if self._shell is None or not self._shell.alive:
                if self._shell is not None:
                    await self._shell.close()
                    self._shell = None
                try:
                    self._shell = await self._connect(ask)
                except FINAL as exc:
                    self._refused(exc)
                    raise
                self._failures, self._error, self._made_at = 0, None, self._clock()
                self._made.set()
                self._refused(None)
            return self._shell

    @contextlib.asynccontextmanager
    async def _turn(self, ask: Ask) -> AsyncIterator[None]:
        """One login at a time; who has to wait for another one, which may wait for its user, is told so."""
        telling = asyncio.create_task(self._tell(ask)) if self._connecting.locked() else None
        try:
            await self._connecting.acquire()
        finally:
            if telling:
                telling.cancel()
        try:
            yield
        finally:
            self._connecting.release()

    async def _tell(self, ask: Ask) -> None:
        await asyncio.sleep(SOON)
        with contextlib.suppress(SiteError):  # nobody is there to be told
            await ask(Prompt(kind="notice", title=self.name, text=WAITS))

    async def _connected(self) -> Shell:
        if self._shell is not None and self._shell.alive:
            return self._shell
        if self._error and (isinstance(self._error, FINAL) or self._clock() < self._failed_at + self._pause()):
            raise self._error
        try:
            return await self.connect(_nobody)
        except SiteError as exc:
            self._failures, self._failed_at, self._error = self._failures + 1, self._clock(), exc
            self._made.clear()
            raise

    async def patience(self) -> None:
        """After an error, wait until another use makes sense: a pause is over, or the user has connected."""
        if self._error is None:  # the connection was just lost, or is no good
            if self.alive or self._clock() < self._made_at + LASTING:
                await asyncio.sleep(PAUSES[0])
            return
        pause = None if isinstance(self._error, FINAL) else self._failed_at + self._pause() - self._clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._made.wait()

    def _pause(self) -> float:
        if isinstance(self._error, NoAnswer):
            return PAUSES[0]
        return PAUSES[min(self._failures, len(PAUSES)) - 1]

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        return await (await self._connected()).run(argv, stdin=stdin, timeout=timeout)

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        return await (await self._connected()).read(path, offset=offset, limit=limit)

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        await (await self._connected()).write(path, data, mode=mode)

    async def mkdir(self, path: str) -> None:
        await (await self._connected()).mkdir(path)

    async def list(self, path: str) -> list[str]:
        return await (await self._connected()).list(path)

    async def remove(self, path: str) -> None:
        await (await self._connected()).remove(path)

    async def pipe(self, argv: Sequence[str]) -> Pipe:
        return await (await self._connected()).pipe(argv)

    async def dial(self, host: str, port: int) -> Pipe:
        return await (await self._connected()).dial(host, port)

    async def close(self) -> None:
        shell, self._shell = self._shell, None
        if shell is not None:
            with contextlib.suppress(SiteError):
                await shell.close()


async def _nobody(prompt: Prompt) -> str:
    raise AuthenticationFailed(
        f"{prompt.title}: {prompt.text.strip()}",
        remedy="The connection was lost and making it again needs you: `%hpc login SITE` asks.",
    )
