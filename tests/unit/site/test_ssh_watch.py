"""When a silent connection is given up, and when it is not."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from hpcnb.site import ssh_watch
from hpcnb.site.ssh_config import Endpoint
from tests.isolation import until


class Link:
    """A connection that answers pings, or does not."""

    def __init__(self, *, answers: bool, busy: bool = True, dear: bool = False) -> None:
        self.answers, self.busy, self.dear = answers, busy, dear
        self.heard_at = time.monotonic() - 100
        self.pings = 0
        self.farewell = ""
        self.active = True

    def is_active(self) -> bool:
        return self.active

    def ping(self) -> None:
        self.pings += 1
        if self.answers:
            self.heard_at = time.monotonic()

    def close(self) -> None:
        self.active = False


@pytest.fixture
async def greeter(monkeypatch):
    """A server that greets every connection; all times are short."""
    times = {
        "TICK": 0.01,
        "BUSY_SILENCE": 0.02,
        "ANSWER": 0.03,
        "PATIENCE": 0.03,
        "DEAR_PATIENCE": 1000,
        "_PROBE_TIMEOUT": 0.2,
    }
    for name, seconds in times.items():
        monkeypatch.setattr(ssh_watch, name, seconds)

    async def greet(reader, writer):
        writer.write(b"SSH-2.0-test\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        yield Endpoint(
            alias="site", host="127.0.0.1", port=server.sockets[0].getsockname()[1], user="me", alive_interval=1000
        )


async def watched(links, end, seconds: float = 0.5) -> bool:
    """Whether the connections are still there after a while."""
    task = asyncio.create_task(ssh_watch.watch(links, end))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(task, seconds)
    return links[-1].active


async def test_silence_while_others_are_greeted_is_death(greeter):
    """The connection and those that it goes through are closed, and know why."""
    links = [Link(answers=False), Link(answers=False)]
    assert not await watched(links, greeter, 10)
    assert [link.active for link in links] == [False, False]
    assert "answers others" in links[-1].farewell


async def test_an_answer_is_life(greeter):
    """A connection that answers pings is kept, however long what runs in it is silent."""
    link = Link(answers=True)
    assert await watched([link], greeter)
    assert link.pings > 1


async def test_without_a_way_nothing_is_given_up(greeter):
    """When new connections fail too, the old one may come back."""
    link = Link(answers=False)
    nowhere = Endpoint(alias="site", host="127.0.0.1", port=1, user="me")
    assert await watched([link], nowhere)


async def test_a_dear_connection_gets_more_time(greeter):
    """Where a new login needs the user, the old connection is waited for much longer."""
    assert await watched([Link(answers=False, dear=True), Link(answers=False)], greeter)


async def test_an_idle_connection_is_left_alone(greeter):
    """While nothing waits, a ping now and then keeps the connection alive, no more."""
    link = Link(answers=True, busy=False)
    link.heard_at = time.monotonic()
    assert await watched([link], greeter, 0.2)
    assert link.pings == 0
    link.heard_at -= 2000
    task = asyncio.create_task(ssh_watch.watch([link], greeter))
    await until(lambda: link.pings)
    await asyncio.wait([task], timeout=0.2)
    task.cancel()
    assert (link.pings, link.active) == (1, True)
