"""The protocol without I/O: two ends, the bytes between them, and every kind of accident to those bytes."""

from __future__ import annotations

import pytest

from hpcnb.link import protocol
from hpcnb.link.frames import Decoder, FrameError, Kind, encode
from hpcnb.link.protocol import Core, Flow, StreamError


class Ends:
    """An initiator and an acceptor with what is on its way between them."""

    def __init__(self) -> None:
        self.flows: dict[int, list[Flow]] = {}  # by stream: the initiator's end, then the acceptor's
        self.pongs: list[int] = []
        self.cores = [Core(initiator=True, pong=self.pongs.append), Core(initiator=False, opened=self.opened)]
        self.wires = [bytearray(), bytearray()]  # by who sent it

    def opened(self, flow: Flow) -> None:
        self.flows[flow.id].append(flow)

    def open(self, name: str = "x") -> Flow:
        flow = self.cores[0].open(name)
        self.flows[flow.id] = [flow]
        return flow

    def push(self, side: int) -> bool:
        frames = self.cores[side].take()
        self.wires[side] += b"".join(frames)
        return bool(frames)

    def deliver(self, side: int, size: int = 1 << 30) -> None:
        data = bytes(self.wires[side][:size])
        del self.wires[side][:size]
        self.cores[1 - side].receive(data)

    def settle(self) -> None:
        for _ in range(1000):
            if not self.push(0) | self.push(1) and not any(self.wires):
                return
            self.deliver(0)
            self.deliver(1)
        raise AssertionError("the two ends never come to rest")


@pytest.fixture
def ends():
    return Ends()


def write(core: Core, flow: Flow, data: bytes) -> int:
    return core.write(flow, memoryview(data))


def unread(flow: Flow) -> int:
    return sum(map(len, flow.unread))


def kinds(frames: list[bytes]) -> list[Kind]:
    return [frame.kind for frame in Decoder().feed(b"".join(frames))]


@pytest.mark.parametrize("side", [0, 1])
def test_cut_at_every_byte(side):
    """A conversation that is cut after any byte of either direction carries on with nothing lost or repeated."""
    for cut in range(200):
        ends = Ends()
        flow = ends.open()
        write(ends.cores[0], flow, b"question")
        ends.push(0)
        ends.deliver(0, cut if side == 0 else 200)
        there = ends.flows[1][1:]
        if there:
            write(ends.cores[1], there[0], b"answer")
            ends.push(1)
            ends.deliver(1, cut if side == 1 else 200)
        received = [core.received for core in ends.cores]
        ends.wires = [bytearray(), bytearray()]
        ends.cores[1].attach(received[0])
        ends.cores[0].attach(received[1])
        ends.settle()
        assert ends.cores[1].read(ends.flows[1][1], 100) == b"question"
        assert ends.cores[0].read(flow, 100) == (b"answer" if there else None)


def test_what_is_sent_again_counts_once(ends):
    """An end that received more since it said how much takes nothing twice."""
    flow = ends.open()
    said = ends.cores[1].received
    write(ends.cores[0], flow, b"once")
    ends.push(0)
    ends.deliver(0)
    ends.cores[0].attach(said)
    ends.cores[1].attach(0)
    assert ends.push(0)
    ends.settle()
    assert ends.cores[1].read(ends.flows[1][1], 100) == b"once"
    assert len(ends.flows[1]) == 2


def test_lost_acknowledgement(ends):
    """An acknowledgement that was lost with its pipe is said again over the next one."""
    write(ends.cores[0], ends.open(), b"x")
    ends.push(0)
    ends.deliver(0)
    ends.cores[1].ping(0)
    assert kinds(ends.cores[1].take()) == [Kind.ACK, Kind.PING]
    ends.cores[0].attach(0)
    ends.cores[1].attach(0)
    ends.cores[0].ping(0)
    ends.settle()
    assert not ends.cores[0]._kept


def test_streams_take_turns(ends):
    """A stream with little to say waits for one piece of each other stream, not for all of their data."""
    bulk, small = ends.open("bulk"), ends.open("small")
    for flow, size in ((bulk, 3 * protocol.PIECE), (small, 1)):
        write(ends.cores[0], flow, bytes(size))
    frames = Decoder().feed(b"".join(ends.cores[0].take()))
    assert [(frame.kind, frame.stream) for frame in frames][:4] == [
        (Kind.OPEN, 1),
        (Kind.DATA, 1),
        (Kind.OPEN, 2),
        (Kind.DATA, 2),
    ]


