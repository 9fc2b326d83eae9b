"""The packets of an SSH connection: read and decrypted in the loop, where most of them are wanted."""

from __future__ import annotations

import asyncio
import queue
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

import paramiko
from cryptography.exceptions import InvalidTag
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_NEWKEYS, cMSG_CHANNEL_DATA
from paramiko.packet import NeedRekeyException, Packetizer

from hpcnb.site.ssh_wire import Wire, nothing

_LENGTH, _TAG, _BLOCK = 4, 16, 16
_DATA = struct.Struct(">IBBII")
"""How a packet with a channel's data begins: its length, that of its padding, kind, channel, length of the data."""
_LARGEST = 1 << 18
"""As in OpenSSH; RFC 4253 asks for a tenth of it."""
_MANY = 1000
"""Messages that may wait for the transport's thread."""
_FOR_BOTH = (MSG_CHANNEL_EOF, MSG_CHANNEL_CLOSE)


class Router(Protocol):
    """Knows which messages concern the loop."""

    def diverts(self, kind: int, rest: memoryview) -> bool:
        """Whether a message, of which `rest` follows its kind, is for the loop; in any thread."""

    def divert(self, kind: int, rest: memoryview) -> bool:
        """Take a message if it is such a one, in the loop; `rest` is valid until this returns."""

    def settle(self) -> None:
        """All that came together was taken."""


