"""The contract with `distributed.core`: all that we ask of its server and its rpc."""

from __future__ import annotations

import asyncio

import dask
import numpy as np
import pytest

from hpcnb.errors import HPCError, NotReady, Unreachable
from hpcnb.pilot import rpc
from hpcnb.site.authority import Role
from tests.unit.pilot.host import make_run_dir, security


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Certificates."""
    return make_run_dir(tmp_path_factory.mktemp("tls"))


class Desk:
    """What the server under test does."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cancelled = False

    async def echo(self, **request):
        return {"request": request}

    async def double(self, frames):
        return {"frames": rpc.in_frames([bytes(frame) * 2 for frame in rpc.frames_of(frames)])}

    async def refuse(self):
        raise NotReady("not now", where="here", remedy="Come again.")

    async def break_down(self):
        raise ZeroDivisionError("a fault of ours")

    async def wait(self, seconds):
        self.asked.set()
        await asyncio.sleep(seconds)
        return {}


@pytest.fixture
async def desk():
    """What the server does."""
    return Desk()


@pytest.fixture
async def server(run_dir, desk):
    """A server with TLS."""
    handlers = {name: getattr(desk, name) for name in ("echo", "double", "refuse", "break_down", "wait")}
    server = await rpc.serve(handlers, "tls://127.0.0.1:0", security(run_dir, Role.SESSION).get_listen_args("worker"))
    yield server
    await server.close()


@pytest.fixture
async def peer(run_dir, server):
    """Its client."""
    peer = rpc.Peer(server.address, security(run_dir).get_connection_args("client"))
    yield peer
    await peer.close()


async def test_plain_values_there_and_back(peer):
    """Numbers, text of any script, bytes, None, lists and dicts keep their value; lists may become tuples."""
    request = {"a": 1, "b": [1.5, None, True], "c": {"ü": "日本", "bytes": b"\x00\xff"}, "d": "x" * 100_000}
    answer = await peer.call("echo", **request)
    assert {**answer["request"], "b": list(answer["request"]["b"])} == request


async def test_frames_of_any_size_are_not_unpickled_on_the_way(peer):
    """Frames arrive as they were, also none, empty and large ones."""
    large = memoryview(np.arange(2_000_000, dtype="u1"))
    for frames in ([], [b""], [b"not a pickle", b"\x80\x05", large]):
        answer = await peer.call("double", frames=rpc.in_frames(frames))
        assert [bytes(frame) for frame in rpc.frames_of(answer["frames"])] == [bytes(frame) * 2 for frame in frames]


async def test_an_error_of_ours_arrives_as_itself(peer):
    """An HPCError keeps its type and its fields."""
    with pytest.raises(NotReady) as caught:
        await peer.call("refuse")
    assert (caught.value.what, caught.value.where, caught.value.remedy) == ("not now", "here", "Come again.")


async def test_a_fault_is_an_error_too_and_the_connection_goes_on(peer, caplog):
    """Any other exception reaches the caller as text, is logged, and ends nothing."""
    with pytest.raises(HPCError, match="the session host failed: ZeroDivisionError: a fault of ours"):
        await peer.call("break_down")
    assert "while serving break_down" in caplog.text
    assert await peer.call("echo") == {"request": {}}


async def test_requests_run_beside_each_other(peer, desk):
    """A long request does not hold up a short one."""
    long = asyncio.ensure_future(peer.call("wait", seconds=30))
    await asyncio.wait_for(desk.asked.wait(), 20)
    assert await asyncio.wait_for(peer.call("echo"), 20) == {"request": {}}
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert await peer.call("echo") == {"request": {}}


async def test_a_server_that_ends_is_unreachable(peer, server):
    """A cut connection is told as such."""
    await peer.call("echo")
    await server.close()
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(Unreachable, match="not answer"):
        await asyncio.wait_for(peer.call("echo"), 30)


@pytest.mark.parametrize("who", ["another cluster", "nobody"])
async def test_strangers_are_refused(server, tmp_path, who):
    """Without a certificate of this cluster's authority nobody is served."""
    address = server.address
    if who == "another cluster":
        arguments = security(make_run_dir(tmp_path)).get_connection_args("client")
    else:
        address, arguments = address.replace("tls://", "tcp://"), {}
    stranger = rpc.Peer(address, {**arguments})
    with pytest.raises((Unreachable, TimeoutError)):
        await asyncio.wait_for(stranger.call("echo"), 3)
    await stranger.close()