def test_ping_goes_first(ends):
    """A ping overtakes all data, and its pong brings back the stamp; of a flood only the last is answered."""
    write(ends.cores[0], ends.open(), bytes(1000))
    ends.cores[0].ping(1)
    ends.cores[0].ping(2)
    frames = ends.cores[0].take()
    assert kinds(frames)[:2] == [Kind.PING, Kind.OPEN]
    ends.wires[0] += b"".join(frames)
    ends.deliver(0)
    ends.settle()
    assert ends.pongs == [2]


def test_acknowledgements_are_few(ends, monkeypatch):
    """What is received is acknowledged with the next thing sent, or alone once it is much, not frame by frame."""
    flow = ends.open()
    write(ends.cores[0], flow, bytes(100))
    ends.push(0)
    ends.deliver(0)
    assert ends.cores[1].take() == []
    ends.cores[1].ping(0)
    assert kinds(ends.cores[1].take()) == [Kind.ACK, Kind.PING]
    monkeypatch.setattr(protocol, "ACK_EVERY", 1000)
    write(ends.cores[0], flow, bytes(1000))
    ends.push(0)
    ends.deliver(0)
    assert kinds(ends.cores[1].take()) == [Kind.ACK]


def test_no_credit(ends):
    """A stream that nobody reads takes its first credit and its queue, and no more; when read it goes on."""
    flow = ends.open()
    while write(ends.cores[0], flow, bytes(10_000)):
        ends.settle()
    assert unread(ends.flows[1][1]) == protocol.FIRST
    assert len(flow.pending) == protocol.QUEUE
    assert ends.cores[1].read(ends.flows[1][1], 1) == b"\0"
    ends.settle()
    assert not flow.pending


def test_unacknowledged_is_bounded(ends, monkeypatch):
    """While nothing is acknowledged no more than a link's share is sent; an acknowledgement sets it going again."""
    monkeypatch.setattr(protocol, "ACK_EVERY", 100_000)
    monkeypatch.setattr(protocol, "LINK", 300_000)
    flows = [ends.open() for _ in range(5)]
    for flow in flows:
        write(ends.cores[0], flow, bytes(protocol.QUEUE))
    while ends.push(0):
        pass
    assert 300_000 <= ends.cores[0]._kept_size < 300_000 + 2 * protocol.PIECE
    waked = []
    monkeypatch.setattr(ends.cores[0], "_wake", lambda: waked.append(1))
    ends.settle()
    assert waked
    assert not any(flow.pending for flow in flows)


def test_too_many_streams(ends, monkeypatch):
    """The opener of one stream too many is told so, and the other end takes it for a fault of the pipe."""
    monkeypatch.setattr(protocol, "STREAMS", 3)
    for _ in range(3):
        ends.open()
    with pytest.raises(StreamError, match="3 open streams"):
        ends.open()
    ends.settle()
    with pytest.raises(FrameError):
        ends.cores[1].receive(encode(Kind.OPEN, stream=4, seq=4, payload=b"x"))


@pytest.mark.parametrize(
    "frame",
    [
        encode(Kind.ACK, seq=1),
        encode(Kind.DATA, stream=1, seq=2),
        encode(Kind.OPEN, stream=1, seq=1, payload=b"x"),
    ],
    ids=["acknowledges what was not sent", "leaves a gap", "opens a stream here"],
)
def test_nonsense(ends, frame):
    """Frames that cannot be are a `FrameError`, which costs the pipe and not the link."""
    with pytest.raises(FrameError):
        ends.cores[0].receive(frame)


def test_more_than_allowed(ends):
    """A stream on which more comes than was allowed is reset; the others do not notice."""
    flow, other = ends.open(), ends.open()
    ends.settle()
    flow.limit = 1 << 30
    write(ends.cores[0], flow, bytes(protocol.QUEUE))
    ends.settle()
    write(ends.cores[0], flow, b"x")
    ends.settle()
    with pytest.raises(StreamError, match="more was sent than was allowed"):
        write(ends.cores[0], flow, b"x")
    assert write(ends.cores[0], other, b"x") == 1
    assert not ends.flows[1][1].unread


