"""The client's half: find the agent or start it, call it, hear of clusters, answer its questions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tornado import httpclient, netutil, simple_httpclient, websocket

import hpcnb
from hpcnb.agent import places
from hpcnb.errors import AuthenticationFailed, ClusterError, HPCError, error_from_json
from hpcnb.model import ClusterStatus
from hpcnb.site.shell import Ask, Prompt

log = logging.getLogger(__name__)

START = 20.0
"""Seconds that an agent has to come up."""
AGAIN = 1.0
"""Seconds between two attempts to start one."""
ANSWER = 10.0
"""Seconds after which one that does not answer hangs."""


class AgentClient:
    """A connection to the agent, made when first needed and again whenever it is lost.

    Parameters
    ----------
    ask : callable
        Puts a question of the agent (a password, a host key) to the user.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._socket: websocket.WebSocketClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._parts: dict[int, Callable[[Any], None]] = {}
        self._listeners: dict[str, set[Callable[[ClusterStatus], None]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._used: set[str] = set()
        self._prompts: dict[int, asyncio.Task[None]] = {}

    async def call(
        self, name: str, /, *, start: bool = True, part: Callable[[Any], None] | None = None, **arguments: Any
    ) -> Any:
        """Ask the agent something.

        Parameters
        ----------
        name : str
            A call of `hpcnb.agent.calls.Calls`.
        start : bool
            Start an agent if none runs.
        part : callable, optional
            Told each part of an answer that comes in parts; if the agent is replaced meanwhile, it is told all of them again.

        Raises
        ------
        HPCError
            What the agent answered, as its own type.
        """
        for attempt in (1, 2):
            try:
                await self._connect(start=start)
                answer = await self._request(name, arguments, part)
            except ConnectionError:
                # Every call may be made twice: what creates something brings the id of what it creates.
                if attempt == 2:
                    raise ClusterError("the agent ends again and again", remedy=f"See {places.agent_log()}.") from None
                if self._reader is not None:  # it hears of the end, too, and forgets the connection
                    await asyncio.wait([self._reader], timeout=ANSWER)
            else:
                if name in ("create", "attach"):
                    self._used.add(arguments["id"])
                return answer
        return None

    async def _request(self, name: str, arguments: dict[str, Any], part: Callable[[Any], None] | None = None) -> Any:
        if self._socket is None:
            raise ConnectionError
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        if part:
            self._parts[number] = part
        try:
            await self._socket.write_message(json.dumps({"id": number, "call": name, "with": arguments}))
            return await answer
        except asyncio.CancelledError:
            if part and self._socket is not None:
                with contextlib.suppress(websocket.WebSocketClosedError):
                    self._socket.write_message(json.dumps({"enough": number}))
            raise
        except websocket.WebSocketClosedError as exc:
            raise ConnectionError from exc
        finally:
            self._waiting.pop(number, None)
            self._parts.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # who has not heard it by now never will, and asyncio would complain

    async def _connect(self, *, start: bool) -> None:
        async with self._connecting:
            if self._socket is not None:
                return
            self._socket = await self._open_or_start() if start else await self._open()
            if self._socket is None:
                raise ClusterError("no agent runs", remedy="It starts by itself with the first `%hpc` or `hpcnb up`.")
            self._reader = asyncio.create_task(self._read(self._socket))
            theirs = await self._greet()
            if start and _older(theirs["version"]):
                await self._take_over()

    async def _greet(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(ANSWER):
                ours = {"version": hpcnb.__version__, "uses": sorted(self._used)}
                theirs: dict[str, Any] = await self._request("hello", ours)
        except TimeoutError:
            if self._socket is not None:
                self._socket.close()
            raise _silent() from None
        return theirs

    async def _open_or_start(self) -> websocket.WebSocketClientConnection:
        if found := await self._open():
            return found
        process = _start_agent()
        started = time.monotonic()
        deadline = started + START
        while time.monotonic() < deadline:
            if found := await self._open():
                return found
            if process.poll() is not None and time.monotonic() > started + AGAIN:
                if process.returncode:
                    break
                # It met another one, which does not come up: that one is about to end.
                process, started = _start_agent(), time.monotonic()
            await asyncio.sleep(0.02)
        raise ClusterError(
            f"the agent did not come up within {START:.0f} s (pid {process.pid}, exit status {process.poll()})",
            evidence=_log_tail(),
            remedy=f"Its log is {places.agent_log()}.",
        )

    async def _open(self) -> websocket.WebSocketClientConnection | None:
        path = str(places.agent_socket())
        request = httpclient.HTTPRequest("ws://agent/", connect_timeout=ANSWER, request_timeout=ANSWER)
        try:
            # websocket_connect has no way to name a unix socket; its resolver has.
            return await websocket.websocket_connect(request, resolver=_UnixResolver(path))
        except simple_httpclient.HTTPTimeoutError:
            raise _silent() from None
        except (OSError, httpclient.HTTPError):
            return None

    async def _take_over(self) -> None:
        """An older agent leaves its clusters to a new one, of our version."""
        reader = self._reader
        await self._request("stop", {})
        if reader:
            await reader
        self._socket = await self._open_or_start()
        self._reader = asyncio.create_task(self._read(self._socket))
        await self._greet()

    async def _read(self, connection: websocket.WebSocketClientConnection) -> None:
        try:
            while (message := await connection.read_message()) is not None:
                self._hear(json.loads(message))
        except Exception:  # an agent of another version, say; the next call connects anew
            log.exception("what the agent said was not understood")
        finally:  # who waits must not wait for ever
            connection.close()
            self._socket = None
            for asking in self._prompts.values():  # the next agent counts its questions anew
                asking.cancel()
            self._prompts = {}
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the agent has gone"))
            if self._returning is None:
                self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        """Come back to the next agent: views must not fall silent, nor clusters believe us gone.

        Whoever needs one starts it. One that was killed has left its socket, and what goes through it here waits for the next.
        """
        while self._socket is None:
            await asyncio.sleep(AGAIN)
            with contextlib.suppress(HPCError, ConnectionError):
                await self._connect(start=bool(self._used) and places.agent_socket().exists())
                for found in await self._request("list", {}):
                    self._tell(ClusterStatus.from_json(found))
        self._returning = None

    def _hear(self, message: dict[str, Any]) -> None:
        if "prompt" in message:
            number = message["prompt"]
            task = self._prompts[number] = asyncio.create_task(self._answer(message))
            task.add_done_callback(lambda done: self._prompts.get(number) is done and self._prompts.pop(number))
        elif "withdrawn" in message:
            if asking := self._prompts.get(message["withdrawn"]):
                asking.cancel()
        elif "event" in message:
            self._tell(ClusterStatus.from_json(message["cluster"]))
        else:
            self._hear_answer(message)

    def _hear_answer(self, message: dict[str, Any]) -> None:
        if "part" in message:
            if part := self._parts.get(message["id"]):
                part(message["part"])
        elif (answer := self._waiting.get(message["id"])) and not answer.done():
            if error := message.get("error"):
                answer.set_exception(error_from_json(error))
            else:
                answer.set_result(message.get("result"))

    def _tell(self, status: ClusterStatus) -> None:
        for heard in [*self._listeners.get(status.id, ()), *self._listeners.get("", ())]:
            try:
                heard(status)
            except Exception:  # a view that fails must not keep the others, and the answers, from being heard
                log.exception("the news of cluster %s got lost", status.id)

    async def _answer(self, message: dict[str, Any]) -> None:
        prompt = Prompt(kind=message["kind"], title=message["title"], text=message["text"])
        try:
            reply: dict[str, Any] = {"text": await self._ask(prompt)}
        except HPCError as exc:
            reply = {"refused": exc.to_json()}
        except Exception as exc:  # the end of the input, a front end that has gone: whoever asked must hear of it
            reply = {"refused": {"what": f"the question was not answered ({type(exc).__name__})"}}
        if self._socket is not None:
            with contextlib.suppress(websocket.WebSocketClosedError):
                await self._socket.write_message(json.dumps({"answer": message["prompt"], **reply}))

    def listen(self, cluster: str, heard: Callable[[ClusterStatus], None]) -> Callable[[], None]:
        """Call `heard` with every new status of a cluster, or (an empty id) of all; returns what ends that."""
        self._listeners.setdefault(cluster, set()).add(heard)
        return lambda: self._listeners[cluster].discard(heard)

    async def close(self) -> None:
        """Disconnect; the agent and the clusters go on."""
        if self._socket is not None:
            self._socket.close()
        if self._reader:
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if self._returning:
            self._returning.cancel()


class _UnixResolver(netutil.Resolver):
    """Resolves whatever name to one unix socket."""

    def initialize(self, path: str) -> None:
        self._path = path

    async def resolve(self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[Any]:
        return [(socket.AF_UNIX, self._path)]


def _silent() -> ClusterError:
    return ClusterError(
        f"the agent has not answered for {ANSWER:.0f} s",
        remedy=f"If it hangs, end it: its pid is in {places.agent_lock()}. The clusters go on.",
    )


def _older(version: str) -> bool:
    return _parts(version) < _parts(hpcnb.__version__)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _start_agent() -> subprocess.Popen[bytes]:
    """Start an agent that belongs to no terminal and no kernel; if two are started, the lock lets one live."""
    with os.fdopen(os.open(places.agent_log(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "hpcnb.agent"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            start_new_session=True,
        )
    # It is our child: when it ends while we live, somebody must take notice.
    threading.Thread(target=process.wait, name="hpcnb agent", daemon=True).start()
    return process


def _log_tail() -> str:
    with contextlib.suppress(FileNotFoundError):
        return "\n".join(places.agent_log().read_text(errors="replace").splitlines()[-15:])
    return ""


async def nobody_to_ask(prompt: Prompt) -> str:
    """An `Ask` for where nobody can answer: a notebook run without a front end, a script without a terminal."""
    raise AuthenticationFailed(
        f"{prompt.title} asks, and nobody can answer here",
        evidence=prompt.text.strip(),
        remedy="Log in where you can type: `hpcnb login` in a terminal, with the name of the site. The agent keeps the connection, and "
        "this will work without a question. Or use a key in an ssh-agent.",
    )
