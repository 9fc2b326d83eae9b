"""The handshake: how two ends prove, on a new pipe, that they share a link, and where they left off.

The initiator (which opens streams) speaks first, whoever dialled::

    initiator                               acceptor
    hello(version, link, nonce)        →
                                       ←    hello(version, link, nonce)
    proof(session, known, received)    →                                     attaches the pipe
                                       ←    proof(session, known, received)
    attaches the pipe

A proof is signed with the link's secret over both hellos, so it is worth nothing on another pipe, and is labelled with its
side, so it cannot be sent back to who made it. The acceptor shows its own only to who has shown a right one.

*Session* names the shared state of all streams. The initiator draws it, and draws a new one when its streams were lost.
`known` of the initiator: "I have carried frames in it"; of the acceptor: "I have it still". An acceptor that was
restarted, or taken over by another initiator, answers no, and the initiator gives its streams up. The acceptor attaches first:
an initiator that has seen no proof has sent no frame, so it may begin the same session again.

The length of a hello, its first five bytes and its version never change; all else may with the version.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from typing import Self

from hpcnb.errors import ClusterError

__all__ = [
    "ACCEPTOR",
    "HELLO_SIZE",
    "INITIATOR",
    "PROOF_SIZE",
    "REFUSAL",
    "LinkRefused",
    "Proof",
    "check_hello",
    "hello",
]

VERSION = 1
_MAGIC = b"hpcnb"
_HELLO = struct.Struct("!5sB32s32s")
_CLAIM = struct.Struct("!16s?Q")
_MAC_SIZE = 32

HELLO_SIZE = _HELLO.size
PROOF_SIZE = _CLAIM.size + _MAC_SIZE
REFUSAL = bytes(PROOF_SIZE)
"""What an acceptor sends in place of its proof."""

INITIATOR, ACCEPTOR = b"initiator", b"acceptor"


class LinkRefused(ClusterError):
    """The two ends of a pipe do not belong together; dialling again would not help."""


def hello(link: str, nonce: bytes) -> bytes:
    """Return the first message of either end."""
    name = link.encode()
    if not 0 < len(name) <= 32 or len(nonce) != 32:
        raise ValueError(f"a link's id has 1 to 32 bytes, not {link!r}, and a nonce 32")
    return _HELLO.pack(_MAGIC, VERSION, name, nonce)


def check_hello(mine: bytes, theirs: bytes) -> None:
    """Raise `LinkRefused` unless both hellos are of one version and one link."""
    magic, version, link, nonce = _HELLO.unpack(theirs)
    _, _, my_link, my_nonce = _HELLO.unpack(mine)
    if magic != _MAGIC:
        raise LinkRefused("what answers at the other end of the pipe is not hpcnb", evidence=repr(theirs[:16]))
    if version != VERSION:
        raise LinkRefused(
            f"the other end speaks version {version} of the link's protocol, this one version {VERSION}",
            remedy="Use the same version of hpcnb on both sides: start the cluster anew.",
        )
    if link != my_link or nonce == my_nonce:
        raise LinkRefused("the other end belongs to another link", evidence=repr(link.rstrip(b"\0")))


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The second message of either end.

    Parameters
    ----------
    session : bytes
        16 bytes.
    known : bool
    received : int
        The sequence number of the last frame received in the session.
    """

    session: bytes
    known: bool
    received: int

    def sign(self, secret: bytes, side: bytes, hellos: bytes) -> bytes:
        """Return the message; `hellos` is the initiator's hello and then the acceptor's."""
        claim = _CLAIM.pack(self.session, self.known, self.received)
        return claim + _mac(secret, side, hellos, claim)

    @classmethod
    def verify(cls, message: bytes, secret: bytes, side: bytes, hellos: bytes) -> Self:
        """Return what a message of `side` says, or raise `LinkRefused` when it was not made with `secret`."""
        claim, mac = message[: _CLAIM.size], message[_CLAIM.size :]
        if not hmac.compare_digest(mac, _mac(secret, side, hellos, claim)):
            raise LinkRefused(
                "the two ends of the link do not have the same secret",
                remedy="The run directory on this side is not the one of this cluster: start the cluster anew.",
            )
        session, known, received = _CLAIM.unpack(claim)
        return cls(session=session, known=known, received=received)


def _mac(secret: bytes, side: bytes, hellos: bytes, claim: bytes) -> bytes:
    return hmac.digest(secret, side + hellos + claim, "sha256")
