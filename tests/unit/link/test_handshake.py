"""What two ends accept of each other before they share a pipe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.link.handshake import (
    ACCEPTOR,
    HELLO_SIZE,
    INITIATOR,
    PROOF_SIZE,
    REFUSAL,
    LinkRefused,
    Proof,
    check_hello,
    hello,
)

SECRET = bytes(range(32))
MINE, THEIRS = hello("c0ffee", b"a" * 32), hello("c0ffee", b"b" * 32)
PROOF = Proof(session=b"s" * 16, known=True, received=258)
SIGNED = PROOF.sign(SECRET, INITIATOR, MINE + THEIRS)


def test_golden():
    """The messages of version 1 have the bytes that other builds of it expect."""
    assert b"hpcnb\x01c0ffee" + bytes(26) + b"a" * 32 == MINE
    assert SIGNED[:25] == b"s" * 16 + b"\x01" + (258).to_bytes(8, "big")
    assert SIGNED[25:].hex() == "5590501b2a613198bbb3b1dabb225c30c826f8fe83864e0b013e3efa3c7d7def"
    assert (len(MINE), len(SIGNED), len(REFUSAL)) == (HELLO_SIZE, PROOF_SIZE, PROOF_SIZE)


def test_right_proof():
    """A proof made with the same secret, for this pipe and side, says what its maker said."""
    check_hello(MINE, THEIRS)
    assert Proof.verify(SIGNED, SECRET, INITIATOR, MINE + THEIRS) == PROOF


@pytest.mark.parametrize(
    ("message", "secret", "side", "hellos"),
    [
        (SIGNED, b"another", INITIATOR, MINE + THEIRS),
        (SIGNED, SECRET, ACCEPTOR, MINE + THEIRS),
        (SIGNED, SECRET, INITIATOR, MINE + hello("c0ffee", b"c" * 32)),
        (REFUSAL, SECRET, INITIATOR, MINE + THEIRS),
    ],
    ids=["another secret", "sent back to its maker", "recorded on another pipe", "refusal"],
)
def test_wrong_proof(message, secret, side, hellos):
    """A proof by another secret, of the other side or from another pipe is refused."""
    with pytest.raises(LinkRefused, match="same secret"):
        Proof.verify(message, secret, side, hellos)


@given(st.integers(0, PROOF_SIZE * 8 - 1))
def test_tampered_proof(bit):
    """No bit of a proof can be changed on its way."""
    message = (int.from_bytes(SIGNED, "big") ^ 1 << bit).to_bytes(PROOF_SIZE, "big")
    with pytest.raises(LinkRefused):
        Proof.verify(message, SECRET, INITIATOR, MINE + THEIRS)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (THEIRS[:5] + b"\x07" + THEIRS[6:], "version 7 .* this one version 1"),
        (b"SSH-2.0-OpenSSH_9.2".ljust(HELLO_SIZE), "not hpcnb"),
        (hello("decaf", b"b" * 32), "another link"),
        (MINE, "another link"),
    ],
    ids=["version", "magic", "link", "echo"],
)
def test_wrong_hello(theirs, words):
    """Another version, program or link, or one's own hello sent back, is refused in words that say which."""
    with pytest.raises(LinkRefused, match=words):
        check_hello(MINE, theirs)


@given(st.binary(min_size=HELLO_SIZE, max_size=HELLO_SIZE))
def test_garbage_hello(theirs):
    """Any other bytes of a hello's length are refused."""
    with pytest.raises(LinkRefused):
        check_hello(MINE, theirs)


@pytest.mark.parametrize("name", ["", "x" * 33])
def test_bad_name(name):
    """A link's name that would not fit is a mistake of the caller."""
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        hello(name, bytes(32))
