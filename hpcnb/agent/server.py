"""The agent's face: JSON over a websocket on a unix socket that only its user can open.

Messages, a JSON object each::

    → {"id": 1, "call": "create", "with": {…}}           a request
    ← {"id": 1, "result": …} or {"id": 1, "error": {…}}  its answer (`HPCError.to_json`)
    ← {"id": 1, "part": …}                               before it, of one that comes in parts
    → {"enough": 1}                                      such a request is given up
    ← {"event": "status", "cluster": {…}}                a cluster's new status, to every client
    ← {"prompt": 7, "kind": "secret", "title": …, "text": …}    a question, only to whose request needs the answer
    → {"answer": 7, "text": …} or {"answer": 7, "refused": why}
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import Any

from tornado import httpserver, iostream, netutil, web, websocket

from hpcnb.agent import places
from hpcnb.agent.calls import Calls
from hpcnb.errors import AuthenticationFailed, HPCError
from hpcnb.link.peer import peer_uid
from hpcnb.model import ClusterStatus
from hpcnb.site.shell import Prompt

log = logging.getLogger(__name__)

LARGEST = 16 << 20
"""Bytes of one message; twice as many may wait for a client that does not read."""
LEAVING = 10.0
"""Seconds that connections have to end well; until then no other agent can start."""


class _Server(httpserver.HTTPServer):
    """Turns away whoever is not the agent's own user, before a byte is read."""

    def handle_stream(self, stream: iostream.IOStream, address: Any) -> None:
        if peer_uid(stream.socket) != os.getuid():
            log.warning("a connection of another user was refused")
            stream.close()
            return
        stream.max_write_buffer_size = 2 * LARGEST
        super().handle_stream(stream, address)


class Client(websocket.WebSocketHandler):
    """One connected client: a kernel, a command line, a Jupyter server."""

    def initialize(self, calls: Calls, clients: set[Client]) -> None:
        self._calls = calls
        self._clients = clients
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_parts: dict[Any, asyncio.Task[None]] = {}  # by the requests' ids
        self._prompts: dict[int, asyncio.Future[str]] = {}
        self._last_prompt = 0

    def check_origin(self, origin: str) -> bool:
        return False  # no browser has business here

    def open(self, *args: str, **kwargs: str) -> None:
        self._clients.add(self)

    def on_message(self, message: str | bytes) -> None:
        data = json.loads(message)
        if not isinstance(data, dict):
            raise TypeError("a message is an object")  # for tornado, which then ends the connection
        if "answer" in data:
            self._answered(data)
            return
        if "enough" in data:
            if running := self._in_parts.get(data["enough"]):
                running.cancel()
            return
        task = asyncio.create_task(self._reply(data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._calls.in_parts(data.get("call", "")):
            self._in_parts[data.get("id")] = task
            task.add_done_callback(lambda done: self._in_parts.pop(data.get("id"), None))

    async def _reply(self, data: dict[str, Any]) -> None:
        def part(value: Any) -> None:
            self.send({"id": data.get("id"), "part": value})

        try:
            result = await self._calls.call(data["call"], data.get("with", {}), client=self, ask=self._ask, part=part)
            answer = {"result": result}
        except HPCError as exc:
            answer = {"error": exc.to_json()}
        except Exception as exc:  # a fault of ours: the client must hear of it, and the agent must live on
            log.exception("call %s failed", data.get("call"))
            what = f"the agent failed: {type(exc).__name__}: {exc}"
            answer = {"error": HPCError(what, remedy=f"Details are in {places.agent_log()}.").to_json()}
        self.send({"id": data.get("id"), **answer})
        if self not in self._clients:  # it went while it was being served
            self._calls.gone(self)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a client that has gone, or has long stopped reading, is not missed."""
        try:
            sent = self.write_message(json.dumps(message))
        except websocket.WebSocketClosedError:
            return
        except iostream.StreamBufferFullError:
            if (connection := self.ws_connection) and connection.stream:
                connection.stream.close()
            return
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _ask(self, prompt: Prompt) -> str:
        if self not in self._clients:
            raise _nobody_left()
        self._last_prompt += 1
        number = self._last_prompt
        answer = self._prompts[number] = asyncio.get_running_loop().create_future()
        self.send({"prompt": number, "kind": prompt.kind, "title": prompt.title, "text": prompt.text})
        try:
            text: str = await answer
            return text
        except asyncio.CancelledError:
            self.send({"withdrawn": number})
            raise
        finally:
            del self._prompts[number]

    def _answered(self, data: dict[str, Any]) -> None:
        waiting = self._prompts.get(data["answer"])
        if waiting is None or waiting.done():
            return
        if "refused" in data:
            why = data["refused"]
            waiting.set_exception(
                AuthenticationFailed(why["what"], evidence=why.get("evidence", ""), remedy=why.get("remedy", ""))
            )
        else:
            waiting.set_result(data["text"])

    def on_close(self) -> None:
        self._clients.discard(self)
        for waiting in self._prompts.values():
            if not waiting.done():
                waiting.set_exception(_nobody_left())
        for running in self._in_parts.values():
            running.cancel()
        self._calls.gone(self)


def _nobody_left() -> AuthenticationFailed:
    return AuthenticationFailed("whoever could have answered has gone")


class Server:
    """The agent's socket and all who are connected to it."""

    def __init__(self) -> None:
        self.clients: set[Client] = set()
        self.calls = Calls(self._broadcast)
        handlers = [("/", Client, {"calls": self.calls, "clients": self.clients})]
        application = web.Application(handlers, websocket_max_message_size=LARGEST, log_function=lambda handler: None)
        self._http = _Server(application)

    def start(self) -> None:
        """Listen. The caller holds the agent's lock, so that a socket found here is a dead agent's."""
        path = places.agent_socket()
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._http.add_socket(netutil.bind_unix_socket(str(path), mode=0o600))
        finally:
            os.umask(before)
        log.info("agent %d listens at %s", os.getpid(), path)

    def _broadcast(self, status: ClusterStatus) -> None:
        message = {"event": "status", "cluster": status.to_json()}
        for client in list(self.clients):
            client.send(message)

    async def stop(self) -> None:
        """Turn everybody away and leave the clusters to the next agent."""
        self._http.stop()
        places.agent_socket().unlink(missing_ok=True)
        try:
            await asyncio.wait_for(self.calls.leave(), LEAVING)
        except TimeoutError:
            log.warning("a site did not let go within %.0f s", LEAVING)
        for client in list(self.clients):
            client.close(1001, "the agent ends")
