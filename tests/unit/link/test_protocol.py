"""The protocol without I/O: two ends, the bytes between them, and every kind of accident to those bytes."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hpcnb.link import protocol
from hpcnb.link.frames import Decoder, FrameError, Kind, encode
from hpcnb.link.protocol import Core, Flow, StreamError

SMALL = {"PIECE": 7, "QUEUE": 20, "WINDOW": 40, "FIRST": 10, "LINK": 80, "STREAMS": 8, "BATCH": 16, "ACK_EVERY": 60}


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


@dataclasses.dataclass
class Said:
    """What one end of a stream wrote and what the other has read."""

    written: bytearray = dataclasses.field(default_factory=bytearray)
    read: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False


class Accidents(RuleBasedStateMachine):
    """Random use of random streams while pipes are cut at any byte and replaced, in every order the handshake allows."""

    def __init__(self) -> None:
        super().__init__()
        self.usual = {name: getattr(protocol, name) for name in SMALL}
        for name, value in SMALL.items():
            setattr(protocol, name, value)
        self.ends = Ends()
        self.said: dict[tuple[int, int], Said] = {}
        self.reset: set[int] = set()
        self.random = random.Random(0)
        self.claimed: int | None = None  # what the initiator said it had received, in a handshake under way
        self.answer: int | None = None  # what the acceptor answered when it attached; the initiator has yet to
        self.fresh = bytearray()  # what the acceptor has sent over the new pipe since
        self.dead = False

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            for name, value in self.usual.items():
                setattr(protocol, name, value)

    def finish(self) -> None:
        """Give both ends a pipe that holds, read all to the end, and see that all has come and nothing is left."""
        if self.answer is None:
            self.acceptor_attaches()
        self.initiator_attaches()
        alive = True
        while alive:
            self.ends.settle()
            alive = sum(self.read(number, side, 1000) for number in self.ends.flows for side in (0, 1)) > 0
        assert all(said.read == said.written for (number, _), said in self.said.items() if number not in self.reset)
        for number, side in itertools.product(self.ends.flows, (0, 1)):
            self.eof(number - 1, side)
        self.ends.settle()
        for side in (0, 1):
            self.ping(0, side)  # what goes back acknowledges the last frames too
        self.ends.settle()
        assert [(core._flows, core._kept) for core in self.ends.cores] == [({}, deque())] * 2

    def flow(self, number: int, side: int) -> Flow | None:
        both = self.ends.flows.get(number, [])
        return both[side] if side < len(both) else None

    def use(self, any_number: int, side: int) -> tuple[int, Flow | None, Said]:
        number = any_number % len(self.ends.flows) + 1
        return number, self.flow(number, side), self.said.setdefault((number, side), Said())

    def read(self, number: int, side: int, size: int) -> bool:
        flow = self.flow(number, side)
        if flow is None:
            return False
        said = self.said.setdefault((number, 1 - side), Said())
        try:
            data = self.ends.cores[side].read(flow, size)
        except StreamError:
            assert number in self.reset
            return False
        if data == b"":
            assert said.ended
            assert said.read == said.written
        said.read += data or b""
        assert said.written.startswith(said.read)
        return bool(data)

    numbers = st.integers(0, 5)
    sides = st.integers(0, 1)

    @initialize()
    def first(self) -> None:
        self.ends.open()
        self.ends.settle()

    @precondition(lambda self: len(self.ends.flows) < 6)
    @rule()
    def open(self) -> None:
        self.ends.open()

    @rule(number=numbers, side=sides, size=st.integers(1, 50))
    def write(self, number: int, side: int, size: int) -> None:
        number, flow, said = self.use(number, side)
        if flow is not None and number not in self.reset and not said.ended:
            data = self.random.randbytes(size)
            said.written += data[: write(self.ends.cores[side], flow, data)]

    @rule(number=numbers, side=sides, size=st.integers(1, 50))
    def reads(self, number: int, side: int, size: int) -> None:
        self.read(self.use(number, side)[0], side, size)

    @rule(number=numbers, side=sides)
    def eof(self, number: int, side: int) -> None:
        number, flow, said = self.use(number, side)
        if flow is not None:
            self.ends.cores[side].write_eof(flow)
            said.ended = True

    @rule(number=numbers, side=sides, gently=st.booleans())
    def breaks(self, number: int, side: int, gently: bool) -> None:
        number, flow, said = self.use(number, side)
        if flow is not None and self.random.random() < 0.3:
            self.reset.add(number)
            said.ended = True
            if gently:
                self.ends.cores[side].close(flow)
            else:
                self.ends.cores[side].reset(flow, "enough")

    @rule(stamp=st.integers(0, 9), side=sides)
    def ping(self, stamp: int, side: int) -> None:
        self.ends.cores[side].ping(stamp)

    @rule(side=sides)
    def push(self, side: int) -> None:
        if self.answer is not None and side == 1:
            self.fresh += b"".join(self.ends.cores[1].take())
        elif self.dead or self.answer is not None:
            self.ends.cores[side].take()  # into a pipe that nobody reads any more
        else:
            self.ends.push(side)

    @rule(side=sides, size=st.integers(1, 120))
    def deliver(self, side: int, size: int) -> None:
        if side == 1 or self.answer is None:
            self.ends.deliver(side, size)

    @rule(number=numbers, side=sides, size=st.integers(1, 200))
    def exchange(self, number: int, side: int, size: int) -> None:
        self.write(number, side, size)
        self.push(side)
        self.deliver(side, size)

    @rule()
    def cut(self) -> None:
        self.dead = True
        for wire in self.ends.wires:
            wire.clear()

    @precondition(lambda self: self.answer is None)
    @rule()
    def initiator_claims(self) -> None:
        self.claimed = self.ends.cores[0].received

    @precondition(lambda self: self.answer is None)
    @rule()
    def acceptor_attaches(self) -> None:
        initiator, acceptor = self.ends.cores
        self.answer = acceptor.received
        acceptor.attach(initiator.received if self.claimed is None else self.claimed)
        self.claimed = None

    @precondition(lambda self: self.answer is not None)
    @rule()
    def initiator_attaches(self) -> None:
        self.ends.cores[0].attach(self.answer)
        self.ends.wires = [bytearray(), self.fresh]
        self.dead = False
        self.answer, self.fresh = None, bytearray()

    @precondition(lambda self: self.answer is not None)
    @rule()
    def answer_is_lost(self) -> None:
        self.answer, self.fresh = None, bytearray()
        self.cut()

    @invariant()
    def bounded(self) -> None:
        small = SMALL
        for core in self.ends.cores:
            assert core._kept_size < small["LINK"] + 3 * 17 + 8 + small["PIECE"] + 255
            sent = Counter()
            for frame in Decoder().feed(b"".join(core._kept)):
                sent[frame.stream] += len(frame.payload) if frame.kind is Kind.DATA else 0
            assert all(size <= small["WINDOW"] for size in sent.values())
            flows = core._flows.values()
            assert all(len(flow.pending) <= small["QUEUE"] and unread(flow) <= small["WINDOW"] for flow in flows)
            assert sum(map(unread, flows)) <= 2 * small["LINK"]


Accidents.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


class TestAccidents(Accidents.TestCase):
    """Whatever happens to the pipes, each stream's bytes arrive once and in order, and memory stays bounded."""


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
