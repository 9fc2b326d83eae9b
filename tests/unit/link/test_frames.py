"""How frames look on a pipe, and that the decoder takes them however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.link.frames import HEADER, PIECE, Decoder, Frame, FrameError, Kind, encode

FRAMES = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=300),
)


def encoded(frame: Frame) -> bytes:
    return encode(frame.kind, stream=frame.stream, seq=frame.seq, payload=frame.payload)


@pytest.mark.parametrize(
    ("frame", "golden"),
    [
        (Frame(Kind.OPEN, 1, 1, b"scheduler"), "01 00000001 0000000000000001 00000009" + b"scheduler".hex()),
        (Frame(Kind.DATA, 7, 258, b"\x00\xff"), "02 00000007 0000000000000102 00000002 00ff"),
        (Frame(Kind.WINDOW, 7, 3, b"\0" * 8), "03 00000007 0000000000000003 00000008 0000000000000000"),
        (Frame(Kind.CLOSE, 7, 4, b""), "04 00000007 0000000000000004 00000000"),
        (Frame(Kind.RESET, 7, 5, b"no"), "05 00000007 0000000000000005 00000002 6e6f"),
        (Frame(Kind.ACK, 0, 2**64 - 1, b""), "10 00000000 ffffffffffffffff 00000000"),
        (Frame(Kind.PING, 0, 9, b""), "11 00000000 0000000000000009 00000000"),
        (Frame(Kind.PONG, 0, 9, b""), "12 00000000 0000000000000009 00000000"),
        (Frame(Kind.BYE, 0, 0, b"end"), "13 00000000 0000000000000000 00000003 656e64"),
    ],
)
def test_golden(frame, golden):
    """Every kind of frame has the bytes that other versions of hpcnb expect."""
    assert encoded(frame) == bytes.fromhex(golden)
    assert Decoder().feed(bytes.fromhex(golden)) == [frame]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 400), min_size=1))
def test_any_chunking(frames, sizes):
    """Frames come out as they went in, wherever the bytes between them are cut."""
    data = b"".join(map(encoded, frames))
    decoder, out, start, turn = Decoder(), [], 0, 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        out += decoder.feed(data[start : start + size])
        start, turn = start + size, turn + 1
    assert out == frames


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage(chunks):
    """Bytes that are no frames are refused by a `FrameError` and nothing else, and never hoarded."""
    decoder = Decoder()
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            assert decoder._end - decoder._start < HEADER.size + PIECE
    except FrameError:
        pass


def test_oversized():
    """A frame that announces more than a piece is refused before its payload has come."""
    assert Decoder().feed(HEADER.pack(Kind.DATA, 1, 1, PIECE)) == []
    with pytest.raises(FrameError, match=f"{PIECE + 1} bytes"):
        Decoder().feed(HEADER.pack(Kind.DATA, 1, 1, PIECE + 1))


def test_unknown_kind():
    """A kind that this version does not know is refused."""
    with pytest.raises(FrameError, match="kind 99"):
        Decoder().feed(HEADER.pack(99, 1, 1, 0))
