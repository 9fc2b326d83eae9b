"""The agent's face and the client's half, in one process: answers, questions, news, and clients that go or fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from types import SimpleNamespace

import pytest

from hpcnb.agent import client as client_module
from hpcnb.agent import places
from hpcnb.agent import server as server_module
from hpcnb.agent.calls import Calls
from hpcnb.agent.client import AgentClient, nobody_to_ask
from hpcnb.agent.server import Server
from hpcnb.errors import AuthenticationFailed, ClusterError, HPCError, NotReady
from hpcnb.model import ClusterSpec, ClusterStatus, Resources, State
from hpcnb.site.shell import Prompt
from tests.isolation import DEADLINE, until
from tests.site.sshd import Silent

SPEC = ClusterSpec(site="local", name="fit", resources=Resources())
PROMPT = Prompt(kind="secret", title="ada@octopus", text="Password: ")


def status(detail="", number=0):
    """A cluster's status."""
    return ClusterStatus(id=f"{number:016x}", spec=SPEC, state=State.QUEUED, detail=detail)


class Told(Calls):
    """An agent's calls, and some that need no site."""

    def __init__(self, changed):
        super().__init__(changed)
        self.asked = asyncio.Event()
        self.patience = asyncio.Event()
        self.patience.set()
        self.answers = []
        self.ended = []
        self.left = []

    async def call_secret(self, *, client, ask):
        """Ask for a password."""
        self.asked.set()
        await self.patience.wait()
        try:
            self.answers.append(await ask(PROMPT))
        except HPCError as exc:
            self.ended.append(exc)
            raise

    async def call_count(self, *, client, ask):
        """Count the client among those who are there."""
        self.patience.clear()
        self.asked.set()
        await self.patience.wait()
        self._attached.setdefault(client, set())

    async def call_wait(self, *, client, ask):
        """Never answer."""
        self.asked.set()
        await asyncio.Event().wait()

    async def call_look(self, *, client, ask):
        """Give an answer in parts, and one that waits."""
        try:
            for number in range(3):
                yield number
            self.asked.set()
            await self.patience.wait()
            yield 3
        finally:
            self.ended.append("looked")

    async def call_fail(self, *, client, ask):
        """Have a bug."""
        raise ZeroDivisionError("by zero")

    async def call_refuse(self, *, client, ask):
        """Refuse."""
        raise NotReady("not yet", where="octopus", evidence="seen", remedy="Wait.")

    def gone(self, client):
        """Note who has gone."""
        self.left.append(client)
        super().gone(client)


class Known:
    """A cluster that an agent knows, and how many it was told to use it."""

    def __init__(self, status):
        self.status = status
        self.site = SimpleNamespace(notices={})
        self.clients = 0

    async def attached(self, clients):
        """Note how many."""
        self.clients = clients


@pytest.fixture
async def server(isolated, monkeypatch):
    """An agent's server in this process."""
    monkeypatch.setattr(server_module, "Calls", Told)
    running = Server()
    running.start()
    yield running
    await running.stop()


@pytest.fixture
def told(server):
    """What the agent was asked."""
    return server.calls


@pytest.fixture
async def connect(server):
    """Make clients; all are disconnected after the test."""
    async with contextlib.AsyncExitStack() as stack:

        def make(ask=nobody_to_ask):
            client = AgentClient(ask)
            stack.push_async_callback(client.close)
            return client

        yield make


@pytest.fixture
async def raw(connect):
    """Send one message over a connection of its own, and return the connection."""

    async def send(message):
        connection = await connect()._open()
        await connection.write_message(json.dumps(message))
        return connection

    return send


async def hello(client):
    """Say hello."""
    return await client.call("hello", version="0")


# -- answers in parts -----------------------------------------------------------------------------------------------


async def test_parts_come_as_they_are_known(connect, told):
    """The client hears of each before the answer is complete."""
    told.patience.clear()
    heard = []
    asking = asyncio.create_task(connect().call("look", part=heard.append))
    await until(lambda: len(heard) == 3)
    assert not asking.done()
    told.patience.set()
    assert await asking is None
    assert heard == [0, 1, 2, 3]


