"""A cluster as a client waits for it: who waits is asked what a lost connection needs."""

from __future__ import annotations

import asyncio
import ctypes
import os

import pytest

from hpcnb import handle
from hpcnb.agent import server as server_module
from hpcnb.agent.calls import Calls
from hpcnb.errors import AuthenticationFailed
from hpcnb.model import ClusterSpec, ClusterStatus, Resources, State
from hpcnb.site.shell import Prompt
from tests.isolation import until

PR_SET_NAME, PR_GET_NAME = 15, 16
SPEC = ClusterSpec(site="octopus", name="fit", resources=Resources())
CODE = Prompt(kind="secret", title="ada@octopus", text="Verification code:")


def status(**notices):
    """A cluster's status."""
    return ClusterStatus(id="0" * 16, spec=SPEC, state=State.UNREACHABLE, notices=notices)


class Asking(Calls):
    """Asks whoever logs in for a code."""

    def __init__(self, changed):
        super().__init__(changed)
        self.now = status()
        self.answers = []

    async def call_list(self, *, client, ask):
        """The one cluster."""
        return [self.now.to_json()]

    async def call_login(self, *, site, client, ask):
        """Ask."""
        try:
            self.answers.append((site, await ask(CODE)))
        except AuthenticationFailed as error:
            self.answers.append((site, error.what))
            raise


@pytest.fixture
async def calls(isolated, monkeypatch):
    """What the agent was asked; a login is needed when the test says so."""
    monkeypatch.setattr(server_module, "Calls", Asking)
    running = server_module.Server()
    running.start()

    def say(**notices):
        running.calls.now = status(**notices)
        running._broadcast(running.calls.now)

    running.calls.say = say
    yield running.calls
    await asyncio.to_thread(lambda: handle.run(handle.agent().close()))
    await running.stop()


@pytest.fixture
async def known(calls):
    """The cluster."""
    return (await asyncio.to_thread(lambda: handle.run(handle.handles())))[0]


async def test_who_waits_is_asked_once(calls, known):
    """A notebook that waits puts the question to its user, once for each time that one is needed; others stay silent."""

    async def answer(prompt):
        return "123456"

    handle.ask_with(answer)
    calls.say(login="needs you")
    await until(lambda: known.status.notices)
    with known.awaited():
        await until(lambda: calls.answers)
        calls.say(login="still needs you")
        await until(lambda: "still" in known.status.notices["login"])
        calls.say()
        await until(lambda: not known.status.notices)
        calls.say(login="needs you again")
        await until(lambda: len(calls.answers) == 2)
    calls.say()
    await until(lambda: not known.status.notices)
    calls.say(login="needs you")
    await until(lambda: known.status.notices)
    assert calls.answers == [("octopus", "123456")] * 2


async def test_an_answer_that_nobody_gives_ends_no_wait(calls, known):
    """Where nobody can answer the wait goes on: somebody may log in elsewhere."""
    calls.say(login="needs you")
    with known.awaited():
        await until(lambda: calls.answers)
        assert "needs you" in known.status.notices["login"]
    assert calls.answers[0][1].startswith("ada@octopus asks")


def test_the_umask_of_a_program_of_any_name():
    """Of its name the system tells fifteen bytes, which may end in the middle of a letter."""
    name = ctypes.create_string_buffer(16)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_GET_NAME, name)
    libc.prctl(PR_SET_NAME, "моделирование".encode()[:15])
    try:
        asked = handle._umask()
    finally:
        libc.prctl(PR_SET_NAME, name.value)
    before = os.umask(0)
    os.umask(before)
    assert asked == before
