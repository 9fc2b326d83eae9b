"""Links over real sockets: streams, refusals, cuts, silence, take-over and the end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import ssl
import struct

import pytest
import trustme

import hpcnb.link
from hpcnb.link import LinkRefused, LinkState, StreamError, handshake, lost_once, pipe, secure
from hpcnb.link import link as link_module
from hpcnb.link.protocol import FIRST, QUEUE, WINDOW

DEADLINE = 60


async def echo(name, stream):
    """Send back all that comes; ``digest`` its checksum, ``source:N`` N bytes of it."""
    if name == "digest":
        await stream.write((await digest(stream)).encode())
    elif name.startswith("source:"):
        await stream.write(random.Random(1).randbytes(int(name.removeprefix("source:"))))
    else:
        while data := await stream.read():
            await stream.write(data)


async def digest(stream):
    total = hashlib.sha256()
    while data := await stream.read():
        total.update(data)
    return total.hexdigest()


async def read_all(stream):
    data = b""
    while piece := await stream.read():
        data += piece
    return data


async def asked(stream, question=b"ping"):
    """What the other end echoes."""
    await stream.write(question)
    return await stream.read()


def test_public_names():
    """The package exports its names sorted, and all of them exist."""
    assert hpcnb.link.__all__ == sorted(hpcnb.link.__all__)
    assert all(hasattr(hpcnb.link, name) for name in hpcnb.link.__all__)


async def test_many_streams(pair):
    """A hundred streams at once each get back what they sent, to the end."""
    here, _, _ = await pair(echo)

    async def one(number):
        data = random.Random(number).randbytes(number * 997)
        stream = here.open(f"echo {number}")
        async with asyncio.TaskGroup() as group:
            group.create_task(stream.write(data)).add_done_callback(lambda _: stream.write_eof())
            answer = group.create_task(read_all(stream))
        assert answer.result() == data

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*map(one, range(100)))


async def test_half_close(pair):
    """An end that has said all it has to say still gets the answer."""
    here, _, _ = await pair(echo)
    stream = here.open("digest")
    await stream.write(b"abc")
    stream.write_eof()
    assert await read_all(stream) == hashlib.sha256(b"abc").hexdigest().encode()
    with pytest.raises(StreamError, match="closed for writing"):
        await stream.write(b"more")


async def test_refused(pair):
    """A name that the other end does not serve is an error, in its words, for whoever reads or writes."""

    async def refuse(name, stream):
        raise ConnectionRefusedError(f"no stream is called {name!r}")

    here, _, _ = await pair(refuse)
    stream = here.open("nonsense")
    for use in (stream.read(), stream.write(b"x")):
        with pytest.raises(StreamError, match="no stream is called 'nonsense'"):
            await use


async def test_nothing_served(pair):
    """An end that serves nothing refuses every stream."""
    here, _, _ = await pair()
    with pytest.raises(StreamError, match="no stream 'x' is served here"):
        await here.open("x").read()


async def test_server_fails(pair):
    """A fault in the code that serves a stream is told to the opener without its details, and not hidden here."""

    async def fail(name, stream):
        raise KeyError("a private detail")

    here, there, _ = await pair(fail)
    stream = here.open("x")
    with pytest.raises(StreamError, match=r"server failed: KeyError$"):
        await stream.read()
    assert there.state is LinkState.UP


async def test_slow_reader(pair):
    """A stream whose reader sleeps holds a bounded amount, and the others do not notice."""
    wake = asyncio.Event()

    async def sleepy(name, stream):
        if name == "slow":
            await stream.read(1)
            await wake.wait()
            await read_all(stream)
        else:
            await echo(name, stream)

    here, _, _ = await pair(sleepy)
    slow, size = here.open("slow"), 3 * WINDOW
    writing = asyncio.create_task(slow.write(bytes(size)))
    quick = here.open("quick")
    for _ in range(50):
        assert await asked(quick) == b"ping"
    assert not writing.done()
    assert slow._flow.sent <= WINDOW + FIRST
    assert len(slow._flow.pending) <= QUEUE
    wake.set()
    async with asyncio.timeout(DEADLINE):
        await writing


@pytest.mark.parametrize("name", ["digest", "source:20000000"])
async def test_cuts_amid_a_bulk_transfer(pair, join, name):
    """Twenty megabytes arrive whole over eight pipes, each cut somewhere."""
    here, there, wire = await pair(echo)
    data = random.Random(1).randbytes(20_000_000)
    stream = here.open(name)

    async def use():
        if name == "digest":
            await stream.write(data)
            stream.write_eof()
            return (await read_all(stream)).decode()
        return await digest(stream)

    using = asyncio.create_task(use())
    chance = random.Random(2)
    for _ in range(7):
        wire.allowance = chance.randrange(1_000_000)
        await asyncio.wait({using, asyncio.create_task(here.lost.wait())}, return_when="FIRST_COMPLETED")
        wire = await join(here, there)
    async with asyncio.timeout(DEADLINE):
        assert await using == hashlib.sha256(data).hexdigest()


async def test_cut_at_every_byte(link, wire, join):
    """A link whose first pipe is cut after any byte, handshake and all, carries on over the next."""
    for allowance in range(1, 380):
        here, there = link(initiator=True), link(initiator=False, on_stream=echo)
        stream = here.open("echo")
        await stream.write(b"ping")
        first = await wire(allowance=allowance)
        await asyncio.gather(here.attach(*first.ends[0]), there.attach(*first.ends[1]), return_exceptions=True)
        for end in (here, there):
            async with asyncio.timeout(DEADLINE):
                await end.lost.wait()
        await join(here, there)
        stream.write_eof()
        assert await read_all(stream) == b"ping"


async def test_pipeless(link, join):
    """A stream may be opened and written before there is a pipe; what it holds is sent once there is one."""
    here, there = link(initiator=True), link(initiator=False, on_stream=echo)
    assert here.state is LinkState.LOST
    stream = here.open("echo")
    await stream.write(b"early")
    await join(here, there)
    assert await stream.read() == b"early"


async def test_second_pipe(pair, join):
    """A second pipe for the same two ends replaces the first, and the streams go on."""
    here, there, first = await pair(echo)
    stream = here.open("echo")
    assert await asked(stream) == b"ping"
    await join(here, there)
    assert await asked(stream) == b"ping"
    assert first.ends[0][1].is_closing()
    assert here.state is LinkState.UP


async def test_wrong_secret(pair, link, wire):
    """A joiner with another secret is refused, learns nothing but that, and the running pipe goes on."""
    here, there, _ = await pair(echo)
    stream = here.open("echo")
    thief, new = link(initiator=True, secret=b"t" * 32), await wire()
    results = await asyncio.gather(thief.attach(*new.ends[0]), there.attach(*new.ends[1]), return_exceptions=True)
    assert [type(result) for result in results] == [LinkRefused, LinkRefused]
    assert "same secret" in str(results[0])
    assert await asked(stream) == b"ping"
    assert thief.state is LinkState.LOST


async def test_impostor(link, wire):
    """An initiator does not attach to an acceptor that does not know the secret."""
    here, there, new = link(initiator=True), link(initiator=False, secret=b"t" * 32), await wire()
    results = await asyncio.gather(here.attach(*new.ends[0]), there.attach(*new.ends[1]), return_exceptions=True)
    assert [type(result) for result in results] == [LinkRefused, LinkRefused]


async def test_other_version(pair, wire):
    """A joiner of another version is refused in words that name both versions, and sees ours."""
    _, there, _ = await pair(echo)
    new = await wire()
    ours = handshake.hello("c0ffee", bytes(32))
    reader, writer = new.ends[0]
    writer.write(ours[:5] + b"\x09" + ours[6:])
    with pytest.raises(LinkRefused, match=r"version 9 .* this one version 1"):
        await there.attach(*new.ends[1])
    assert (await reader.read())[:6] == ours[:6]
    assert there.state is LinkState.UP


async def test_silent_joiner(pair, wire, monkeypatch):
    """A joiner that says nothing is given up, and the running pipe goes on."""
    monkeypatch.setattr(link_module, "_HANDSHAKE", 0.05)
    here, there, _ = await pair(echo)
    new = await wire()
    with pytest.raises(TimeoutError):
        await there.attach(*new.ends[1])
    assert await new.ends[0][0].read() == b""
    assert await asked(here.open("echo")) == b"ping"


async def test_take_over(pair, link, join):
    """Another initiator with the right secret takes the link over: the first is closed and told, its streams end."""
    here, there, _ = await pair(echo)
    old, other = here.open("echo"), link(initiator=True)
    assert await asked(old) == b"ping"
    await join(other, there)
    assert await asked(other.open("echo")) == b"ping"
    with pytest.raises(StreamError, match="taken over by another process"):
        await old.read()
    assert here.state is LinkState.CLOSED
    assert "taken over" in here.cause
    with pytest.raises(StreamError, match="taken over"):
        here.open("echo")


async def test_acceptor_restarted(pair, link, wire, join):
    """When the other end has forgotten the streams they end, with that cause, and the next pipe serves new ones."""
    here, there, _ = await pair(echo)
    old = here.open("echo")
    assert await asked(old) == b"ping"
    there._pipe._writer.transport.abort()
    await here.lost.wait()
    there, new = link(initiator=False, on_stream=echo), await wire()
    results = await asyncio.gather(here.attach(*new.ends[0]), there.attach(*new.ends[1]), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionResetError, ConnectionResetError]
    with pytest.raises(StreamError, match="restarted or taken over"):
        await old.read()
    await join(here, there)
    assert await asked(here.open("echo")) == b"ping"


async def test_silence(link, join):
    """A pipe that falls silent is suspect, is trusted again when it is heard, and is given up when it stays silent."""
    states = asyncio.Queue()
    here = link(initiator=True, on_state=states.put_nowait, interval=0.1)
    wire = await join(here, link(initiator=False, on_stream=echo, interval=0.1))
    assert await states.get() is LinkState.UP
    wire.flowing.clear()
    assert await states.get() is LinkState.SUSPECT
    wire.flowing.set()
    assert await states.get() is LinkState.UP
    wire.flowing.clear()
    assert [await states.get(), await states.get()] == [LinkState.SUSPECT, LinkState.LOST]
    assert "nothing came over the pipe" in here.cause
    await here.close()
    assert await states.get() is LinkState.CLOSED


async def test_slept(link, join, monkeypatch):
    """When the wall clock has jumped the machine has slept, and the pipe is suspect until it is heard."""
    jump = 0.0

    class Clock:
        @staticmethod
        def time():
            return asyncio.get_running_loop().time() + jump

    monkeypatch.setattr(pipe, "time", Clock)
    states = asyncio.Queue()
    here = link(initiator=True, on_state=states.put_nowait, interval=0.04)
    await join(here, link(initiator=False, interval=0.04))
    jump = 3600.0
    assert [await states.get() for _ in range(3)] == [LinkState.UP, LinkState.SUSPECT, LinkState.UP]


async def test_quiet(link, join, monkeypatch):
    """A pipe on which nothing but pings goes stays trusted, and its round trip is known."""
    monkeypatch.setattr(pipe, "DEAD", 6.0)
    states, pongs = [], asyncio.Queue()
    # Both ends are in this process: while that is held up, neither hears the other.
    here = link(initiator=True, on_state=states.append, interval=0.3)
    there = link(initiator=False, interval=0.3)
    monkeypatch.setattr(here._core, "_pong", lambda stamp: (here._pong(stamp), pongs.put_nowait(here.rtt)))
    await join(here, there)
    async with asyncio.timeout(DEADLINE):
        trips = [await pongs.get() for _ in range(int(pipe.DEAD) + 1)]
    assert all(0 < trip < DEADLINE for trip in trips)
    assert states == [LinkState.UP]


async def test_garbage_costs_the_pipe_only(pair, join):
    """Bytes that are no frames end the pipe; the next one carries the same streams on."""
    here, there, _ = await pair(echo)
    stream = here.open("echo")
    assert await asked(stream) == b"ping"
    there._pipe._writer.write(b"\xff" * 100)
    await here.lost.wait()
    assert "of kind 255" in here.cause
    await join(here, there)
    assert await asked(stream) == b"ping"


async def test_initiator_closes(pair, link, join):
    """Closing ends the streams of both ends; the acceptor may be joined again."""
    ends = asyncio.Queue()

    async def serve(name, stream):
        ends.put_nowait(name)
        try:
            await stream.read()
        except StreamError as error:
            ends.put_nowait(str(error))

    here, there, _ = await pair(serve)
    reading = asyncio.create_task(here.open("x").read())
    assert await ends.get() == "x"
    await here.close("enough")
    with pytest.raises(StreamError, match="enough"):
        await reading
    assert await ends.get() == "enough"
    assert (here.state, there.state) == (LinkState.CLOSED, LinkState.LOST)
    other = link(initiator=True)
    await join(other, there)
    assert there.state is LinkState.UP


async def test_farewell_amid_a_bulk_transfer(pair):
    """The other end is told of the close though much is on its way from there."""
    here, there, _ = await pair(echo)
    reading = asyncio.create_task(digest(here.open("source:20000000")))
    while here._core.received < 20:
        await asked(here.open("echo"))
    await here.close("enough")
    with pytest.raises(StreamError, match="enough"):
        await reading
    assert there.cause == "enough"


@pytest.mark.parametrize("initiator", [True, False])
async def test_closed_during_the_handshake(link, wire, initiator):
    """A link that is closed while it shakes hands stays closed."""
    new, here, there = await wire(), link(initiator=initiator), link(initiator=not initiator)
    new.flowing.clear()
    joining = asyncio.gather(here.attach(*new.ends[0]), there.attach(*new.ends[1]), return_exceptions=True)
    await asyncio.sleep(0)
    await here.close("enough")
    new.flowing.set()
    async with asyncio.timeout(DEADLINE):
        results = await joining
        await there.lost.wait()
    assert str(results[0]) == "enough"
    assert here.state is LinkState.CLOSED


async def test_acceptor_closes(pair, wire):
    """When the acceptor closes the link it is over for the initiator too, and no pipe revives it."""
    here, there, _ = await pair(echo)
    stream = here.open("echo")
    assert await asked(stream) == b"ping"
    await there.close("the cluster has ended")
    with pytest.raises(StreamError, match="the cluster has ended"):
        await stream.read()
    assert (here.state, here.cause) == (LinkState.CLOSED, "the cluster has ended")
    new = await wire()
    with pytest.raises(ConnectionAbortedError, match="the cluster has ended"):
        await here.attach(*new.ends[0])
    await here.close()


async def test_over_tls(link):
    """A link works over TLS and TCP as over any pipe, and over a second such pipe."""
    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_side)
    authority.configure_trust(client_side)
    here, there = link(initiator=True), link(initiator=False, on_stream=echo)

    async def join(reader, writer):
        await there.attach(*await secure(reader, writer, server_side, server_side=True))

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    data = random.Random(1).randbytes(3_000_000)
    stream = here.open("digest")
    for part in (data[:1_000_000], data[1_000_000:]):
        pipe = await asyncio.open_connection(host, port)
        await here.attach(*await secure(*pipe, client_side, server_hostname="localhost"))
        await stream.write(part)
    stream.write_eof()
    assert await read_all(stream) == hashlib.sha256(data).hexdigest().encode()
    await here.close()
    await there.close()
    server.close()
    await server.wait_closed()


async def test_secret_is_not_shown(link):
    """What is printed of a link does not hold its secret."""
    here = link(initiator=True, secret=b"hush")
    assert repr(here) == "<Link c0ffee lost>"
    assert repr(here.open("scheduler")) == "<Stream 1 'scheduler'>"


async def test_a_connection_is_lost_once(caplog):
    """What CPython complains of when a write on resuming fails is no news; any other failure of a callback is."""
    loop, server = asyncio.get_running_loop(), socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(server.getsockname())
    far, _ = server.accept()
    server.close()
    losses, lost = [], asyncio.Event()

    class Insisting(asyncio.Protocol):
        def resume_writing(self):
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()  # with what came unread: by a reset
            transport.write(b"more")

        def connection_lost(self, exc):
            losses.append(exc)
            lost.set()

    loop.set_exception_handler(lost_once)
    transport, _ = await loop.create_connection(Insisting, sock=near)
    transport.set_write_buffer_limits(high=0)
    transport.write(bytes(20_000_000))
    far.setblocking(False)
    async with asyncio.timeout(DEADLINE):
        while not lost.is_set():
            with contextlib.suppress(BlockingIOError, OSError):
                far.recv(1 << 20)
            await asyncio.sleep(0)
        loop.call_soon(lambda: 1 / 0)
        while "ZeroDivisionError" not in caplog.text:  # noqa: ASYNC110 - the loop says it
            await asyncio.sleep(0)
    assert len(losses) == 1
    assert "connection_lost" not in caplog.text