async def test_who_has_enough_ends_it(connect, told):
    """A client that gives up such a call ends the work for it, and goes on with others."""
    told.patience.clear()
    client, heard = connect(), []
    asking = asyncio.create_task(client.call("look", part=heard.append))
    await told.asked.wait()
    await until(lambda: len(heard) == 3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: told.ended)
    assert (await hello(client))["clients"] == 1


async def test_who_has_gone_needs_no_more_parts(raw, told):
    """The work ends with the connection, too."""
    told.patience.clear()
    connection = await raw({"id": 1, "call": "look"})
    await told.asked.wait()
    connection.close()
    while await connection.read_message() is not None:
        pass  # what is not read keeps the connection from ending
    await until(lambda: told.ended)


async def test_a_call_that_changes_something_cannot_be_given_up(raw, told):
    """Only an answer in parts can: `create` must not end half-way."""
    told.patience.clear()
    connection = await raw({"id": 1, "call": "count"})
    await told.asked.wait()
    await connection.write_message(json.dumps({"enough": 1}))
    await connection.write_message(json.dumps({"id": 2, "call": "hello", "with": {"version": "0"}}))
    assert json.loads(await connection.read_message())["id"] == 2
    told.patience.set()
    assert json.loads(await connection.read_message()) == {"id": 1, "result": None}
    connection.close()
    assert await connection.read_message() is None


# -- answers --------------------------------------------------------------------------------------------------------


async def test_an_error_comes_as_its_own_type(connect):
    """What a call raises is raised at the client, with all that it says."""
    with pytest.raises(NotReady) as caught:
        await connect().call("refuse")
    assert str(caught.value) == "not yet (octopus)\n  | seen\n→ Wait."


async def test_a_fault_of_ours_is_told_and_logged(connect, caplog):
    """A bug in a call is an error that names the log, where its traceback is; the agent goes on."""
    client = connect()
    with pytest.raises(HPCError, match=r"the agent failed: ZeroDivisionError: by zero"):
        await client.call("fail")
    assert "Traceback" in caplog.text
    assert (await hello(client))["clients"] == 1


async def test_calls_overlap(connect, told):
    """A call that takes long holds up no other, not even one of the same client."""
    client = connect()
    waiting = asyncio.create_task(client.call("wait"))
    await told.asked.wait()
    assert await client.call("list") == []
    waiting.cancel()


async def test_who_waits_hears_of_the_end(connect, server, told):
    """A call whose agent ends, twice, is an error, not a wait without end."""
    client = connect()
    waiting = asyncio.create_task(client.call("wait", start=False))
    await told.asked.wait()
    await server.stop()
    with pytest.raises(ClusterError, match="no agent runs"):
        await waiting


# -- questions ------------------------------------------------------------------------------------------------------


async def test_a_question_reaches_who_called(connect, told):
    """The question of a call goes to its client alone, and the answer to the call."""
    seen = []

    async def answer(prompt):
        seen.append(prompt)
        return "sesame"

    async def disturbed(prompt):
        pytest.fail("the question went to somebody else")

    bystander = connect(disturbed)
    await hello(bystander)
    await connect(answer).call("secret")
    assert seen == [PROMPT]
    assert told.answers == ["sesame"]


async def test_questions_at_the_same_time_keep_apart(connect, told):
    """Two logins of one client get each its own answer."""
    answers = iter(["first", "second"])

    async def answer(prompt):
        return next(answers)

    client = connect(answer)
    await asyncio.gather(client.call("secret"), client.call("secret"))
    assert told.answers == ["first", "second"]


async def test_a_refusal_is_the_calls_error(connect):
    """Where nobody can answer, the call fails with what the client said to do."""
    with pytest.raises(AuthenticationFailed, match="nobody can answer here"):
        await connect().call("secret")


