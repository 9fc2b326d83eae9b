"""A connection that is made again: when, how often, and when not."""

from __future__ import annotations

import asyncio

import pytest

from hpcnb.errors import AuthenticationFailed, ConnectionFailed, HostKeyMismatch
from hpcnb.site import lasting
from hpcnb.site.lasting import PAUSES, LastingShell
from hpcnb.site.local import LocalShell
from hpcnb.site.tcp import NoAnswer


class Door:
    """Counts who comes, and lets in or refuses."""

    def __init__(self):
        self.refusal = None
        self.tries = 0
        self.now = 0.0
        self.shells = []

    async def __call__(self, ask):
        self.tries += 1
        if self.refusal:
            raise self.refusal
        self.shells.append(LocalShell())
        return self.shells[-1]


async def ask(prompt):
    return "yes"


@pytest.fixture
def door():
    return Door()


@pytest.fixture
async def shell(door):
    shell = LastingShell("site", door, clock=lambda: door.now)
    yield shell
    await shell.close()


async def test_one_connection_serves_all_and_a_lost_one_is_replaced(door, shell):
    """It connects at the first use, keeps the connection, and makes another when that one is lost."""
    assert not shell.alive
    for _ in range(3):
        assert (await shell.run(["echo", "a"])).out == "a\n"
    assert (door.tries, shell.alive) == (1, True)
    await door.shells[0].close()
    assert not shell.alive
    assert (await shell.run(["echo", "b"])).out == "b\n"
    assert door.tries == 2


async def test_pauses_between_attempts_grow(door, shell):
    """Within the pause after a failure the same error is told without another attempt."""
    door.refusal = ConnectionFailed("no route")
    for count, pause in enumerate([*PAUSES, PAUSES[-1]], start=1):
        with pytest.raises(ConnectionFailed):
            await shell.run(["true"])
        door.now += 0.9 * pause
        with pytest.raises(ConnectionFailed):
            await shell.run(["true"])
        assert door.tries == count
        door.now += 0.2 * pause


@pytest.mark.parametrize("refusal", [AuthenticationFailed("no"), HostKeyMismatch("changed")])
async def test_a_refused_login_is_not_repeated_without_the_user(door, shell, refusal):
    """A login node bans who tries too often: what was refused is tried again only when the user asks for it."""
    door.refusal = refusal
    for _ in range(3):
        with pytest.raises(type(refusal)):
            await shell.run(["true"])
        door.now += 10 * PAUSES[-1]
    assert door.tries == 1
    door.refusal = None
    await shell.connect(ask)
    assert (await shell.run(["echo", "c"])).out == "c\n"
    assert door.tries == 2


async def test_the_user_need_not_wait_out_a_pause(door, shell):
    """A command of the user tries at once, and its success ends the pause for everybody."""
    door.refusal = ConnectionFailed("down")
    with pytest.raises(ConnectionFailed):
        await shell.run(["true"])
    door.refusal = None
    await shell.connect(ask)
    assert (await shell.run(["echo", "d"])).out == "d\n"


async def test_who_waits_for_another_login_is_told(door, shell, monkeypatch):
    """One login at a time; the second one hears soon that the first may be waiting for an answer, and then has its connection."""
    monkeypatch.setattr(lasting, "SOON", 0.0)
    told, answer, asked = asyncio.Queue(), asyncio.get_running_loop().create_future(), asyncio.Event()

    async def hear(prompt):
        told.put_nowait(prompt)
        return ""

    async def nobody(prompt):
        told.put_nowait("nobody")
        raise AuthenticationFailed("nobody is here")

    async def put(ask):
        asked.set()
        await answer
        return LocalShell()

    shell._connect = put
    first = asyncio.create_task(shell.connect(ask))
    await asyncio.wait_for(asked.wait(), 30)
    second, third = (asyncio.create_task(shell.connect(one)) for one in (hear, nobody))
    notice = await asyncio.wait_for(told.get(), 30)
    assert (notice.kind, notice.title) == ("notice", "site")
    assert "another login is under way" in notice.text
    assert await asyncio.wait_for(told.get(), 30) == "nobody"
    third.cancel()
    answer.set_result(None)
    assert await first is await second


async def test_that_a_login_needs_the_user_is_told(door):
    """Whoever watches hears why a login needs the user, and that it no longer does; a failure of the network is none."""
    heard = []
    shell = LastingShell("site", door, refused=heard.append, clock=lambda: door.now)
    door.refusal = ConnectionFailed("down")
    with pytest.raises(ConnectionFailed):
        await shell.run(["true"])
    door.now += PAUSES[-1]
    door.refusal = AuthenticationFailed("a code")
    with pytest.raises(AuthenticationFailed):
        await shell.run(["true"])
    door.refusal = None
    await shell.connect(ask)
    await shell.close()
    assert [error and error.what for error in heard] == ["a code", None]


async def test_what_nobody_noticed_is_repeated_soon(door, shell):
    """An attempt that no login node has seen bans nobody, and the first after a long cut should not come late."""
    door.refusal = NoAnswer("no route")
    for tries in range(1, 10):
        with pytest.raises(ConnectionFailed):
            await shell.run(["true"])
        assert door.tries == tries
        door.now += PAUSES[0]


async def test_patience_ends_when_the_user_connects(door, shell):
    """Who waits for the site waits for the user where the login needs one, and hears of it at once."""
    door.refusal = AuthenticationFailed("a code")
    with pytest.raises(AuthenticationFailed):
        await shell.run(["true"])
    waiting = asyncio.create_task(shell.patience())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    door.refusal = None
    await shell.connect(ask)
    await asyncio.wait_for(waiting, 30)


async def test_patience_with_a_connection_that_does_not_last(door, shell, monkeypatch):
    """One that was lost after a while is made again at once; one that is lost as soon as it is made, after a pause."""
    monkeypatch.setattr(lasting, "PAUSES", (60.0,))
    await shell.connect(ask)
    await door.shells[-1].close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(shell.patience(), 0.1)
    door.now += lasting.LASTING
    await asyncio.wait_for(shell.patience(), 30)
