"""What our transport does otherwise than paramiko's."""

from __future__ import annotations

import socket

import paramiko
import pytest
from paramiko.common import (
    cMSG_CHANNEL_CLOSE,
    cMSG_CHANNEL_DATA,
    cMSG_CHANNEL_OPEN_SUCCESS,
    cMSG_CHANNEL_WINDOW_ADJUST,
)

from hpcnb.site.ssh_transport import HOST_KEYS, Transport


@pytest.fixture
async def transport(monkeypatch):
    """A transport that is not started; what it would send is in `sent`."""
    left, right = socket.socketpair()
    with left, right:
        transport = Transport(left, where="site", algorithms=HOST_KEYS, timeout=1)
        transport.sent = []
        monkeypatch.setattr(transport.packetizer, "send_message", lambda m: transport.sent.append(m.asbytes()[:5]))
        yield transport
        transport.close()


def message(kind: bytes, *numbers: int) -> paramiko.Message:
    m = paramiko.Message()
    m.add_byte(kind)
    for number in numbers:
        m.add_int(number)
    return m


async def test_nothing_is_sent_to_a_channel_after_its_end(transport):
    """A byte that a slow thread sends after another closed the channel would end the whole connection."""
    for kind in (
        cMSG_CHANNEL_DATA,
        cMSG_CHANNEL_CLOSE,
        cMSG_CHANNEL_DATA,
        cMSG_CHANNEL_WINDOW_ADJUST,
        cMSG_CHANNEL_CLOSE,
    ):
        transport._send_message(message(kind, 7))
    transport._send_message(message(cMSG_CHANNEL_DATA, 8))
    assert transport.sent == [b"\x5e\0\0\0\x07", b"\x61\0\0\0\x07", b"\x5e\0\0\0\x08"]


async def test_a_number_is_used_again(transport):
    """The server gives the number of a closed channel to the next one, which is open of course."""
    transport._send_message(message(cMSG_CHANNEL_CLOSE, 7))
    channel = paramiko.Channel(3)
    channel._set_transport(transport)
    transport._channels.put(3, channel)
    opened = message(cMSG_CHANNEL_OPEN_SUCCESS, 3, 7, 1000, 1000)
    transport._parse_channel_open_success(paramiko.Message(opened.asbytes()[1:]))
    transport._send_message(message(cMSG_CHANNEL_DATA, 7))
    assert transport.sent == [b"\x61\0\0\0\x07", b"\x5e\0\0\0\x07"]


async def test_no_old_algorithm_is_offered(transport):
    """Neither CBC nor 3DES nor MD5 nor SHA-1 may be negotiated, and the fastest comes first."""
    offered = " ".join((*transport.preferred_ciphers, *transport.preferred_macs, *transport.preferred_keys))
    assert transport.preferred_ciphers[0] == "aes128-gcm@openssh.com"
    assert [word for word in ("cbc", "3des", "md5", "sha1", "ssh-rsa") if word in offered] == []