@pytest.mark.parametrize("error", [EOFError(), RuntimeError("the front end has gone")])
async def test_a_question_that_fails_is_answered(connect, error):
    """An input that ends, or a front end that breaks, is an answer, too: the call must not wait for ever."""

    async def answer(prompt):
        raise error

    with pytest.raises(AuthenticationFailed, match=f"was not answered .{type(error).__name__}"):
        await connect(answer).call("secret")


async def test_a_question_to_who_has_gone_is_an_error(server, raw, told):
    """A call that waits for the answer of a client that disconnects ends."""
    connection = await raw({"id": 1, "call": "secret"})
    assert json.loads(await connection.read_message())["prompt"] == 1
    connection.close()
    await until(lambda: told.ended)
    assert isinstance(told.ended[0], AuthenticationFailed)


async def test_a_question_after_its_client_has_gone_is_an_error(server, raw, told):
    """A call that has a question only when its client has gone does not wait for an answer."""
    told.patience = asyncio.Event()
    connection = await raw({"id": 1, "call": "secret"})
    await told.asked.wait()
    connection.close()
    await until(lambda: told.left)
    told.patience.set()
    await until(lambda: told.ended)
    assert isinstance(told.ended[0], AuthenticationFailed)


async def test_a_question_that_is_taken_back_is_asked_no_longer(connect, server, told):
    """When the login that asked is over, so is the question at the client."""
    silent = Silent()
    call = asyncio.create_task(connect(silent).call("secret"))
    await asyncio.wait_for(silent.asked.wait(), DEADLINE)
    [client] = server.clients
    for task in client._tasks:
        task.cancel()
    await asyncio.wait_for(silent.withdrawn.wait(), DEADLINE)
    call.cancel()


async def test_a_question_ends_with_its_agent(connect, server, told, monkeypatch):
    """An answer that is typed after the agent was replaced must not be taken for that to the next one's first question."""
    monkeypatch.setattr(client_module, "AGAIN", 0.01)
    silent = Silent()
    client = connect(silent)
    call = asyncio.create_task(client.call("secret", start=False))
    await asyncio.wait_for(silent.asked.wait(), DEADLINE)
    await server.stop()
    await asyncio.wait_for(silent.withdrawn.wait(), DEADLINE)
    with pytest.raises(ClusterError):
        await call


async def test_answers_to_no_question_are_passed_over(connect, server):
    """An answer that nobody waits for does no harm."""
    client = connect()
    await hello(client)
    await client._socket.write_message(json.dumps({"answer": 99, "text": "sesame"}))
    assert (await hello(client))["clients"] == 1


# -- news -----------------------------------------------------------------------------------------------------------


async def test_news_reach_everybody_who_listens(connect, server):
    """Each client hears of every change of a cluster it listens to, until it says that it has heard enough."""
    heard = {1: [], 2: []}
    clients = [connect(), connect()]
    for number, client in enumerate(clients, start=1):
        await hello(client)
        stop = client.listen(status().id, heard[number].append)
    server._broadcast(status("one"))
    server._broadcast(status("of another cluster", number=1))
    await until(lambda: heard[1] and heard[2])
    stop()
    server._broadcast(status("two"))
    await until(lambda: len(heard[1]) == 2)
    await hello(clients[1])
    assert [s.detail for s in heard[1]] == ["one", "two"]
    assert [s.detail for s in heard[2]] == ["one"]


async def test_a_view_that_fails_harms_nobody(connect, server, caplog):
    """An error in one listener is logged; the others hear the news, and answers still come."""
    heard = []
    client = connect()
    await hello(client)
    client.listen(status().id, lambda news: 1 / 0)
    client.listen(status().id, heard.append)
    server._broadcast(status("one"))
    await until(lambda: heard)
    assert await client.call("list") == []
    assert "ZeroDivisionError" in caplog.text