class Listener(Packetizer):
    """Reads in the loop when the cipher is one whose packets show their length (AES-GCM), else in paramiko's thread.

    What the router diverts stays in the loop: no thread has to wake up for it. The rest is for the transport's thread.
    It remembers the lines before the encryption, for another service is best recognised by its words; then only when.
    """

    heard = ""
    heard_at = 0.0
    router: Router
    lost: Callable[[], None] = staticmethod(nothing)
    """Called in the loop when nothing more can come, of which the transport's thread hears in its own time."""

    # paramiko's own, which its subclasses do not see otherwise.
    _Packetizer__block_engine_in: Any
    _Packetizer__block_engine_out: Any
    _Packetizer__aead_in: bool
    _Packetizer__aead_out: bool
    _Packetizer__iv_in: bytes
    _Packetizer__iv_out: bytes
    _Packetizer__sequence_number_in: int
    _Packetizer__sequence_number_out: int
    _Packetizer__received_bytes: int
    _Packetizer__sent_bytes: int
    _Packetizer__write_lock: Any

    def __init__(self, sock: socket.socket) -> None:
        self.wire = Wire(sock)
        super().__init__(self.wire)  # type: ignore[arg-type]
        self._loop = asyncio.get_running_loop()
        # What the loop leaves to the transport's thread; None has it look whether the keys are to be changed.
        self._inbox: queue.SimpleQueue[tuple[int, paramiko.Message] | Exception | None] = queue.SimpleQueue()
        self._fresh = False  # there are new keys
        self._left = False  # the thread leaves the reading to the loop
        self._looping = False  # the loop reads, until the keys change
        self._paused = False  # ... but not before the thread has taken what is in its inbox
        self._plain, self._packet, self._sealed = (memoryview(bytearray(_LARGEST)) for _ in range(3))

    # In the transport's thread.

    def readline(self, timeout: float) -> str:
        line = super().readline(timeout)
        self.heard += f"{line}\n"
        return line

    def read_message(self) -> tuple[int, paramiko.Message]:
        if self._fresh:
            self._fresh, self._left = False, self._Packetizer__aead_in
            if self._left:
                self.in_loop(self._listen)
        if self._left:
            return self._next_from_loop()
        while True:
            kind, message = super().read_message()
            self.heard_at = time.monotonic()
            rest = memoryview(message.asbytes())
            if not self.router.diverts(kind, rest):
                return kind, message
            self.in_loop(self._hand_over, kind, rest)
            if kind in _FOR_BOTH:
                return kind, message

    def set_inbound_cipher(self, *args: Any, **options: Any) -> None:
        super().set_inbound_cipher(*args, **options)
        self._fresh = True

    def _next_from_loop(self) -> tuple[int, paramiko.Message]:
        item = self._inbox.get()
        if self._paused and self._inbox.empty():
            self.in_loop(self._listen)
        if item is None:
            raise NeedRekeyException
        if isinstance(item, Exception):
            raise item
        return item

    # In any thread.

    def in_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Have the loop call a function."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            raise EOFError("the loop is closed") from None

    def _trigger_rekey(self) -> None:
        super()._trigger_rekey()  # type: ignore[misc]
        self._inbox.put(None)

    def close(self) -> None:
        super().close()
        self._inbox.put(EOFError())

    def send_data(self, channel: int, data: memoryview) -> None:
        """Send one packet of a channel's data."""
        if not self._Packetizer__aead_out:
            message = paramiko.Message()
            message.add_byte(cMSG_CHANNEL_DATA)
            message.add_int(channel)
            message.add_string(bytes(data))
            self.send_message(message)
            return
        with self._Packetizer__write_lock:
            body = _DATA.size - _LENGTH + len(data)
            padding = 4 + -(body + 4) % _BLOCK
            whole = _LENGTH + body + padding
            packet, sealed = self._packet[:whole], self._sealed[: whole + _TAG]
            _DATA.pack_into(packet, 0, body + padding, padding, MSG_CHANNEL_DATA, channel, len(data))
            packet[_DATA.size : -padding] = data
            packet[-padding:] = bytes(padding)
            sealed[:_LENGTH] = packet[:_LENGTH]
            nonce, engine = self._Packetizer__iv_out, self._Packetizer__block_engine_out
            engine.encrypt_into(nonce, packet[_LENGTH:], packet[:_LENGTH], sealed[_LENGTH:])
            self._Packetizer__iv_out = self._inc_iv_counter(nonce)  # type: ignore[attr-defined]
            self._Packetizer__sequence_number_out = (self._Packetizer__sequence_number_out + 1) & 0xFFFFFFFF
            self._Packetizer__sent_bytes += len(sealed)
            if self._Packetizer__sent_bytes >= self.REKEY_BYTES and not self.need_rekey():
                self._trigger_rekey()
            self.write_all(sealed)

    # In the loop.

    def _listen(self) -> None:
        self._paused, self._looping = False, True
        self.wire.listen(self._readable)
        self._readable()  # the thread may have left something

    def _readable(self) -> None:
        try:
            self.wire.fill()
            self.heard_at = time.monotonic()
            self._take_apart()
        except Exception as error:  # the thread ends for any reason, and tells
            self.wire.unlisten()
            self._inbox.put(error)
            self.lost()

    def _take_apart(self) -> None:
        while self._looping and (message := self._next()) is not None:
            kind, rest = message[0], message[1:]
            if self.router.divert(kind, rest) and kind not in _FOR_BOTH:
                continue
            if kind == MSG_NEWKEYS:
                self._looping = False
                self.wire.unlisten()
            self._inbox.put((kind, self._for_thread(rest)))
        self.router.settle()
        if self._looping and self._inbox.qsize() > _MANY:
            self.wire.unlisten()
            self._paused = True
            if self._inbox.empty():
                self._listen()

    def _hand_over(self, kind: int, rest: memoryview) -> None:
        self.router.divert(kind, rest)
        self.router.settle()

    def _for_thread(self, rest: memoryview) -> paramiko.Message:
        message = paramiko.Message(bytes(rest))
        message.seqno = self._Packetizer__sequence_number_in - 1
        return message

    def _next(self) -> memoryview | None:
        """The next message, if it is here as a whole; valid until the next one."""
        held = self.wire.held()
        if len(held) < _LENGTH:
            return None
        size = int.from_bytes(held[:_LENGTH], "big")
        whole = _LENGTH + size + _TAG
        if whole > _LARGEST or size < _BLOCK:
            raise paramiko.SSHException(f"a packet of {size} bytes")
        if len(held) < whole:
            return None
        nonce, plain = self._Packetizer__iv_in, self._plain[:size]
        try:
            self._Packetizer__block_engine_in.decrypt_into(nonce, held[_LENGTH:whole], held[:_LENGTH], plain)
        except InvalidTag:
            raise paramiko.SSHException("Mismatched MAC") from None
        self.wire.take(whole)
        self._Packetizer__iv_in = self._inc_iv_counter(nonce)  # type: ignore[attr-defined]
        self._Packetizer__sequence_number_in = (self._Packetizer__sequence_number_in + 1) & 0xFFFFFFFF
        self._count(whole)
        padding = plain[0]
        if padding > size - 2:
            raise paramiko.SSHException("a packet without a message")
        return plain[1 : size - padding]

    def _count(self, size: int) -> None:
        self._Packetizer__received_bytes += size
        if self.need_rekey():
            if self._Packetizer__received_bytes > self.REKEY_BYTES + self.REKEY_BYTES_OVERFLOW_MAX:
                raise paramiko.SSHException("Remote transport is ignoring rekey requests")
        elif self._Packetizer__received_bytes > self.REKEY_BYTES:
            self._trigger_rekey()