def test_read_what_came_before_the_reset(ends):
    """What arrived before a reset can be read, then the reason is raised."""
    flow = ends.open()
    write(ends.cores[0], flow, b"last words")
    ends.settle()
    ends.cores[0].reset(flow, "gone")
    ends.settle()
    there = ends.flows[1][1]
    assert ends.cores[1].read(there, 100) == b"last words"
    with pytest.raises(StreamError, match="gone"):
        ends.cores[1].read(there, 100)


def test_reset_is_no_end(ends):
    """Who reads a stream that was ended and then reset with something unsent sees the reset, not the end."""
    flow = ends.open()
    ends.settle()
    write(ends.cores[0], flow, b"unsent")
    ends.cores[0].write_eof(flow)
    ends.cores[0].reset(flow, "gone")
    ends.settle()
    with pytest.raises(StreamError, match="gone"):
        ends.cores[1].read(ends.flows[1][1], 100)


def test_reset_before_it_was_sent(ends):
    """A stream that is reset before its OPEN was sent leaves no trace, and the next one works."""
    ends.cores[0].reset(ends.open(), "never mind")
    assert ends.cores[0].take() == []
    write(ends.cores[0], ends.open(), b"x")
    ends.settle()
    assert ends.cores[1].read(ends.flows[2][1], 1) == b"x"


def test_close_delivers_and_then_refuses(ends):
    """After a close what was written still arrives, and what the other end writes is refused."""
    flow = ends.open()
    write(ends.cores[0], flow, b"bye")
    ends.cores[0].close(flow)
    ends.settle()
    there = ends.flows[1][1]
    assert [ends.cores[1].read(there, 10), ends.cores[1].read(there, 10)] == [b"bye", b""]
    write(ends.cores[1], there, b"but")
    ends.settle()
    with pytest.raises(StreamError, match="the stream is closed"):
        write(ends.cores[1], there, b"!")
    assert [core._flows for core in ends.cores] == [{}, {}]


def test_both_close_with_much_unread(ends):
    """Two ends that close at once, each with more to send than the other allowed and has read, leave nothing behind."""
    flow = ends.open()
    ends.settle()
    both = list(zip(ends.cores, ends.flows[1], strict=True))
    for core, end in both:
        while write(core, end, bytes(protocol.QUEUE)):
            ends.settle()
    for core, end in both:
        core.close(end)
    ends.settle()
    assert [core._flows for core in ends.cores] == [{}, {}]
    assert flow.sent > protocol.FIRST


def test_writer_hears_that_nobody_reads(ends):
    """A writer that waits for credit when the other end closes is told, and does not wait for ever."""
    flow = ends.open()
    while write(ends.cores[0], flow, bytes(protocol.QUEUE)):
        ends.settle()
    there = ends.flows[1][1]
    while ends.cores[1].read(there, 1 << 20):
        pass
    ends.cores[1].close(there)
    ends.settle()
    with pytest.raises(StreamError, match="the stream is closed"):
        write(ends.cores[0], flow, b"x")


@pytest.mark.parametrize("end", ["close", "reset"])
def test_no_reading_after_the_end(ends, end):
    """A stream that was closed or reset here is no stream that the other end has ended: reading it is an error."""
    flow = ends.open()
    ends.settle()
    there = ends.flows[1][1]
    ends.cores[1].write_eof(there)
    ends.settle()
    assert ends.cores[0].read(flow, 1) == b""
    getattr(ends.cores[0], end)(flow, *(["enough"] if end == "reset" else []))
    with pytest.raises(StreamError):
        ends.cores[0].read(flow, 1)


def test_end(ends):
    """When all ends, every stream raises the reason and no new one can be opened."""
    flow, waked = ends.open(), []
    flow.changed = lambda: waked.append(1)
    assert ends.cores[0].end("over") == encode(Kind.BYE, payload=b"over")
    assert waked == [1]
    for use in (lambda: write(ends.cores[0], flow, b"x"), lambda: ends.cores[0].read(flow, 1), ends.open):
        with pytest.raises(StreamError, match="over"):
            use()


def test_long_reason(ends):
    """A reason of any length and script arrives, cut between two characters."""
    flow = ends.open()
    ends.settle()
    ends.cores[0].reset(flow, "→" * 100_000)
    ends.settle()
    assert ends.flows[1][1].error == "→" * 1000


@pytest.mark.parametrize("name", ["", "x" * 1001])
def test_bad_name(ends, name):
    """A stream's name that would not fit is a mistake of the caller."""
    with pytest.raises(ValueError, match="1 to 1000 characters"):
        ends.open(name)
