"""Whatever happens to the pipes of a link, in whatever order: each stream's bytes arrive once, in order, and memory is bounded.

Both ends are real, from the handshake to the streams; the pipes are in memory, and every byte of them, like every second,
moves only when the machine says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hpcnb.link import Link, LinkState, Stream, StreamError, pipe, protocol
from hpcnb.link.frames import Decoder, Kind
from tests.unit.link.memory import Half, StillLoop

SMALL = {
    protocol: {
        "PIECE": 7,
        "QUEUE": 20,
        "WINDOW": 40,
        "FIRST": 10,
        "LINK": 80,
        "STREAMS": 8,
        "BATCH": 16,
        "ACK_EVERY": 60,
        "SMALL": 5,
    },
    pipe: {"PIECE": 30},
}
"""Every bound is met within a few steps."""
SECRET = b"s" * 32


class Wire:
    """A pipe between an initiator and the acceptor, and both ends' attempts to join over it."""

    def __init__(self, loop: StillLoop, initiator: Link, acceptor: Link) -> None:
        self.links = (initiator, acceptor)
        self.halves = (Half(loop), Half(loop))
        self.joining = [loop.create_task(_join(*end)) for end in zip(self.links, self.halves, strict=True)]

    @property
    def over(self) -> bool:
        """Nothing will come over it any more."""
        return all(half.closed and not half.sent for half in self.halves)

    def deliver(self, side: int, size: int) -> None:
        """Let bytes arrive that this side has sent, and its end after the last of them."""
        here, there = self.halves[side], self.halves[1 - side]
        there.came(here.take(size))
        if here.closed and not here.sent:
            there.ended()

    def cut(self, *sides: int) -> None:
        """Lose what is on its way; only these sides notice."""
        for half in self.halves:
            half.sent.clear()
        for side in sides:
            self.halves[side].close(ConnectionResetError("cut"))


async def _join(link: Link, half: Half) -> None:
    with contextlib.suppress(OSError):  # but for no reason is it refused
        await link.attach(half.reader, half.writer)


async def _write(stream: Stream, data: bytes) -> None:
    with contextlib.suppress(StreamError):  # who reads checks whether that may be
        await stream.write(data)


async def _read(stream: Stream, size: int) -> bytes | None:
    try:
        return await stream.read(size)
    except StreamError:
        return None


@dataclasses.dataclass(eq=False)
class Way:
    """One direction of one stream: who writes, who reads, and what they did."""

    writer: Stream | None = None
    reader: Stream | None = None
    written: bytearray = dataclasses.field(default_factory=bytearray)
    read: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False  # nothing more will be written
    finished: bool = False  # the reader has seen the end
    writing: asyncio.Task[None] | None = None
    reading: asyncio.Task[bytes | None] | None = None


@dataclasses.dataclass(eq=False)
class Talk:
    """One stream: from the initiator, and back."""

    ways: tuple[Way, Way] = dataclasses.field(default_factory=lambda: (Way(), Way()))
    broken: bool = False  # someone closed or reset it: what comes may end early

    def over(self, *links: Link) -> bool:
        """It may end early, since somebody broke it or it belongs to a link that has begun anew."""
        cores = {link._core for link in links if link.state is not LinkState.CLOSED}
        return self.broken or any(way.writer is not None and way.writer._core not in cores for way in self.ways)


