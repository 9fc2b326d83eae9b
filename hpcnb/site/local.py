"""The machine we run on as a site: no SSH, the same contract."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcnb.errors import ConnectionFailed
from hpcnb.site import command, tcp
from hpcnb.site.shell import Completed, Pipe

_DIAL_TIMEOUT = 30.0
_PARTING = 2.0
"""Seconds that the commands behind pipes have to end with their stdin."""
_STARTING = 30.0
"""Seconds that a command may take to start, on a machine that is busy beyond measure."""


class LocalShell:
    """The shell of a site that is this very machine; see `hpcnb.site.shell.Shell`."""

    name = "this machine"

    def __init__(self) -> None:
        self._dialled: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._piped: set[asyncio.Task[int]] = set()  # to be waited for, or they would stay as zombies
        self._starting: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def alive(self) -> bool:
        return not self._closed

    @property
    def login_ends(self) -> float | None:
        return None

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        words = command.words(argv)
        self._check_open()
        try:
            child = await self._start(words)
        except OSError as error:
            # As over SSH, where only the remote shell can tell.
            missing = isinstance(error, FileNotFoundError)
            code = command.NOT_FOUND if missing else command.NOT_EXECUTABLE
            return Completed(returncode=code, stdout=b"", stderr=f"{words[0]}: {error.strerror}\n".encode())
        try:
            async with asyncio.timeout(timeout):
                child.feed(stdin)
                await child.complete
        except TimeoutError:
            raise command.slow(words, self.name, timeout) from None
        finally:
            await child.end()
        if child.flooded:
            raise command.flood(words, self.name)
        out, err = map(bytes, child.output.values())
        return Completed(returncode=child.returncode, stdout=out, stderr=err)

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        return await asyncio.to_thread(_read, path, offset, limit)

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        await asyncio.to_thread(_write, Path(path), data, mode)

    async def mkdir(self, path: str) -> None:
        await asyncio.to_thread(_mkdir, Path(path))

    async def list(self, path: str) -> list[str]:
        return sorted(await asyncio.to_thread(os.listdir, path))

    async def remove(self, path: str) -> None:
        await asyncio.to_thread(os.unlink, path)

    async def dial(self, host: str, port: int) -> Pipe:
        self._check_open()
        sock = await tcp.connect(host, port, timeout=_DIAL_TIMEOUT, where=self.name)
        self._dialled.add(sock)
        return await asyncio.open_connection(sock=sock)

    async def pipe(self, argv: Sequence[str]) -> Pipe:
        words = command.words(argv)
        self._check_open()
        ours, theirs = socket.socketpair()
        with theirs:
            end = theirs.fileno()
            try:
                child = await asyncio.create_subprocess_exec(
                    *words, stdin=end, stdout=end, stderr=end, start_new_session=True, umask=0o077
                )
            except BaseException as error:
                ours.close()
                if not isinstance(error, OSError):
                    raise
                raise ConnectionFailed(f"{words[0]}: {error.strerror}", where=self.name) from None
        self._piped.add(waiting := asyncio.create_task(child.wait()))
        waiting.add_done_callback(self._piped.discard)
        self._dialled.add(ours)
        return await asyncio.open_connection(sock=ours)

    async def close(self) -> None:
        self._closed = True
        for sock in list(self._dialled):
            with contextlib.suppress(OSError):  # its owner, or the other end, closed it before us
                sock.shutdown(socket.SHUT_RDWR)
        if self._starting:  # the end of the loop would cancel them half-way, and hang
            await asyncio.wait(self._starting, timeout=_STARTING)
        if self._piped:
            await asyncio.wait(self._piped, timeout=_PARTING)

    async def _start(self, words: Sequence[str]) -> _Child:
        loop = asyncio.get_running_loop()
        starting = loop.create_task(loop.subprocess_exec(_Child, *words, start_new_session=True, umask=0o077))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        try:
            _, child = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Cancelled half-way, asyncio would wait for ever for pipes that it never opened.
            starting.add_done_callback(_abandon)
            raise
        return child

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionFailed("this connection was closed", where=self.name)


def _abandon(starting: asyncio.Task[tuple[asyncio.SubprocessTransport, _Child]]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result()[1].kill()


class _Child(asyncio.SubprocessProtocol):
    """A child process with all that it writes; `complete` when it and its output have ended, or it wrote too much."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.output = {1: bytearray(), 2: bytearray()}
        self.flooded = False
        self.complete: asyncio.Future[None] = loop.create_future()
        self._exited = asyncio.Event()
        self._killed = self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 (for mypy: asyncio promises it)
        self._transport = transport

    def feed(self, stdin: bytes) -> None:
        pipe = self._transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)  # noqa: S101 (as above)
        pipe.write(stdin)
        pipe.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if not self.flooded:
            self.output[fd] += data
        if len(self.output[fd]) > command.OUTPUT_LIMIT:
            self.flooded = True
            self._finish()

    def process_exited(self) -> None:
        self._exited.set()
        if self._killed:
            self._transport.close()  # not before: it would take the exit status away from asyncio's watcher

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._finish()

    def _finish(self) -> None:
        if not self.complete.done():
            self.complete.set_result(None)

    @property
    def returncode(self) -> int:
        return self._transport.get_returncode() or 0

    def kill(self) -> None:
        """End the whole process group, unless all has ended by itself."""
        if not self._ended:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)
        if self._exited.is_set():
            self._transport.close()

    async def end(self) -> None:
        """Leave nothing of the child."""
        self.kill()
        await asyncio.shield(self._exited.wait())


def _read(path: str, offset: int, limit: int | None) -> bytes:
    with Path(path).open("rb") as file:
        if offset < 0:
            offset = max(0, file.seek(0, os.SEEK_END) + offset)
        file.seek(offset)
        return file.read() if limit is None else file.read(limit)


def _write(path: Path, data: bytes, mode: int) -> None:
    aside = path.with_name(f".{path.name[:32]}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _mkdir(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
    except FileNotFoundError:
        if path.parent == path:
            raise
        _mkdir(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
