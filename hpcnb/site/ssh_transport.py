"""One SSH connection: paramiko's transport, made to last, and its blocking calls made awaitable."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
    cMSG_CHANNEL_CLOSE,
    cMSG_GLOBAL_REQUEST,
)

from hpcnb.errors import ConnectionFailed
from hpcnb.site.ssh_carriers import Carriers
from hpcnb.site.ssh_channel import ChannelTransport
from hpcnb.site.ssh_listener import Listener

HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""The host key algorithms that we can verify, best first."""

FORBIDDEN = 1
"""The code of a `paramiko.ChannelException` when the server's configuration says no."""

PIECE = 32704
"""Bytes that fill one packet; paramiko copies the rest of a larger piece again for every packet."""

_LOG = "hpcnb.site.ssh"
_THREADS = 64
_OPEN_TIMEOUT = 30.0
_AUTH_TIMEOUT = 120.0
_JOIN_TIMEOUT = 2.0

logging.getLogger(_LOG).addHandler(logging.NullHandler())

_Handler = Callable[[paramiko.Channel, paramiko.Message], None]

P = ParamSpec("P")
T = TypeVar("T")


class Transport(paramiko.Transport):
    """A client's transport that survives re-keying.

    Parameters
    ----------
    sock : socket
        Connected, and ours from now on.
    where : str
        What errors call the server.
    algorithms : sequence of str
        The host key algorithms to ask for, in order.
    timeout : float
        Seconds for the server's first words, and again for the key exchange.
    """

    packetizer: Listener
    server_extensions: dict[str, bytes]
    _channel_handler_table: dict[int, _Handler]

    # Fastest first; neither CBC and 3DES nor MD5 and SHA-1.
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
    )
    _preferred_macs = (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-512",
    )

    def __init__(self, sock: socket.socket, *, where: str, algorithms: Sequence[str], timeout: float) -> None:
        super().__init__(sock, packetizer_class=Listener)
        self.where = where
        self.banner_timeout = self.handshake_timeout = timeout
        self.auth_timeout = _AUTH_TIMEOUT
        self.set_log_channel(_LOG)
        self._parse_other_request = self._channel_handler_table[MSG_CHANNEL_REQUEST]
        self._channel_handler_table = {
            **self._channel_handler_table,
            MSG_CHANNEL_REQUEST: self._parse_channel_request,
        }
        self._loop_thread = threading.get_ident()
        self.carriers = Carriers(self)
        self._opening = threading.local()  # what is opened in this thread
        self.packetizer.router = self.carriers
        self.packetizer.wire.drained = self.carriers.push
        self.packetizer.wire.ended = self._on_ended
        self.over = asyncio.Event()
        """Set when nothing more can come."""
        self.packetizer.lost = self.over.set
        self._algorithms = tuple(algorithms)
        self.farewell = ""
        self.dear = False
        """The login took an answer of the user's: not to be thrown away lightly."""
        self.login_ends: float | None = None
        """POSIX time at which the certificate that opened it expires."""
        self._ended: set[int] = set()  # the server's numbers of channels that we closed
        self._refusals: dict[int, paramiko.ChannelException] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"ssh {where}")
        self._calls: set[Future[Any]] = set()
        # Not bounded, as the transport's thread must never wait; it holds answers to the server and few pings.
        self._outbox: queue.SimpleQueue[paramiko.Message | threading.Event | None] = queue.SimpleQueue()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread of this connection; paramiko's errors come out as they are."""
        return await self.outcome(self.submit(function, *args, **kwargs))

    async def outcome(self, future: Future[T]) -> T:
        """What comes of a call that was started by `submit`."""
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():
                # Not we were cancelled, but what had not begun when the connection was closed.
                raise self._closed() from None
            raise

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a blocking call in a thread of this connection."""
        try:
            future = self._threads.submit(function, *args, **kwargs)
        except RuntimeError:
            raise self._closed() from None
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def _closed(self) -> ConnectionFailed:
        return self.failure() if self.farewell else ConnectionFailed("this connection was closed", where=self.where)

    @property
    def busy(self) -> bool:
        """Something waits for the server."""
        return bool(self._calls)

    @property
    def heard_at(self) -> float:
        """When the server last said anything, on the monotonic clock."""
        return self.packetizer.heard_at

    def ping(self) -> None:
        """Make the server say something, without waiting for it."""
        question = paramiko.Message()
        question.add_byte(cMSG_GLOBAL_REQUEST)
        question.add_string("keepalive@openssh.com")
        question.add_boolean(True)
        self._outbox.put(question)

    def _on_ended(self) -> None:
        self.over.set()
        self.carriers.lose()

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what paramiko raises into `ConnectionFailed`, all but the refusal of a channel."""
        try:
            yield
        except paramiko.ChannelException:
            raise
        except (paramiko.SSHException, EOFError) as error:
            raise self.failure(error) from error
        except OSError as error:
            if error.errno is not None and self.is_active():
                raise
            raise self.failure(error) from error

    def failure(self, error: Exception | None = None) -> ConnectionFailed:
        """Say why the connection cannot be used."""
        if self.is_active() and not isinstance(error, EOFError):
            what, remedy = "the SSH server did not do as asked", "Try the same with `ssh`: the server may not allow it."
        else:
            what, remedy = "the SSH connection is lost", "Connect again."
        evidence = self.farewell or str(error or "") or (type(error).__name__ if error else "")
        return ConnectionFailed(what, where=self.where, evidence=evidence, remedy=remedy)

    async def open(
        self,
        kind: str,
        to: tuple[str, int] | None = None,
        *,
        timeout: float = _OPEN_TIMEOUT,
        carrier: ChannelTransport | None = None,
    ) -> paramiko.Channel:
        """Open a channel; what comes over it goes to `carrier` from the first byte.

        Raises
        ------
        paramiko.ChannelException
            The server refused.
        ConnectionFailed
            It gave no answer.
        """
        future = self.submit(self.open_blocking, kind, to, timeout, carrier)
        try:
            with self.translated():
                return await self.outcome(future)
        except asyncio.CancelledError:
            future.add_done_callback(partial(self._discard, carrier))
            raise

    def open_blocking(
        self,
        kind: str,
        to: tuple[str, int] | None = None,
        timeout: float = _OPEN_TIMEOUT,
        carrier: ChannelTransport | None = None,
    ) -> paramiko.Channel:
        """Open a channel, from a thread, with paramiko's errors."""
        self._opening.carrier = carrier
        try:
            channel = self.open_channel(kind, to, ("127.0.0.1", 0), timeout=timeout)
            self._check_refused(channel)
        except BaseException:
            if carrier is not None:
                self.carriers.remove(carrier)
            raise
        finally:
            self._opening.carrier = None
        if carrier is not None:
            carrier.channel = channel
            channel.in_window_threshold = channel.in_window_size // 4  # less often than paramiko's tenth
        return channel

    def _check_refused(self, channel: paramiko.Channel) -> None:
        refusal = self._refusals.pop(channel.chanid, None)
        if refusal is not None:
            raise refusal

    def _next_channel(self) -> int:
        number: int = super()._next_channel()  # type: ignore[misc]
        carrier = getattr(self._opening, "carrier", None)
        if carrier is not None:
            self.carriers.add(number, carrier)
        return number

    def flush(self) -> None:
        """Wait until all that the transport's thread had to answer is sent."""
        sent = threading.Event()
        self._outbox.put(sent)
        while self.is_alive() and not sent.wait(0.1):
            pass

    def forget(self) -> None:
        """Drop the secrets of the login, which paramiko keeps."""
        if self.auth_handler is not None:
            vars(self.auth_handler).update(password=None, private_key=None, interactive_handler=None)

    def close(self) -> None:
        """End the connection and all its channels."""
        with contextlib.suppress(OSError):  # it may be gone already
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes whoever reads
        super().close()
        self.packetizer.close()  # which paramiko leaves open when it has not begun, or has ended
        self.packetizer.complete_handshake()  # its timer would keep the interpreter alive
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self.is_alive() and threading.current_thread() is not self:
            self.join(_JOIN_TIMEOUT)

    # What follows overrides paramiko's internals.

    @property
    def preferred_keys(self) -> Sequence[str]:
        return self._algorithms

    def run(self) -> None:
        threading.Thread(target=self._send_outbox, name=f"{self.name} outbox", daemon=True).start()
        try:
            super().run()
        finally:
            self._outbox.put(None)

    def _send_user_message(self, data: paramiko.Message) -> None:
        # In a key exchange this waits for the transport's thread. Called *by* that thread (to answer CLOSE, to
        # return window, to keep alive), it waits for itself until the connection is given up: paramiko#822.
        # The loop waits for nobody.
        if threading.get_ident() == self._loop_thread:
            if not self._send_at_once(data):
                self._outbox.put(data)
        elif threading.current_thread() is self:
            self._outbox.put(data)
        else:
            super()._send_user_message(data)  # type: ignore[misc]

    def _send_at_once(self, data: paramiko.Message) -> bool:
        with self.clear_to_send_lock:
            if clear := self.clear_to_send.is_set():
                self._send_message(data)
            return clear

    def _send_message(self, data: paramiko.Message) -> None:
        # A thread may have checked that its channel is open just before another closed it; a server ends the whole
        # connection over a message for a channel that is gone.
        kind, recipient = struct.unpack_from(">BI", data.asbytes().ljust(5))
        if MSG_CHANNEL_WINDOW_ADJUST <= kind <= MSG_CHANNEL_FAILURE:
            if recipient in self._ended:
                return
            if kind == MSG_CHANNEL_CLOSE:
                self._ended.add(recipient)
        super()._send_message(data)  # type: ignore[misc]

    def _send_outbox(self) -> None:
        while (item := self._outbox.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                self._send_user_message(item)
            except (paramiko.SSHException, EOFError, OSError):
                self.packetizer.close()  # the transport's thread finds out, and ends us

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.farewell = m.get_text()

    def _parse_newkeys(self, m: paramiko.Message) -> None:
        super()._parse_newkeys(m)  # type: ignore[misc]
        self.packetizer.in_loop(self.carriers.push)  # which waited for it

    def _parse_channel_request(self, channel: paramiko.Channel, m: paramiko.Message) -> None:
        if m.get_text() == "exit-signal":  # which paramiko does not know
            m.get_boolean()
            channel.exit_status = -getattr(signal, f"SIG{m.get_text()}", 1)
            channel.status_event.set()
            return
        m.rewind()
        m.get_int()  # the channel's number, which was taken before
        self._parse_other_request(channel, m)

    def _parse_channel_open_success(self, m: paramiko.Message) -> None:
        chanid, remote = m.get_int(), m.get_int()
        if self._channels.get(chanid) is None:  # type: ignore[attr-defined]
            # Whoever asked has given up; without this the server would hold it open for ever.
            answer = paramiko.Message()
            answer.add_byte(cMSG_CHANNEL_CLOSE)
            answer.add_int(remote)
            self._send_user_message(answer)
            return
        self._ended.discard(remote)
        m.rewind()
        super()._parse_channel_open_success(m)  # type: ignore[misc]

    def _parse_channel_open_failure(self, m: paramiko.Message) -> None:
        # paramiko keeps one exception for the whole transport: of two channels refused at once, one would get the
        # other's reason. Ours stays with its channel, which `open_blocking` gets as if it were open.
        chanid, code, text = m.get_int(), m.get_int(), m.get_text()
        with self.lock:
            event = self.channel_events.pop(chanid, None)
            if event is not None and self._channels.get(chanid) is not None:  # type: ignore[attr-defined]
                self._refusals[chanid] = paramiko.ChannelException(code, text)
        if event is not None:
            event.set()

    def _discard(self, carrier: ChannelTransport | None, future: Future[paramiko.Channel]) -> None:
        if carrier is not None:
            self.carriers.remove(carrier)
        if not future.cancelled() and future.exception() is None:
            future.result().close()
