"""One end of a link without its I/O: streams, credit, sequence numbers, acknowledgements and what to send next.

Memory is bounded whatever the other end, the pipe or the readers do: per stream `QUEUE` bytes wait to be sent and at
most `WINDOW` lie unread; per link at most `LINK` are sent and not acknowledged, and the windows share out as much.
A stream's unacknowledged bytes are bounded by its window too, because credit never travels without an
acknowledgement of what was read.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from hpcnb.link.flow import NOTHING, Flow, StreamError, ignore
from hpcnb.link.frames import HEADER, PIECE, Decoder, Frame, FrameError, Kind, encode

__all__ = ["Core", "Flow", "StreamError"]

LINK = 64 << 20
WINDOW = 4 << 20
FIRST = 128 << 10
"""The credit of a stream that nobody has read from yet."""
QUEUE = 128 << 10
STREAMS = LINK // FIRST
ACK_EVERY = 1 << 20
"""Received bytes, headers included, that are acknowledged even if there is nothing else to send."""
BATCH = 128 << 10
"""What is handed to the pipe at once: what a small write may have to wait for."""
SMALL = 4 << 10
"""Unread pieces below this are joined, for each costs memory beyond its bytes."""
_TEXT = 1000


class Core:
    """The protocol of one end of a link; bytes and calls go in, bytes and callbacks come out.

    Parameters
    ----------
    initiator : bool
        Whether this end opens the streams.
    wake : callable
        Called when `take` has something new to give, soon enough if that is when the loop turns.
    flush : callable
        Called when what `take` has to give should be taken at once; returns whether anything was.
    opened : callable
        Called with the `Flow` that the other end has opened.
    pong : callable
        Called with the stamp of a ping that was answered.
    bye : callable
        Called with the reason when the other end gives up all streams.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        wake: Callable[[], None] = ignore,
        flush: Callable[[], None] = ignore,
        opened: Callable[[Flow], None] = ignore,
        pong: Callable[[int], None] = ignore,
        bye: Callable[[str], None] = ignore,
    ) -> None:
        self._initiator = initiator
        self._wake, self._flush, self._opened, self._pong, self._bye = wake, flush, opened, pong, bye
        self._flows: dict[int, Flow] = {}
        self._last_id = 0
        self._over: str | None = None
        self._ring: OrderedDict[Flow, None] = OrderedDict()  # the flows that have something to send, in turn
        self._urgent: dict[Kind, bytes] = {}  # the latest of each kind, so that a flood of pings costs nothing
        self._kept: deque[bytes] = deque()  # sent and not acknowledged
        self._kept_size = 0
        self._acked = 0
        self._resend: deque[bytes] = deque()
        self.received = 0
        self._told = 0  # the last acknowledgement sent
        self._untold = 0  # bytes received since
        self._decoder = Decoder()
        self._deliver: dict[Kind, Callable[[Flow, bytes], None]] = {
            Kind.DATA: self._on_data,
            Kind.WINDOW: self._on_window,
            Kind.CLOSE: self._on_close,
            Kind.RESET: self._on_reset,
        }

    # What a stream asks for.

    def open(self, name: str) -> Flow:
        """Open a stream; whether the other end wants it shows when it is used."""
        if not self._initiator or not 0 < len(name) <= _TEXT:
            raise ValueError(f"only the initiator opens streams, by a name of 1 to {_TEXT} characters, not {name!r}")
        if self._over is not None:
            raise StreamError(self._over)
        if len(self._flows) >= STREAMS:
            raise StreamError(f"the link has {STREAMS} open streams already")
        flow = self._add(self._last_id + 1, name)
        self._ready(flow)
        return flow

    def write(self, flow: Flow, data: memoryview) -> int:
        """Take as much of `data` as there is room for, and send at once what can be; return how much was taken."""
        if flow.error is not None or flow.closing:
            raise StreamError(flow.error or "the stream is closed for writing")
        size = min(len(data), QUEUE - len(flow.pending))
        if flow.pending:
            flow.pending += data[:size]
        elif size:
            flow.lent = data[:size]
            self._ring[flow] = None
            self._flush()
            flow.pending += flow.lent
            flow.lent = NOTHING
        flow.waiting = size < len(data)
        return size

    def read(self, flow: Flow, size: int) -> bytes | None:
        """Return at most `size` bytes, ``b""`` at the end, None when there is nothing yet."""
        if flow.unread:
            data = flow.unread.popleft()
            if len(data) > size:
                flow.unread.appendleft(data[size:])
                data = data[:size]
            flow.held -= len(data)
            if self._credit(flow):
                self._ready(flow)
            return data
        if flow.ended and not flow.deaf:
            return b""
        if flow.error is not None or flow.deaf:
            raise StreamError(flow.error or "the stream is closed")
        return None

    def write_eof(self, flow: Flow) -> None:
        """Let the other end read to the end of what was written."""
        flow.closing = True
        self._ready(flow)

    def close(self, flow: Flow) -> None:
        """Write nothing more, read nothing more; what was written still arrives."""
        flow.deaf = True
        if flow.unread and not flow.ended:
            flow.resetting = "the stream is closed"
        flow.unread.clear()
        flow.held = 0
        self.write_eof(flow)
        flow.changed()

    def reset(self, flow: Flow, reason: str) -> None:
        """End a stream in both directions at once; the other end sees why."""
        if flow.error is not None:
            return
        flow.error = flow.resetting = reason
        flow.deaf = True
        flow.pending.clear()
        flow.unread.clear()
        if flow.opening:
            self._forget(flow)
        self._ready(flow)
        flow.changed()

    def end(self, reason: str) -> bytes:
        """End all streams for good; return the frame that tells the other end so."""
        flows, self._over = list(self._flows.values()), reason
        self._flows.clear()
        for queue in (self._ring, self._kept, self._resend, self._urgent):
            queue.clear()
        for flow in flows:
            flow.error = flow.error or reason
            flow.pending.clear()
            flow.changed()
        return encode(Kind.BYE, payload=_text(reason))

    # What a pipe asks for.

    def attach(self, received: int) -> None:
        """Carry on over a new pipe, whose other end has received so many frames (or more since it said so)."""
        self._acknowledged(received)
        self._resend = deque(self._kept)
        self._decoder = Decoder()
        self._urgent.clear()
        self._told = 0

    def ping(self, stamp: int) -> None:
        """Ask for a pong; only the last of several asked for between two `take` is sent."""
        self._urgent[Kind.PING] = encode(Kind.PING, seq=stamp)
        self._wake()

    def take(self) -> list[bytes]:
        """Return the next frames to send, about `BATCH` bytes; none when there are none.

        An acknowledgement rides along with whatever is sent, and goes alone when enough was received.
        """
        frames = [*self._urgent.values(), *self._numbered()]
        self._urgent.clear()
        if self._told < self.received and (frames or self._untold >= ACK_EVERY):
            frames.insert(0, encode(Kind.ACK, seq=self.received))
            self._told, self._untold = self.received, 0
        return frames

    def receive(self, data: bytes) -> None:
        """Take what has come over the pipe; raises `FrameError` when the pipe is of no more use."""
        self._take_in(self._decoder.feed(data))

    def room(self) -> memoryview:
        """Where what comes next over the pipe may be put, for `came` to take it as `receive` does."""
        return self._decoder.room()

    def came(self, size: int) -> None:
        """Take so many bytes that were put into `room`."""
        self._take_in(self._decoder.came(size))

    def _take_in(self, frames: list[Frame]) -> None:
        for frame in frames:
            if not frame.kind.must_arrive:
                self._speak(frame)
            elif frame.seq == self.received + 1:
                self.received += 1
                self._untold += HEADER.size + len(frame.payload)
                self._accept(frame)
            elif frame.seq > self.received:
                raise FrameError(f"frame {self.received + 1} is missing")
        if self._untold >= ACK_EVERY:
            self._wake()

    # Sending.

    def _ready(self, flow: Flow) -> None:
        if flow.id in self._flows:
            self._ring[flow] = None
            self._wake()

    def _numbered(self) -> list[bytes]:
        frames: list[bytes] = []
        size = 0
        while self._resend and size < BATCH:
            frames.append(self._resend.popleft())
            size += len(frames[-1])
        while self._ring and size < BATCH and self._kept_size < LINK:
            before = self._kept_size
            frames += self._turn(self._ring.popitem(last=False)[0])
            size += self._kept_size - before
        return frames

    def _turn(self, flow: Flow) -> list[bytes]:
        """Everything that one flow has to say, and one piece of its data."""
        frames = []
        if flow.opening:
            flow.opening = False
            frames.append(self._keep(flow, Kind.OPEN, _text(flow.name)))
        if credit := self._credit(flow):
            flow.granted += credit
            frames.append(self._keep(flow, Kind.WINDOW, flow.granted.to_bytes(8, "big")))
        if size := min(len(flow.lent) or len(flow.pending), flow.limit - flow.sent, PIECE):
            frames.append(self._piece(flow, size))
        if flow.lent or flow.pending:
            if size:
                self._ring[flow] = None
            return frames
        return frames + self._last_words(flow)

    def _piece(self, flow: Flow, size: int) -> bytes:
        flow.sent += size
        if flow.lent:
            frame = self._keep(flow, Kind.DATA, flow.lent[:size])
            flow.lent = flow.lent[size:]
            return frame
        with memoryview(flow.pending) as pending:
            frame = self._keep(flow, Kind.DATA, pending[:size])
        del flow.pending[:size]
        if flow.waiting:
            flow.waiting = False
            flow.changed()
        return frame

    def _last_words(self, flow: Flow) -> list[bytes]:
        frames = []
        if flow.closing and not flow.closed and flow.error is None:
            flow.closed = True
            frames.append(self._keep(flow, Kind.CLOSE))
        if flow.resetting is not None:
            frames.append(self._keep(flow, Kind.RESET, _text(flow.resetting)))
            self._forget(flow)
        elif flow.closed and flow.ended:
            self._forget(flow)
        return frames

    def _keep(self, flow: Flow, kind: Kind, payload: bytes | memoryview = b"") -> bytes:
        frame = encode(kind, stream=flow.id, seq=self._acked + len(self._kept) + 1, payload=payload)
        self._kept.append(frame)
        self._kept_size += len(frame)
        return frame

    def _credit(self, flow: Flow) -> int:
        """How much more the other end may send, once it is worth a frame; many streams have small windows."""
        read = flow.received - flow.held
        if not read or flow.ended or flow.error:
            return 0  # but a closed stream gives credit: the next piece tells the other end that it is closed
        window = min(WINDOW, max(FIRST, LINK // (len(self._flows) or 1)))
        credit = read + window - flow.granted
        return credit if credit >= window // 2 else 0

    def _add(self, number: int, name: str) -> Flow:
        self._last_id = number
        self._flows[number] = Flow(number, name, opening=self._initiator, limit=FIRST, granted=FIRST)
        return self._flows[number]

    def _forget(self, flow: Flow) -> None:
        self._flows.pop(flow.id, None)
        self._ring.pop(flow, None)

    # Receiving.

    def _speak(self, frame: Frame) -> None:
        if frame.kind is Kind.ACK:
            self._acknowledged(frame.seq)
        elif frame.kind is Kind.PING:
            self._urgent[Kind.PONG] = encode(Kind.PONG, seq=frame.seq)
            self._wake()
        elif frame.kind is Kind.PONG:
            self._pong(frame.seq)
        else:
            self._bye(frame.payload.decode("utf-8", "replace"))

    def _acknowledged(self, seq: int) -> None:
        if seq > self._acked + len(self._kept):
            raise FrameError(f"frame {seq} is acknowledged and was never sent")
        if self._kept_size >= LINK:
            self._wake()
        while self._acked < seq:
            self._kept_size -= len(self._kept.popleft())
            self._acked += 1

    def _accept(self, frame: Frame) -> None:
        flow = self._flows.get(frame.stream)
        if frame.kind is Kind.OPEN:
            self._on_open(frame)
        elif flow is not None:  # else it was reset here while the frame was on its way
            self._deliver[frame.kind](flow, frame.payload)

    def _on_open(self, frame: Frame) -> None:
        if self._initiator or frame.stream <= self._last_id or len(self._flows) >= STREAMS:
            raise FrameError(f"stream {frame.stream} cannot be opened")
        self._opened(self._add(frame.stream, frame.payload.decode("utf-8", "replace")))

    def _on_data(self, flow: Flow, payload: bytes) -> None:
        flow.received += len(payload)
        if flow.deaf:
            flow.resetting = "the stream is closed"
            self._ready(flow)
        elif flow.received > flow.granted or flow.ended:
            self.reset(flow, "more was sent than was allowed")
        elif flow.error is None:
            flow.held += len(payload)
            if flow.unread and len(flow.unread[-1]) < SMALL:
                flow.unread[-1] += payload
            else:
                flow.unread.append(payload)
            flow.changed()

    def _on_window(self, flow: Flow, payload: bytes) -> None:
        flow.limit = max(flow.limit, int.from_bytes(payload, "big"))
        if flow.pending:
            self._ready(flow)

    def _on_close(self, flow: Flow, _: bytes) -> None:
        flow.ended = True
        if flow.closed:
            self._forget(flow)
        flow.changed()

    def _on_reset(self, flow: Flow, payload: bytes) -> None:
        flow.error = flow.error or payload.decode("utf-8", "replace")
        flow.pending.clear()
        self._forget(flow)
        flow.changed()


def _text(reason: str) -> bytes:
    return reason[:_TEXT].encode("utf-8", "replace")
