"""How the session host talks to a kernel."""

from __future__ import annotations

import asyncio
import select
import shutil

import pytest
import zmq

from hpcnb.pilot.session.kernel_process import KernelProcess, Wire

KEY = b"key"


class Kernel:
    """The kernel's end of the shell channel."""

    def __init__(self, url):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(url)
        self._wire = Wire(key=KEY)

    def answer(self):
        """Take the next request and reply to it."""
        identities, rest = self._wire.feed_identities(self._socket.recv_multipart())
        self._wire.send(self._socket, "reply", {}, parent=self._wire.deserialize(rest), ident=identities)

    def close(self):
        self._context.destroy(linger=0)


@pytest.fixture
async def ends(tmp_path):
    """A host's end without a process behind it, and the kernel's."""
    host = KernelProcess(
        cwd=str(tmp_path), log=tmp_path / "log", run_dir="", hear=lambda *_: None, ended=lambda code: None
    )
    host._wire = Wire(key=KEY)
    url = f"ipc://{host._directory}/k"
    kernel = Kernel(url)
    host._connect({"shell": url})
    yield host, kernel
    for task in host._listeners:
        task.cancel()
    await asyncio.gather(*host._listeners, return_exceptions=True)
    host._context.destroy(linger=0)
    kernel.close()
    shutil.rmtree(host._directory)


async def test_a_reply_that_has_arrived_is_heard_whatever_is_sent_meanwhile(ends):
    """Sending takes no wake-up from receiving: what lies in the socket is read, and a session never sleeps on it."""
    host, kernel = ends
    first = host.request("shell", "a", {})
    kernel.answer()
    await asyncio.wait_for(first, 10)
    second = host.request("shell", "b", {})
    kernel.answer()
    arrived, _, _ = select.select([host._sockets["shell"].fileno()], [], [], 10)
    assert arrived
    third = host.request("shell", "c", {})
    await asyncio.wait_for(second, 10)
    kernel.answer()
    await asyncio.wait_for(third, 10)


async def test_buffers_of_any_size_arrive_as_they_are(ends):
    """Small frames are copied, large ones are not; both arrive."""
    host, kernel = ends
    for buffers in ([b"small"], [b"x" * (1 << 20), memoryview(bytearray(b"y" * (1 << 20)))]):
        sent = host.request("shell", "a", {}, buffers=buffers)
        frames = kernel._socket.recv_multipart()
        assert frames[-len(buffers) :] == [bytes(buffer) for buffer in buffers]
        sent.cancel()
