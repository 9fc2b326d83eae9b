"""Files at the far end of an SSH connection: read, written whole, listed, removed, directories made."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import posixpath
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import paramiko

from hpcnb.errors import ConnectionFailed
from hpcnb.site.sftp import CREATE, EXCLUSIVE, READ, WRITE, Sftp
from hpcnb.site.ssh_sessions import Sessions
from hpcnb.site.ssh_transport import Transport

T = TypeVar("T")

_CHUNK = 1 << 15


class Files:
    """The files of a site over one SFTP session, which is opened when needed and again when lost."""

    def __init__(self, transport: Transport, sessions: Sessions) -> None:
        self._transport = transport
        self._sessions = sessions
        self._opening = asyncio.Lock()
        self._sftp: Sftp | None = None
        sessions.spare = self._give_up

    async def read(self, path: str, offset: int, limit: int | None) -> bytes:
        return await self._with(_read, path, offset, limit)

    async def write(self, path: str, data: bytes, mode: int) -> None:
        await self._with(_write, path, data, mode)

    async def mkdir(self, path: str) -> None:
        await self._with(_mkdir, path)

    async def list(self, path: str) -> list[str]:
        return await self._with(Sftp.names, path)

    async def remove(self, path: str) -> None:
        await self._with(Sftp.remove, path)

    async def open(self) -> Sftp:
        """The session, made ready.

        Raises
        ------
        ConnectionFailed
            The server offers no SFTP.
        """
        async with self._opening:
            if self._sftp is not None and self._sftp.alive:
                return self._sftp
            self._end()
            channel = await self._sessions.open()
            try:
                self._sftp = await self._transport.call(_start, channel)
            except BaseException as error:
                self._sessions.end(channel)
                if isinstance(error, paramiko.SSHException | EOFError) and self._transport.is_active():
                    raise self._missing(error) from None
                raise
            return self._sftp

    def _give_up(self) -> None:
        if self._sftp is not None and self._sftp.idle:
            self._end()

    def _end(self) -> None:
        if self._sftp is not None:
            self._sessions.end(self._sftp.channel)
            self._sftp = None

    async def _with(self, function: Callable[..., T], path: str, *args: Any) -> T:
        """Call a function with the session; when that is lost on the way, all of them can be repeated."""
        with self._transport.translated():
            try:
                return await self._call(function, path, *args)
            except EOFError:
                if not self._transport.is_active():
                    raise
            try:
                return await self._call(function, path, *args)
            except EOFError as error:
                raise (self._missing(error) if self._transport.is_active() else error) from None

    async def _call(self, function: Callable[..., T], path: str, *args: Any) -> T:
        sftp = await self.open()
        sftp.enter()  # at once: a session that nobody uses may be given up
        future = self._transport.submit(_named, sftp, function, path, *args)
        future.add_done_callback(lambda _: sftp.leave())
        return await self._transport.outcome(future)

    def _missing(self, error: Exception) -> ConnectionFailed:
        return ConnectionFailed(
            f"{self._transport.where} offers no SFTP",
            where=self._transport.where,
            evidence=str(error) or "the session ended at once",
            remedy="Its sshd needs `Subsystem sftp internal-sftp`; a login shell that prints at start breaks it too.",
        )


def _start(channel: paramiko.Channel) -> Sftp:
    channel.invoke_subsystem("sftp")
    return Sftp(channel)


def _named(sftp: Sftp, function: Callable[..., T], path: str, *args: Any) -> T:
    try:
        return function(sftp, path, *args)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _read(sftp: Sftp, path: str, offset: int, limit: int | None) -> bytes:
    handle = sftp.open(path, READ)
    try:
        size = sftp.size(handle)
        start = offset if offset >= 0 else max(0, size + offset)
        if size:
            wanted = max(0, size - start)
            return sftp.read(handle, start, wanted if limit is None else min(limit, wanted))
        return _read_unsized(sftp, handle, start, limit)
    finally:
        sftp.close(handle)


def _read_unsized(sftp: Sftp, handle: bytes, start: int, limit: int | None) -> bytes:
    # The files of /proc say that they are empty.
    found = b""
    while (limit is None or len(found) < limit) and (piece := sftp.read(handle, start + len(found), _CHUNK)):
        found += piece
    return found if limit is None else found[:limit]


def _write(sftp: Sftp, path: str, data: bytes, mode: int) -> None:
    folder, name = posixpath.split(path)
    aside = posixpath.join(folder, f".{name[:32]}.{secrets.token_hex(8)}")
    try:
        _fill(sftp, aside, data, mode)
        sftp.replace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            sftp.remove(aside)
        raise


def _fill(sftp: Sftp, path: str, data: bytes, mode: int) -> None:
    handle = sftp.open(path, WRITE | CREATE | EXCLUSIVE, 0o600)
    try:
        sftp.chmod(handle, mode)
        sftp.write(handle, data)
        sftp.sync(handle)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        if sftp.is_full(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        # The protocol has no word for a quota either.
        raise OSError(errno.EIO, f"{error.strerror} to write {len(data)} bytes; is a quota exceeded?") from None
    finally:
        sftp.close(handle)


def _mkdir(sftp: Sftp, path: str) -> None:
    try:
        sftp.mkdir(path, 0o700)
    except OSError as error:
        parent = posixpath.dirname(path.rstrip("/"))
        if error.errno == errno.ENOENT and parent not in {"", path}:
            _mkdir(sftp, parent)
            _mkdir_last(sftp, path)
        else:
            _check_directory(sftp, path, error)


def _mkdir_last(sftp: Sftp, path: str) -> None:
    try:
        sftp.mkdir(path, 0o700)
    except OSError as error:
        _check_directory(sftp, path, error)


def _check_directory(sftp: Sftp, path: str, error: OSError) -> None:
    """Accept that a directory could not be made because it exists, which the server does not say."""
    try:
        found = sftp.is_directory(path)
    except OSError:
        raise error from None
    if not found:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