async def test_nonsense_from_the_agent_is_no_hang(connect, server, caplog):
    """Should an agent say what makes no sense, the connection ends, and the next call makes another."""
    client = connect()
    await hello(client)
    (peer,) = server.clients
    peer.send({"event": "status", "cluster": {"id": "x"}})
    await until(client._reader.done)
    assert "was not understood" in caplog.text
    await until(lambda: not server.clients)
    assert await client.call("list") == []


async def test_a_client_that_does_not_read_is_let_go(connect, server, monkeypatch):
    """A client that has stopped reading costs bounded memory: in the end it is let go, and the others go on."""
    monkeypatch.setattr(server_module, "LARGEST", 1 << 20)
    _, silent = await asyncio.open_unix_connection(places.agent_socket(), limit=1)
    silent.write(
        b"GET / HTTP/1.1\r\nHost: agent\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await until(lambda: len(server.clients) == 1)
    heard = []
    reader = connect()
    await hello(reader)
    reader.listen(status().id, heard.append)
    sent = 0
    async with asyncio.timeout(DEADLINE):
        while len(server.clients) > 1:
            server._broadcast(status("x" * 100_000))
            sent += 1
            await until(lambda sent=sent: len(heard) == sent)
    assert sent < 1000
    silent.transport.abort()


# -- comings and goings ---------------------------------------------------------------------------------------------


async def test_who_goes_is_forgotten(connect, server, told):
    """Clients are counted while they are there."""
    first, second = connect(), connect()
    await hello(first)
    assert (await hello(second))["clients"] == 2
    await first.close()
    await until(lambda: len(told.left) == 1)
    assert (await hello(second))["clients"] == 1


async def test_who_goes_while_being_served_is_forgotten(server, raw, told):
    """A client that disconnects in the middle of a call does not count as attached for ever."""
    connection = await raw({"id": 1, "call": "count"})
    await told.asked.wait()
    connection.close()
    await until(lambda: told.left)
    told.patience.set()
    await until(lambda: len(told.left) == 2)
    assert not server.calls._attached


async def test_a_client_comes_back_to_the_next_agent(connect, server, monkeypatch):
    """When an agent is replaced its clients find the next one by themselves, count as before, and hear the news."""
    monkeypatch.setattr(client_module, "AGAIN", 0.01)
    client = connect()
    await hello(client)
    client._used.add(status().id)
    heard = []
    client.listen(status().id, heard.append)
    await server.stop()
    following = Server()
    try:
        following.calls._clusters[status().id] = Known(status("as it is now"))
        following.start()
        await until(lambda: heard)
        assert heard[0].detail == "as it is now"
        assert [*following.calls._attached.values()] == [{status().id}]
        await until(lambda: following.calls._clusters[status().id].clients == 1)
        following._broadcast(status("later"))
        await until(lambda: heard[-1].detail == "later")
        await client.close()
    finally:
        following.calls._clusters.clear()
        await following.stop()


async def test_a_client_that_was_closed_does_not_come_back(connect, server, monkeypatch):
    """Who has disconnected on purpose stays away."""
    monkeypatch.setattr(client_module, "AGAIN", 0.01)
    client = connect()
    await hello(client)
    await client.close()
    await until(lambda: not server.clients)
    await until(client._returning.done)
    assert not server.clients


async def test_an_agent_without_use_is_idle(connect, server, monkeypatch):
    """The agent may end when nobody has been there for an hour, and no cluster lives."""
    assert not server.calls.is_idle()
    monkeypatch.setattr("hpcnb.agent.calls.IDLE", -1.0)
    assert server.calls.is_idle()
    await hello(connect())
    assert not server.calls.is_idle()


async def test_a_site_that_does_not_let_go_is_left(connect, server, monkeypatch, caplog):
    """An agent that is told to end does so, even if a connection does not come to its end."""

    async def leave():
        await asyncio.Event().wait()

    monkeypatch.setattr(server.calls, "leave", leave)
    monkeypatch.setattr(server_module, "LEAVING", 0.05)
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(DEADLINE):
            await server.stop()
    assert "did not let go" in caplog.text