class Accidents(RuleBasedStateMachine):
    """Random use of random streams; pipes are dialled side by side, cut at any byte, left silent, taken over."""

    def __init__(self) -> None:
        super().__init__()
        self.usual = {(module, name): getattr(module, name) for module, names in SMALL.items() for name in names}
        for module, names in SMALL.items():
            for name, value in names.items():
                setattr(module, name, value)
        self.loop = StillLoop()
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.begin())

    async def begin(self) -> None:
        self.random = random.Random(0)
        self.wires: list[Wire] = []
        self.old: list[Link] = []
        self.talks: list[Talk] = []
        self.acceptor = Link("c0ffee", SECRET, initiator=False, on_stream=self.serve)
        self.initiator = self.new_initiator()

    def new_initiator(self) -> Link:
        return Link("c0ffee", SECRET, initiator=True)

    async def serve(self, name: str, stream: Stream) -> None:
        talk = self.talks[int(name)]
        talk.ways[0].reader = talk.ways[1].writer = stream
        await asyncio.get_running_loop().create_future()  # the machine alone closes it

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            links = (self.acceptor, self.initiator, *self.old)
            closing = [self.loop.create_task(link.close()) for link in links]
            self.loop.advance(15.0)  # handshakes and farewells end
            assert all(task.done() for task in closing)
            self.loop.close()
            asyncio.set_event_loop(None)
            for (module, name), value in self.usual.items():
                setattr(module, name, value)

    def finish(self) -> None:
        """Give both ends a pipe that holds, and read: then all has come, nobody waits, and nothing is left."""
        for wire in self.wires:
            self.loop.do(wire.cut, 0, 1)
        if self.initiator.state is LinkState.CLOSED:
            self.another_process()
        self.dials()
        self.settle()
        if self.initiator.state is not LinkState.UP:  # the other end had forgotten its streams
            self.dials()
            self.settle()
        assert (self.initiator.state, self.acceptor.state) == (LinkState.UP, LinkState.UP)
        cores = self.initiator._core, self.acceptor._core
        ways = [(talk, way) for talk in self.talks for way in talk.ways if way.writer and way.writer._core in cores]
        self.use_up()
        assert all(way.writing is None or way.writing.done() for _, way in ways), "somebody waits for ever"
        for talk, way in ways:
            self.end(talk, way)
        self.use_up()
        assert all(way.read == way.written and way.finished for talk, way in ways if not talk.broken)
        for _ in range(2):  # the next pings acknowledge the last frames
            self.loop.advance(2.0)
            self.settle()
        assert [(core._flows, core._kept) for core in cores] == [({}, deque())] * 2
        assert not self.loop.failures

    def use_up(self) -> None:
        """Deliver and read until there is nothing more."""
        while self.settle() | self.read_all():
            pass

    def settle(self) -> bool:
        """Deliver everything that is sent until nothing is; whether anything was."""
        moved = False
        self.loop.settle()
        for _ in range(2000):
            sides = [(wire, side) for wire in self.wires for side in (0, 1) if wire.halves[side].sent]
            if not sides:
                return moved
            moved = True
            for wire, side in sides:
                self.loop.do(wire.deliver, side, 1 << 20)
        raise AssertionError("the two ends never come to rest")

    def read_all(self) -> bool:
        return sum(self.read(talk, way, 1000) for talk in self.talks for way in talk.ways) > 0

    def read(self, talk: Talk, way: Way, size: int) -> bool:
        """Start to read, or see what came; whether anything did."""
        if way.reader is None or way.finished:
            return False
        if way.reading is None:
            way.reading = self.loop.create_task(_read(way.reader, size))
            self.loop.settle()
        if not way.reading.done():
            return False
        data, way.reading = way.reading.result(), None
        if data is None:
            assert talk.over(self.initiator, self.acceptor)
            way.finished = talk.broken = True
            return True
        way.read += data
        way.finished = data == b""
        assert way.written.startswith(way.read), "not what was written"
        assert not way.finished or talk.broken or (way.ended and way.read == way.written)
        return True

    def end(self, talk: Talk, way: Way) -> None:
        if way.writer is not None and (way.writing is None or way.writing.done()) and not way.ended:
            way.ended = True
            self.loop.do(way.writer.write_eof)

    # What users of streams do.

    numbers, sides, sizes = st.integers(0, 7), st.integers(0, 1), st.integers(1, 50)

    @initialize()
    def first(self) -> None:
        self.opens()
        self.dials()
        self.settle()

    @precondition(lambda self: self.initiator.state is not LinkState.CLOSED and len(self.talks) < 8)
    @rule()
    def opens(self) -> None:
        talk = Talk()
        talk.ways[0].writer = talk.ways[1].reader = self.loop.do(self.initiator.open, str(len(self.talks)))
        self.talks.append(talk)

    def pick(self, number: int, side: int) -> tuple[Talk, Way]:
        talk = self.talks[number % len(self.talks)]
        return talk, talk.ways[side]

    @rule(number=numbers, side=sides, size=st.integers(1, 60))
    def writes(self, number: int, side: int, size: int) -> None:
        _, way = self.pick(number, side)
        if way.writer is not None and not way.ended and (way.writing is None or way.writing.done()):
            data = self.random.randbytes(size)
            way.written += data
            way.writing = self.loop.create_task(_write(way.writer, data))
            self.loop.settle()

    @rule(number=numbers, side=sides, size=sizes)
    def reads(self, number: int, side: int, size: int) -> None:
        self.read(*self.pick(number, side), size)

    @rule(number=numbers, side=sides)
    def ends(self, number: int, side: int) -> None:
        self.end(*self.pick(number, side))

    @rule(number=numbers, side=sides, gently=st.booleans())
    def breaks(self, number: int, side: int, gently: bool) -> None:
        talk, way = self.pick(number, side)
        if way.writer is not None and self.random.random() < 0.3:
            talk.broken = True
            self.loop.do(*[way.writer.close] if gently else [way.writer.reset, "enough"])

    # What pipes do.

    @precondition(lambda self: len(self.wires) < 6)
    @rule()
    def dials(self) -> None:
        self.wires.append(Wire(self.loop, self.initiator, self.acceptor))
        self.loop.settle()

    @precondition(lambda self: self.old and len(self.wires) < 6)
    @rule()
    def an_old_process_dials(self) -> None:
        self.wires.append(Wire(self.loop, self.old[-1], self.acceptor))
        self.loop.settle()

    @precondition(lambda self: self.wires)
    @rule(number=numbers, side=sides, size=st.integers(1, 150))
    def delivers(self, number: int, side: int, size: int) -> None:
        self.loop.do(self.wires[number % len(self.wires)].deliver, side, size)

    @rule(number=numbers, side=sides, size=st.integers(1, 200))
    def exchanges(self, number: int, side: int, size: int) -> None:
        self.writes(number, side, size)
        for wire in self.wires:
            self.loop.do(wire.deliver, side, size)

    @rule()
    def everything_arrives(self) -> None:
        self.settle()

    @precondition(lambda self: self.wires)
    @rule(number=numbers, noticed=st.sampled_from([(), (0,), (1,), (0, 1)]))
    def cut(self, number: int, noticed: tuple[int, ...]) -> None:
        wire = self.wires[number % len(self.wires)]
        self.loop.do(wire.cut, *noticed)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.advance(seconds)
        self.wires = [wire for wire in self.wires if not wire.over]

    @rule()
    def takes_over(self) -> None:
        """Another process with the secret joins; the first may still be there, and in the midst of joining."""
        if self.random.random() < 0.2 or self.initiator.state is LinkState.CLOSED:
            self.another_process()
            self.dials()

    def another_process(self) -> None:
        self.old.append(self.initiator)
        self.initiator = self.new_initiator()
        for talk in self.talks:
            talk.broken = True

    @invariant()
    def bounded(self) -> None:
        small = SMALL[protocol]
        for core in (self.initiator._core, self.acceptor._core):
            assert core._kept_size < small["LINK"] + 3 * 17 + 8 + small["PIECE"] + 255
            sent = Counter()
            for frame in Decoder().feed(b"".join(core._kept)):
                sent[frame.stream] += len(frame.payload) if frame.kind is Kind.DATA else 0
            assert all(size <= small["WINDOW"] for size in sent.values())
            unread = [sum(map(len, flow.unread)) for flow in core._flows.values()]
            assert all(size <= small["WINDOW"] for size in unread)
            assert sum(unread) <= 2 * small["LINK"]
            assert all(len(flow.pending) <= small["QUEUE"] for flow in core._flows.values())
        for wire in self.wires:
            for link, half in zip(wire.links, wire.halves, strict=True):
                assert len(half.sent) < 1000
                used = half.get_protocol()
                if isinstance(used, pipe.Pipe) and not half.closed and not used._stopped:
                    assert link._pipe is used, "a pipe that was replaced is still in use"
        assert not self.loop.failures, self.loop.failures


Accidents.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


class TestAccidents(Accidents.TestCase):
    """Bytes arrive once and in order whatever happens to the pipes, memory stays bounded, and nobody waits for ever."""
