"""A pipe made of files: bytes there and back, ends, bounds, and nothing left."""

from __future__ import annotations

import asyncio
import itertools
import os
import time

import pytest

from hpcnb.errors import ConnectionFailed
from hpcnb.pilot.route import mailbox
from tests.isolation import DEADLINE, until


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mailbox"
    for path in (made, made / "up", made / "down"):
        path.mkdir()
    return made


@pytest.fixture
async def ends(folder):
    """The agent's end and the pilot's."""
    agent = mailbox.pipe(mailbox.Here(), inbox=f"{folder}/up", outbox=f"{folder}/down")
    pilot = mailbox.answer(folder)
    yield agent, pilot
    agent.close()
    pilot.close()
    await until(lambda: not mailbox._running)


async def received(sock, size):
    """So many bytes, or all until the end."""
    data = b""
    async with asyncio.timeout(DEADLINE):
        while len(data) < size and (piece := await asyncio.get_running_loop().sock_recv(sock, size - len(data))):
            data += piece
    return data


async def test_bytes_come_in_order_both_ways(ends, folder):
    """More than the bound of what may wait is carried both ways at once, unchanged; what is taken is deleted."""
    loop = asyncio.get_running_loop()
    data = [os.urandom(2 * mailbox.BUDGET), os.urandom(2 * mailbox.BUDGET)]
    sending = [loop.sock_sendall(end, each) for end, each in zip(ends, data, strict=True)]
    *_, back, there = await asyncio.gather(*sending, *(received(end, 2 * mailbox.BUDGET) for end in ends))
    assert (there, back) == (data[0], data[1])
    await until(lambda: list(folder.glob("*/*")) == [])


async def test_what_nobody_takes_is_bounded(folder):
    """A sender waits when the other end does not take; when it is closed then, it gives up."""
    loop = asyncio.get_running_loop()
    agent = mailbox.pipe(mailbox.Here(), inbox=f"{folder}/up", outbox=f"{folder}/down")
    sending = asyncio.create_task(loop.sock_sendall(agent, bytes(3 * mailbox.BUDGET)))

    def waiting():
        return sum(path.stat().st_size for path in (folder / "down").iterdir() if path.name[0] != ".")

    await until(lambda: waiting() > mailbox.BUDGET - 2 * mailbox.PIECE)
    assert waiting() <= mailbox.BUDGET
    assert not sending.done()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    agent.close()
    await until(lambda: not mailbox._running)
    assert waiting() <= mailbox.BUDGET


@pytest.mark.parametrize("first", [0, 1], ids=["agent", "pilot"])
async def test_an_end_is_heard_and_nothing_is_left(ends, folder, first):
    """What was sent before the end arrives, then the end; then the folder is gone."""
    await asyncio.get_running_loop().sock_sendall(ends[first], b"last")
    ends[first].close()
    assert await received(ends[1 - first], 100) == b"last"
    await until(lambda: not folder.exists())


async def test_a_lost_place_ends_the_pipe(folder):
    """When the site cannot be reached any more, the pipe has ended."""

    class Lost(mailbox.Here):
        async def list(self, path):
            raise ConnectionFailed("lost")

    agent = mailbox.pipe(Lost(), inbox=f"{folder}/up", outbox=f"{folder}/down")
    assert await received(agent, 1) == b""
    agent.close()


async def test_an_idle_mailbox_is_looked_into_rarely(folder):
    """Without traffic the looks become rare; what is sent wakes them, for an answer may come."""
    looks = []

    class Counted(mailbox.Here):
        async def list(self, path):
            looks.append(time.monotonic())
            return await super().list(path)

    agent = mailbox.pipe(Counted(), inbox=f"{folder}/up", outbox=f"{folder}/down")
    await until(lambda: len(looks) >= 6)  # 0.02 + 0.04 + … + 0.64 s
    before = len(looks)
    await asyncio.get_running_loop().sock_sendall(agent, b"?")
    await until(lambda: len(looks) >= before + 4)
    assert min(later - look for look, later in itertools.pairwise(looks[before:])) < mailbox.SLOWEST
    agent.close()
    await until(lambda: not mailbox._running)
