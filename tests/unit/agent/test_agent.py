"""The agent as a process: started on demand, one at a time, replaced, refused to others, hard to kill by words."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tornado import websocket

import hpcnb
from hpcnb.agent import client as client_module
from hpcnb.agent import places
from hpcnb.agent.client import AgentClient, nobody_to_ask
from hpcnb.errors import ClusterError, ConfigError, HPCError
from hpcnb.model import ClusterSpec, ClusterStatus, Resources, State
from tests.isolation import DEADLINE, until
from tests.unit.pilot.tiny import alive

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
async def connect(isolated):
    """Make clients; all are disconnected after the test."""
    async with contextlib.AsyncExitStack() as stack:

        def make(ask=nobody_to_ask):
            client = AgentClient(ask)
            stack.push_async_callback(client.close)
            return client

        yield make


@pytest.fixture
def client(connect):
    """One client."""
    return connect()


async def hello(client, **options):
    """Who answers."""
    return await client.call("hello", version=hpcnb.__version__, **options)


async def gone(pid):
    """Wait until a process has ended."""
    await until(lambda: not alive(pid))


def agents(isolated):
    """The agents of this test that run."""
    return [process.pid for process in isolated.agents()]


# -- one at a time --------------------------------------------------------------------------------------------------


async def test_the_first_call_starts_it(client, isolated):
    """Nobody starts an agent by hand: the first call does, and the next one finds it."""
    assert not isolated.runtime.exists()
    first = await hello(client)
    assert first == {"version": hpcnb.__version__, "pid": first["pid"], "clients": 1, "clusters": 0}
    assert agents(isolated) == [first["pid"]]
    assert (await hello(client))["pid"] == first["pid"]


async def test_it_outlives_who_started_it(connect, isolated):
    """The agent belongs to no client: it leads a session of its own and stays when the client goes."""
    first = connect()
    pid = (await hello(first))["pid"]
    assert os.getsid(pid) == pid
    await first.close()
    assert (await hello(connect()))["pid"] == pid


async def test_of_two_started_at_once_one_lives(client, isolated):
    """Two agents that start together do not share a socket: one serves, the other leaves without a complaint."""
    both = [await asyncio.create_subprocess_exec(sys.executable, "-m", "hpcnb.agent") for _ in range(2)]
    await until((isolated.runtime / "agent.sock").exists)
    answered = (await hello(client))["pid"]
    (other,) = [process for process in both if process.pid != answered]
    async with asyncio.timeout(DEADLINE):
        assert await other.wait() == 0
        # The client may have come before the socket was listened on, and started a third, which leaves as well.
        await until(lambda: agents(isolated) == [answered])
        await client.call("stop")
        assert [await process.wait() for process in both] == [0, 0]


async def test_many_clients_at_once_share_one(connect, isolated):
    """Clients that start at the same time end up with the same agent."""
    found = await asyncio.gather(*(hello(connect()) for _ in range(5)))
    assert len({answer["pid"] for answer in found}) == 1
    await until(lambda: agents(isolated) == [found[0]["pid"]])


async def test_it_has_room_for_many_connections(connect, isolated):
    """Each stream of each kernel is a connection: the soft limit of descriptors (256 on some systems) is not the agent's."""
    few = 'ulimit -Sn 64; exec "$0" -m hpcnb.agent'
    process = await asyncio.create_subprocess_exec("sh", "-c", few, sys.executable)
    await until((isolated.runtime / "agent.sock").exists)
    await hello(connect())
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(places.agent_socket()))
        client = connect()
        assert (await hello(client))["pid"] == process.pid
        await client.call("stop")
        await process.wait()
    assert "Too many open files" not in places.agent_log().read_text()


async def test_after_a_kill_the_next_call_starts_another(client, isolated):
    """A killed agent leaves a socket behind, which is in nobody's way; the client's next call just works."""
    first = (await hello(client))["pid"]
    os.kill(first, signal.SIGKILL)
    await gone(first)
    assert (isolated.runtime / "agent.sock").exists()
    second = (await hello(client))["pid"]
    assert second != first
    assert agents(isolated) == [second]


