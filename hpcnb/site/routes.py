"""The routes from here to a pilot: the ways to make a pipe, best first, each as a function that opens it.

====== ============================================== ===================================================================
direct a TCP connection from the login node, through  sshd there must allow it (``AllowTcpForwarding``), and nodes must
       SSH's own forwarding                           accept connections from the login node
exec   a relay on the login node, on the stdin and    a process there and one of the sessions that sshd allows
       stdout of a command                            (``MaxSessions``, 2 at least); nodes must accept connections too
srun   a relay on the pilot's node, as a step of the  Slurm with ``srun --overlap``; slower to start, and Slurm carries
       job                                            every byte
reverse a relay on the login node, to which the pilot a process and a session there; the node must reach the login node
       connects                                       by TCP; the pilot looks for it once a second
mailbox files in the run directory, through SFTP      slow (tenths of a second there and back, a few MB/s), and hard on a
                                                      shared file system; only for where nothing else works
====== ============================================== ===================================================================

TLS and the link's secret go end to end on each of them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from hpcnb.errors import ConnectionFailed
from hpcnb.pilot.route import mailbox, relay, rendezvous
from hpcnb.site.environment import Environment
from hpcnb.site.shell import Pipe, Shell

_ENTER = "import sys; sys.path.insert(0, sys.argv[1]); from hpcnb.pilot.route.relay import main; sys.exit(main(sys.argv[2:]))"
_CHATTER = 64 << 10
"""Bytes that a login shell, or srun, may say before the relay says anything."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A pilot, and what there is to reach it with.

    Parameters
    ----------
    shell : Shell
    environment : Environment
        The Python of the site.
    zip_path : str
        The shipped code there.
    path : str
        The run directory there.
    host, port : str, int
        Where the gateway listens.
    step : callable or None
        Makes of a command one that runs it on the pilot's node; None without a batch system that can.
    """

    shell: Shell
    environment: Environment
    zip_path: str
    path: str
    host: str
    port: int
    step: Callable[[Sequence[str]], Sequence[str]] | None = None

    def relay(self, *arguments: str) -> Sequence[str]:
        """The command that starts a relay."""
        return self.environment.argv(self.environment.enter("-S", "-E", "-c", _ENTER, self.zip_path, *arguments))


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way to make a pipe.

    Parameters
    ----------
    open : coroutine function
        Gives a connection that leads to the gateway; raises `ConnectionFailed` with the reason.
    deadline : float
        Seconds after which it has failed.
    """

    open: Callable[[Goal], Awaitable[Pipe]]
    deadline: float


async def _direct(goal: Goal) -> Pipe:
    return await goal.shell.dial(goal.host, goal.port)


async def _exec(goal: Goal) -> Pipe:
    return await _relayed(goal, goal.relay("connect", goal.host, str(goal.port)))


async def _srun(goal: Goal) -> Pipe:
    if goal.step is None:
        raise ConnectionFailed("there is no Slurm to step into the job with", where=goal.shell.name)
    return await _relayed(goal, goal.step(goal.relay("connect", goal.host, str(goal.port))))


async def _reverse(goal: Goal) -> Pipe:
    return await _relayed(goal, goal.relay("listen", f"{goal.path}/{rendezvous.FOLDER}", goal.host))


async def _mailbox(goal: Goal) -> Pipe:
    folder = f"{goal.path}/{rendezvous.FOLDER}/{secrets.token_hex(8)}"
    inbox, outbox = f"{folder}/up", f"{folder}/down"
    try:
        await goal.shell.mkdir(inbox)
        await goal.shell.mkdir(outbox)
    except OSError as error:
        raise ConnectionFailed(f"{folder} cannot be made: {error.strerror}", where=goal.shell.name) from error
    return await asyncio.open_connection(sock=mailbox.pipe(goal.shell, inbox=inbox, outbox=outbox))


async def _relayed(goal: Goal, command: Sequence[str]) -> Pipe:
    reader, writer = await goal.shell.pipe(command)
    try:
        said = await _first_words(reader)
    except BaseException:
        writer.close()
        raise
    if said[-1] != relay.CONNECTED:
        writer.close()
        raise ConnectionFailed(
            f"the relay could not connect: {said[-1] or 'it ended at once'}",
            where=goal.shell.name,
            evidence="\n".join(said[:-1][-10:]),
        )
    return reader, writer


async def _first_words(reader: asyncio.StreamReader) -> list[str]:
    """What comes before the bytes of the pipe: the last is what the relay says."""
    heard = bytearray()
    while len(heard) < _CHATTER and (byte := await reader.read(1)):
        heard += byte
        if byte == b"\n":
            before, mark, rest = heard.rpartition(b"\n" + relay.SAYS)
            if mark:
                return [*_lines(before), rest.decode("utf-8", "replace").strip()]
    return [*_lines(heard), ""]


def _lines(text: bytes | bytearray) -> list[str]:
    return [line for line in bytes(text).decode("utf-8", "replace").splitlines() if line.strip()]


ROUTES: Mapping[str, Route] = {
    "direct": Route(open=_direct, deadline=8.0),
    "exec": Route(open=_exec, deadline=20.0),
    "srun": Route(open=_srun, deadline=30.0),
    "reverse": Route(open=_reverse, deadline=20.0),
    "mailbox": Route(open=_mailbox, deadline=30.0),
}
"""By the names that the configuration knows, in the order in which they are tried."""
