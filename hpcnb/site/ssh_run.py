"""One command over SSH: made safe for any login shell, fed, collected, and killed when it must."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import time
from collections.abc import Callable, Sequence

import paramiko

from hpcnb.errors import ConnectionFailed
from hpcnb.site import command
from hpcnb.site.shell import Completed
from hpcnb.site.ssh_channel import ChannelTransport
from hpcnb.site.ssh_sessions import Sessions
from hpcnb.site.ssh_transport import PIECE, Transport

STARTER = """exec /bin/sh -c 'IFS= read -r s; eval "$s"'"""
"""What the login shell is given, the same in sh, csh and fish: run the first line of the input."""

_RECEIVE = 1 << 18
_KILL_TIMEOUT = 10.0
_START_TIMEOUT = 30.0
_SPARE_TIMEOUT = 3.0
_MOMENT = 0.5
_UNKNOWN = -1  # paramiko's exit status of a command whose server did not tell
_AT_ONCE = 8  # a server allows ten sessions by default


class Mark:
    """What parts a login shell's chatter from a command's own output; it brings the command's process id."""

    def __init__(self) -> None:
        self._halves = secrets.token_hex(8), secrets.token_hex(8)

    def script(self, words: Sequence[str], *, one_stream: bool = False) -> bytes:
        """One line for ``sh`` that runs a command, whatever bytes its words hold (but NUL).

        In one stream stdout and stderr come in order; sshd by itself would mix them as they come to it.
        """
        # In two halves, or the trace of a shell under `set -x` would look like the mark itself.
        halves = " ".join(self._halves)
        steps = [
            "HPCNB_UMASK=$(umask)",  # what the user's own files get; ours are private
            "export HPCNB_UMASK",
            "umask 077",
            f"printf '%s%s %s\\n' {halves} $$",
            "exec 2>&1" if one_stream else f"printf '%s%s\\n' {halves} >&2",
            "exec " + " ".join(map(_quoted, words)),
        ]
        if any("\n" in word for word in words):
            steps.insert(0, "n=$(printf '\\nx'); n=${n%x}")
        return os.fsencode("; ".join(steps)) + b"\n"

    def part(self, output: bytes | bytearray) -> tuple[int, bytes]:
        """The process id (0 if unknown) and what the command wrote; all there is, if the command never began."""
        _, mark, rest = bytes(output).partition("".join(self._halves).encode())
        pid, newline, own = rest.partition(b"\n")
        if not mark or not newline:
            return 0, bytes(output)
        return int(pid or 0), own

    def chatter(self, output: bytes | bytearray) -> bytes:
        """What the login shell wrote before the command began."""
        before, mark, _ = bytes(output).partition("".join(self._halves).encode())
        return before if mark else b""


def _quoted(word: str) -> str:
    # The script is one line; the newline comes from a variable.
    return shlex.quote(word).replace("\n", "'\"$n\"'")


class Commands:
    """Runs commands at the far end of a connection, some at once."""

    def __init__(self, transport: Transport, sessions: Sessions) -> None:
        self._transport = transport
        self._sessions = sessions
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def run(self, argv: Sequence[str], stdin: bytes, timeout: float) -> Completed:
        words = command.words(argv)
        try:
            async with asyncio.timeout(timeout), self._slots:
                with self._transport.translated():
                    return await self._run(words, stdin)
        except TimeoutError:
            raise command.slow(words, self._transport.where, timeout) from None

    async def start(self, argv: Sequence[str]) -> ChannelTransport:
        """Start a command that is spoken to through a channel, which it holds as long as it runs."""
        words = command.words(argv)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                with self._transport.translated():
                    return await self._start(words)
        except TimeoutError:
            raise command.slow(words, self._transport.where, _START_TIMEOUT) from None

    async def _start(self, words: list[str]) -> ChannelTransport:
        carrier = ChannelTransport(self._transport.carriers)
        channel = await self._sessions.open(carrier)
        try:
            await self._transport.call(channel.exec_command, STARTER)
            await self._transport.call(channel.sendall, Mark().script(words, one_stream=True))
            if self._sessions.limited:
                await self._leave_one()
        except BaseException:
            self._transport.carriers.remove(carrier)
            self._sessions.end(channel)
            raise
        return carrier

    async def _leave_one(self) -> None:
        """Make sure that other commands can be run beside one that stays."""
        try:
            async with asyncio.timeout(_SPARE_TIMEOUT):
                self._sessions.end(await self._sessions.open())
        except TimeoutError:
            where = self._transport.where
            raise ConnectionFailed(
                f"{where} allows one session only, and commands need it",
                where=where,
                remedy="`link: mailbox` needs none.",
            ) from None

    async def _run(self, words: list[str], stdin: bytes) -> Completed:
        call, mark = self._transport.call, Mark()
        out, err = bytearray(), bytearray()
        channel = await self._sessions.open()
        running = True
        try:
            await call(channel.exec_command, STARTER)
            await asyncio.gather(
                call(_pull, channel.recv, out),
                call(_pull, channel.recv_stderr, err),
                call(_push, channel, mark.script(words) + stdin),
            )
            code = await call(channel.recv_exit_status)
            running = False
        except _Flooded:
            raise command.flood(words, self._transport.where) from None
        finally:
            self._sessions.end(channel, (lambda: _kill(self._transport, channel, mark, out)) if running else None)
        if code == _UNKNOWN:
            await self._check_connection()
        chatter = mark.chatter(out) + mark.chatter(err)
        return Completed(returncode=code, stdout=mark.part(out)[1], stderr=mark.part(err)[1], chatter=chatter)

    async def _check_connection(self) -> None:
        # Channels end a moment before their transport says that it is lost.
        await self._transport.call(self._transport.join, _MOMENT)
        if not self._transport.is_active():
            raise self._transport.failure()


class _Flooded(Exception):
    """A command wrote more than anybody should hold in memory."""


def _pull(receive: Callable[[int], bytes], sink: bytearray) -> None:
    while piece := receive(_RECEIVE):
        sink += piece
        if len(sink) > command.OUTPUT_LIMIT:
            raise _Flooded


def _push(channel: paramiko.Channel, data: bytes) -> None:
    with contextlib.suppress(OSError):  # a command need not read all its input
        for at in range(0, len(data), PIECE):
            channel.sendall(data[at : at + PIECE])
    channel.shutdown_write()


def _kill(transport: Transport, channel: paramiko.Channel, mark: Mark, out: bytearray) -> None:
    """End a command that nobody waits for any more, with its children: the server would let it run on."""
    deadline = time.monotonic() + _KILL_TIMEOUT
    while not (pid := mark.part(out)[0]) and time.monotonic() < deadline:
        if channel.status_event.wait(0.05):  # it has ended; otherwise its process id is on the way
            return
    with transport.open_blocking("session", None, _KILL_TIMEOUT) as other:
        other.exec_command(STARTER)
        other.sendall(f"kill -9 -{pid}\n".encode())  # sshd makes each command the leader of a group
        other.shutdown_write()
        other.status_event.wait(_KILL_TIMEOUT)