async def test_stop(client, isolated):
    """Told to stop, it ends, takes its socket along, and is started again when it is needed."""
    first = (await hello(client))["pid"]
    await client.call("stop")
    await gone(first)
    assert not (isolated.runtime / "agent.sock").exists()
    with pytest.raises(ClusterError, match="no agent runs"):
        await hello(client, start=False)
    assert (await hello(client))["pid"] != first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_polite_signal_stops_it(client, isolated, number):
    """SIGTERM and SIGINT end it as `stop` does."""
    pid = (await hello(client))["pid"]
    os.kill(pid, number)
    await gone(pid)
    assert not (isolated.runtime / "agent.sock").exists()
    assert f"agent {pid} ends" in (isolated.data / "agent.log").read_text()


async def test_one_that_is_about_to_end_is_waited_for(client, isolated):
    """While an old agent still holds the lock, but listens no more, the client waits for its own agent to get it."""
    holder = os.open(places.agent_lock(), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        call = asyncio.create_task(hello(client))
        seen = []
        await until(lambda: seen or seen.extend(agents(isolated)))
        (first,) = seen
        await gone(first)
        assert not call.done()
    finally:
        os.close(holder)
    assert (await call)["pid"] != first


async def test_one_that_hangs_is_named(connect, isolated, monkeypatch):
    """An agent that runs and does not answer is no reason to hang: the message says where its pid is."""
    pid = (await hello(connect()))["pid"]
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(client_module, "ANSWER", 1.0)
    try:
        with pytest.raises(ClusterError, match="has not answered") as caught:
            await hello(connect())
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (isolated.runtime / "agent.lock").read_text() == f"{pid}\n"
    assert str(isolated.runtime / "agent.lock") in caught.value.remedy


async def test_one_that_cannot_start_says_why(client, isolated, monkeypatch):
    """An agent that fails at its start is not waited for: the error brings the end of its log."""
    monkeypatch.setenv("PYTHONPATH", str(isolated.folder))
    (isolated.folder / "tornado.py").write_text("raise RuntimeError('the tornado is broken')")
    with pytest.raises(ClusterError, match="did not come up") as caught:
        await hello(client)
    assert "the tornado is broken" in caught.value.evidence


# -- versions -------------------------------------------------------------------------------------------------------


async def test_an_older_one_is_replaced(connect, isolated, monkeypatch):
    """A client of a later version has the older agent hand over to a new one; other clients find that by themselves."""
    old = connect()
    first = (await hello(old))["pid"]
    with monkeypatch.context() as later:
        later.setattr(hpcnb, "__version__", "99.0")
        second = (await hello(connect()))["pid"]
    assert second != first
    await gone(first)
    assert (await hello(old))["pid"] == second


async def test_a_newer_one_is_left_alone(connect, isolated, monkeypatch):
    """A client of an older version uses the newer agent that runs."""
    first = (await hello(connect()))["pid"]
    monkeypatch.setattr(hpcnb, "__version__", "0.0.1")
    assert (await hello(connect()))["pid"] == first


async def test_asking_for_the_status_replaces_nobody(connect, isolated, monkeypatch):
    """A call that may not start an agent does not replace one either."""
    first = (await hello(connect()))["pid"]
    monkeypatch.setattr(hpcnb, "__version__", "99.0")
    assert (await hello(connect(), start=False))["pid"] == first


@pytest.mark.parametrize(
    ("theirs", "older"),
    [("0.1.0", True), ("0.9", True), ("1.2.3", False), ("1.2.4", False), ("1.2", True), ("2", False)],
)
def test_which_version_is_older(monkeypatch, theirs, older):
    """Versions are compared by their numbers."""
    monkeypatch.setattr(hpcnb, "__version__", "1.2.3")
    assert client_module._older(theirs) is older


# -- who may come in ------------------------------------------------------------------------------------------------


async def test_the_socket_is_private(client, isolated):
    """The socket is open to its owner alone, in a directory that only the owner can enter."""
    await hello(client)
    assert (isolated.runtime / "agent.sock").stat().st_mode & 0o777 == 0o600
    assert isolated.runtime.stat().st_mode & 0o777 == 0o700


KNOCK = """
import socket, sys
knock = socket.socket(socket.AF_UNIX)
knock.settimeout(10)
try:
    knock.connect(sys.argv[1])
    knock.sendall(b"GET / HTTP/1.1\\r\\nHost: agent\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                  b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n")
    print(knock.recv(100))
except OSError as error:
    print(type(error).__name__)
"""


def knock(path, user=None):
    """What another user, with a Python of the system's, gets from the socket."""
    python = "/usr/bin/python3"
    return subprocess.run(
        [python, "-c", KNOCK, path], user=user, group=user, extra_groups=[], capture_output=True, text=True, check=True
    ).stdout.strip()


@as_root
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs a Python that every user may run")
async def test_another_user_is_refused(client, isolated):
    """Another user cannot reach the socket; and where the directories would let him, he is turned away unheard."""
    pid = (await hello(client))["pid"]
    path = isolated.runtime / "agent.sock"
    assert (await asyncio.to_thread(knock, path, NOBODY)) == "PermissionError"
    for place in (isolated.folder, isolated.folder / "run", isolated.runtime):
        place.chmod(0o711)
    path.chmod(0o666)
    assert (await asyncio.to_thread(knock, path, NOBODY)) in ("b''", "ConnectionResetError", "BrokenPipeError")
    assert (await asyncio.to_thread(knock, path)).startswith("b'HTTP/1.1 101")
    isolated.runtime.chmod(0o700)
    assert "another user was refused" in (isolated.data / "agent.log").read_text()
    assert (await hello(client))["pid"] == pid


async def test_a_browser_is_refused(client, isolated):
    """A connection that a web page opened, were there a way, is turned away."""
    await hello(client)
    reader, writer = await asyncio.open_unix_connection(isolated.runtime / "agent.sock")
    writer.write(
        b"GET / HTTP/1.1\r\nHost: agent\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://evil\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b" 403 " in await reader.readline()
    writer.close()


async def test_an_open_directory_is_refused(client, isolated):
    """Where others could reach the socket the client does not even start an agent."""
    isolated.runtime.mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="open to other users"):
        await hello(client)
    assert agents(isolated) == []


# -- what is said ---------------------------------------------------------------------------------------------------

MALFORMED = [
    "",
    "no json",
    "[]",
    "5",
    "null",
    '"call"',
    "{}",
    '{"id": 1}',
    '{"call": "hello"}',
    '{"id": 1, "call": 5}',
    '{"id": 1, "call": "__init__"}',
    '{"id": 1, "call": "hello", "with": []}',
    '{"id": 1, "call": "hello", "with": {"version": "1", "client": "me"}}',
    '{"id": 1, "call": "create", "with": {"id": [], "spec": {}}}',
    '{"id": 1, "call": "create", "with": {"id": "../../../../etc/cron.d/x", "spec": {}}}',
    '{"id": 1, "call": "create", "with": {"id": "0123456789abcdef", "spec": 7}}',
    '{"id": 1, "call": "create", "with": {"id": "0123456789abcdef", "spec": {"name": "x"}}}',
    '{"id": 1, "call": "attach", "with": {"id": {}}}',
    '{"id": 1, "call": "logs", "with": {"id": "0123456789abcdef", "name": 5, "most": "x"}}',
    '{"answer": 1}',
    '{"answer": [], "text": "x"}',
    '{"answer": {}, "refused": []}',
    '{"enough": []}',
    '{"enough": 7}',
    '{"id": [], "call": "doctor", "with": {"site": "local", "spec": {}}}',
    '{"id": 1, "call": "doctor", "with": {"site": [], "spec": 7}}',
    "[" * 100_000,
    '{"id": ' + "9" * 10_000 + "}",
    b"\xff\xfe",
]


async def test_malformed_messages_do_no_harm(connect, client, isolated):
    """Whatever is sent, the agent lives on and serves the others."""
    pid = (await hello(client))["pid"]
    for message in MALFORMED:
        other = await connect()._open()
        with contextlib.suppress(websocket.WebSocketClosedError):
            await other.write_message(message, binary=isinstance(message, bytes))
            await other.write_message(json.dumps({"id": 2, "call": "list"}))
        async with asyncio.timeout(DEADLINE):
            while (answer := await other.read_message()) is not None and json.loads(answer).get("id") != 2:
                assert "error" in json.loads(answer), message
            other.close()
            while answer is not None:  # it is closed only then
                answer = await other.read_message()
    assert (await hello(client))["pid"] == pid
    assert await client.call("list") == []


async def test_a_huge_message_ends_only_its_own_connection(connect, client, isolated):
    """A message beyond all measure is not read; who sent it is let go, the others notice nothing."""
    pid = (await hello(client))["pid"]
    other = await connect()._open()
    with contextlib.suppress(websocket.WebSocketClosedError):
        await other.write_message("x" * (17 << 20))
    async with asyncio.timeout(DEADLINE):
        assert await other.read_message() is None
    other.close()
    assert (await hello(client))["pid"] == pid


async def test_an_unknown_call_is_an_error(client):
    """A call that this agent does not know is answered with what to do."""
    with pytest.raises(ClusterError, match="knows no call 'dance'"):
        await client.call("dance")


async def test_an_unknown_cluster_is_an_error(client):
    """A cluster that does not exist is said not to."""
    for call, more in (("attach", {}), ("close", {}), ("scale", {"nodes": 2}), ("logs", {})):
        with pytest.raises(HPCError, match="no such cluster"):
            await client.call(call, id="0123456789abcdef", **more)


async def test_sites_are_read_anew(client, isolated):
    """An edit of the configuration is seen at once, and a mistake in it is an error, not an end."""
    assert [site["name"] for site in await client.call("sites")] == ["local"]
    isolated.configure("hpcnb: {sites: {octopus: {host: octopus.example.org}}}")
    assert [site["name"] for site in await client.call("sites")] == ["local", "octopus"]
    isolated.configure("hpcnb: {sites: {octopus: {hots: x}}}")
    with pytest.raises(ConfigError, match="hots"):
        await client.call("sites")
    isolated.configure("")
    assert [site["name"] for site in await client.call("sites")] == ["local"]


# -- what an earlier agent left -------------------------------------------------------------------------------------


async def test_a_site_that_is_silent_does_not_keep_the_agent_from_listening(client, isolated):
    """Clusters of a site that does not answer are there, as last known, while the agent still tries to reach it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = isolated.folder / "ssh_config"
        config.write_text(f"Host far\n  HostName 127.0.0.1\n  Port {silent.getsockname()[1]}\n")
        isolated.configure(f"hpcnb: {{sites: {{far: {{host: far, ssh-config: {config}}}}}}}")
        records = isolated.data / "clusters"
        records.mkdir(parents=True)
        for folder in (records, isolated.data):
            folder.chmod(0o700)
        spec = ClusterSpec(site="far", name="fit", resources=Resources())
        status = ClusterStatus(id="0123456789abcdef", spec=spec, state=State.QUEUED)
        job = {"index": 0, "token": "0" * 32, "path": "/runs/x", "job_id": "117"}
        secrets = {"authority_certificate": "", "authority_key": "", "secret": ""}
        (records / "x.json").write_text(json.dumps({"status": status.to_json(), "jobs": [job], **secrets}))
        (known,) = await client.call("list")
        assert (known["id"], known["state"]) == ("0123456789abcdef", "queued")
        silent.accept()[0].close()


async def test_a_broken_record_does_not_keep_the_agent_from_starting(client, isolated):
    """What an earlier agent failed to write is no reason not to start."""
    records = isolated.data / "clusters"
    records.mkdir(parents=True)
    for folder in (records, isolated.data):
        folder.chmod(0o700)
    (records / "x.json").write_text('{"status": {"id"')
    assert await client.call("list") == []
