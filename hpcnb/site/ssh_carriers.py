"""The channels of an SSH connection that are the loop's: what comes for them, and what they send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paramiko
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_WINDOW_ADJUST,
    cMSG_CHANNEL_WINDOW_ADJUST,
)

from hpcnb.site.ssh_channel import ChannelTransport
from hpcnb.site.ssh_wire import FULL

if TYPE_CHECKING:
    from hpcnb.site.ssh_transport import Transport

_KINDS = (MSG_CHANNEL_WINDOW_ADJUST, MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_CLOSE)
_HEADER = 64
"""What a packet holds beside a channel's data, as paramiko counts."""
_LARGEST = (1 << 15) - _HEADER
"""The most of a channel's data that is sent in one packet, whatever the server would take."""


class Carriers:
    """The router of a connection's messages, and what its `ChannelTransport`s are given.

    Parameters
    ----------
    ssh : Transport
    """

    def __init__(self, ssh: Transport) -> None:
        self._ssh = ssh
        self._carriers: dict[int, ChannelTransport] = {}  # by the numbers of their channels
        self._fed: set[ChannelTransport] = set()  # to be told

    def add(self, number: int, carrier: ChannelTransport) -> None:
        """Give `carrier` what comes over a channel that is about to be opened."""
        carrier.number = number
        self._carriers[number] = carrier

    def remove(self, carrier: ChannelTransport) -> None:
        """Leave what still comes to paramiko."""
        self._carriers.pop(carrier.number, None)

    def push(self) -> None:
        """Send what waits for room, or for the end of a key exchange."""
        for carrier in list(self._carriers.values()):
            carrier.push()

    def lose(self) -> None:
        """The connection has ended."""
        for carrier in list(self._carriers.values()):
            carrier.lose()

    def diverts(self, kind: int, rest: memoryview) -> bool:
        return kind in _KINDS and int.from_bytes(rest[:4], "big") in self._carriers

    def divert(self, kind: int, rest: memoryview) -> bool:
        carrier = self._carriers.get(int.from_bytes(rest[:4], "big")) if kind in _KINDS else None
        if carrier is None:
            return False
        if kind == MSG_CHANNEL_DATA:
            carrier.came(rest[8 : 8 + int.from_bytes(rest[4:8], "big")])
            self._fed.add(carrier)
        elif kind == MSG_CHANNEL_WINDOW_ADJUST:
            self._widen(carrier, int.from_bytes(rest[4:8], "big"))
        elif kind == MSG_CHANNEL_EOF:
            carrier.came_eof()
        else:
            carrier.lose()
        return True

    def settle(self) -> None:
        while self._fed:
            self._fed.pop().settle()

    def _widen(self, carrier: ChannelTransport, size: int) -> None:
        channel = self._ssh._channels.get(carrier.number)  # type: ignore[attr-defined]  # noqa: SLF001 (as its run does)
        if channel is not None:
            with channel.lock:
                channel.out_window_size += size
                channel.out_buffer_cv.notify_all()
            carrier.push()

    def send(self, channel: paramiko.Channel, data: memoryview) -> int:
        """Send as much of `data` as one packet, the channel's window and the wire take; never waits.

        Raises
        ------
        EOFError
            The channel is closed.
        """
        ssh = self._ssh
        with ssh.clear_to_send_lock:
            if not ssh.clear_to_send.is_set() or ssh.packetizer.wire.backlog >= FULL:
                return 0
            with channel.lock:
                if channel.closed or channel.eof_sent or not ssh.is_active():
                    raise EOFError
                size = min(len(data), channel.out_window_size, channel.out_max_packet_size - _HEADER, _LARGEST)
                channel.out_window_size -= size
            if size:
                ssh.packetizer.send_data(channel.remote_chanid, data[:size])
            return size

    def give_credit(self, channel: paramiko.Channel, size: int) -> None:
        """Let the server send as much again, once it is worth a message."""
        credit = channel._check_add_window(size)  # type: ignore[attr-defined]  # noqa: SLF001 (as its recv does)
        if credit:
            answer = paramiko.Message()
            answer.add_byte(cMSG_CHANNEL_WINDOW_ADJUST)
            answer.add_int(channel.remote_chanid)
            answer.add_int(credit)
            self._ssh._send_user_message(answer)  # noqa: SLF001
