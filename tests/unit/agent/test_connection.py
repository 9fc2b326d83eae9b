"""The user's end of a link, to a pilot in this process: made, kept, cut and made again."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest

import hpcnb
from hpcnb.agent import connection as connection_module
from hpcnb.agent import dialling, places
from hpcnb.agent.connection import Connection, Ears, client_context
from hpcnb.agent.record import ClusterRecord, JobRecord
from hpcnb.agent.sites import Site
from hpcnb.config import SiteConfig
from hpcnb.errors import ConnectionFailed
from hpcnb.model import ClusterStatus, State
from hpcnb.site.authority import Authority, Identity, Role
from hpcnb.site.lasting import LastingShell
from hpcnb.site.local import LocalShell
from tests.isolation import DEADLINE, until
from tests.unit.pilot.lone import SECRET, LonePilot

ROOT = Path(hpcnb.__file__).parents[1]


class Kept:
    """A connection that is being kept, and what was heard of it."""

    def __init__(self, lone, shell, *, link="auto", secret=SECRET):
        self.news = []
        self.events = []
        self.came = asyncio.Event()
        kept = ClusterRecord(
            status=ClusterStatus(id=lone.run.id, spec=lone.run.spec, state=State.STARTING),
            jobs=(JobRecord(index=0, token=lone.run.token, path=lone.run.path),),
            zip_path=str(ROOT),
            authority_certificate=lone.authority.certificate,
            authority_key="",
            secret=secret,
        )
        site = Site(SiteConfig(name="local", batch="process", link=link))
        site.shell = LastingShell("local", self._reach)
        self._shell = shell
        self.troubles = []
        self.connection = Connection(kept, site, identity=lone.authority.issue(Role.AGENT, lifetime=60))
        runs = asyncio.Event()
        runs.set()
        ears = Ears(link=self._on_link, trouble=self.troubles.append, event=self._on_event)
        self.task = asyncio.create_task(self.connection.keep(ears, runs=runs))

    async def _reach(self, ask):
        return self._shell

    def _on_link(self, route):
        self.news.append(route)
        if route:
            self.came.set()
            self.told = asyncio.create_task(self.connection.tell({"op": "attached", "clients": len(self.news)}))

    def _on_event(self, event):
        self.events.append(event["event"])
        if event["event"] == "odd":
            raise KeyError("odd")

    async def up(self):
        """Wait until the link is up."""
        async with asyncio.timeout(DEADLINE):
            await self.came.wait()
        self.came.clear()

    def cut(self):
        """End the pipe, as a broken network does."""
        self.connection._link._pipe._writer.transport.abort()

    async def close(self):
        """Let go."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.connection.close()


@pytest.fixture
async def shell():
    """The shell of this machine."""
    shell = LocalShell()
    yield shell
    await shell.close()


@pytest.fixture
async def keep(isolated, tmp_path, monkeypatch, shell):
    """Start a pilot and keep a connection to it: ``lone, kept = await keep(nodes)``."""
    made = []

    async def start(nodes="stay()", through=shell, **wishes):
        lone = LonePilot(tmp_path / "run", nodes)
        made.append(lone)
        kept = Kept(lone, through, **wishes)
        made.append(kept)
        await lone.start(monkeypatch)
        return lone, kept

    yield start
    for each in reversed(made):
        await each.close()


async def test_the_link_is_made_as_soon_as_the_pilot_listens(keep):
    """The connection waits for the pilot's address, dials, and hears what the pilot says."""
    _, kept = await keep("say('scheduler', address='tls://127.0.0.1:1'); stay()")
    await kept.up()
    await until(lambda: kept.events)
    assert kept.news == ["direct"]
    assert kept.events == ["scheduler"]
    assert kept.connection.scheduler == "tls://127.0.0.1:1"


async def test_who_hears_of_the_link_can_use_it(keep):
    """When the link is said to be up, its sockets are there, private, and the pilot hears how many are attached."""
    lone, kept = await keep()
    await kept.up()
    for stream in ("scheduler", "session"):
        path = places.stream_socket(lone.run.id, stream)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert await kept.told
    await until(lambda: lone.pilot._attached == 1)


async def test_after_a_cut_the_link_is_made_again(keep):
    """A cut is told, and the link comes back by itself, with its streams and without a new address."""
    lone, kept = await keep()
    await kept.up()
    await until(lambda: lone.pilot._attached == 1)
    kept.cut()
    await kept.up()
    assert kept.news == ["direct", "", "direct"]
    await until(lambda: lone.pilot._attached == 3)
    lone.pilot._hear({"event": "scheduler", "address": "tls://127.0.0.1:1"})
    await until(lambda: "scheduler" in kept.events)


async def test_silence_is_told_before_the_pipe_is_dead(keep):
    """A pipe that has fallen silent is told as a cut at once, and another one is made beside it, with the same streams."""
    lone, kept = await keep()
    await kept.up()
    await until(lambda: lone.pilot._attached == 1)
    control, pipe = kept.connection._control, kept.connection._link._pipe
    kept.connection._link._doubted(True)
    await kept.up()
    assert kept.news == ["direct", "", "direct"]
    assert kept.connection._link._pipe is not pipe
    assert kept.connection._control is control
    await until(lambda: lone.pilot._attached == 3)


async def test_a_pipe_that_is_heard_again_is_kept(keep, monkeypatch):
    """When the silent pipe speaks again first, nobody dials any longer."""
    _, kept = await keep()
    await kept.up()
    pipe = kept.connection._link._pipe
    monkeypatch.setattr(connection_module, "REDIAL", (60.0,))
    kept.connection._link._doubted(True)
    await until(lambda: kept.news[-1] == "")
    kept.connection._link._doubted(False)
    await kept.up()
    assert kept.news == ["direct", "", "direct"]
    assert kept.connection._link._pipe is pipe


@pytest.mark.parametrize("route", ["exec", "reverse", "mailbox"])
async def test_every_route_carries_the_link(keep, route):
    """Forced, a route carries the link in both directions, and is made again after a cut; nothing of it is left."""
    lone, kept = await keep(link=route)
    await kept.up()
    await until(lambda: lone.pilot._attached == 1)
    kept.cut()
    await kept.up()
    assert kept.news == [route, "", route]
    await until(lambda: lone.pilot._attached == 3)
    await kept.close()
    await until(lambda: list(lone.run.file("rendezvous").iterdir()) == [])


class Refusing(LocalShell):
    """A login node that connects to the pilot only while it is open; files are always there."""

    open = False

    async def dial(self, host, port):
        """Connect, or refuse."""
        if not self.open:
            raise ConnectionFailed("refused")
        return await super().dial(host, port)

    async def pipe(self, argv):
        """Refuse."""
        raise ConnectionFailed("no commands")


async def test_a_link_returns_to_a_better_route(keep, monkeypatch):
    """What a passing fault has put on a slow route goes by the best one again, by itself, and no byte notices."""
    monkeypatch.setattr(connection_module, "CLIMBS", (0.05,))
    refusing = Refusing()
    lone, kept = await keep(through=refusing)
    await kept.up()
    assert kept.news == ["mailbox"]
    sent = [f"s{number}" for number in range(400)]
    for number, event in enumerate(sent):
        lone.pilot._hear({"event": event})
        refusing.open = number > 100
        await asyncio.sleep(0.005)
    await until(lambda: kept.news == ["mailbox", "direct"])
    await until(lambda: len(kept.events) == len(sent))
    assert kept.events == sent
    assert kept.connection._link.state == "up"
    await until(lambda: not list(lone.run.file("rendezvous").iterdir()))


async def test_a_link_returns_from_each_fault_as_soon(keep, monkeypatch):
    """Neither the time for which the best route has carried it nor an earlier fault, long ago, delays the return to that route."""
    monkeypatch.setattr(connection_module, "CLIMBS", (0.05, 3600.0))
    monkeypatch.setattr(connection_module, "LASTING", 0.0)
    monkeypatch.setattr(dialling, "LOYALTY", 0)
    refusing = Refusing()
    refusing.open = True
    _, kept = await keep(through=refusing)
    await until(lambda: kept.news == ["direct"])
    for _ in range(2):
        refusing.open = False
        kept.cut()
        await until(lambda: kept.news[-1] == "mailbox")
        refusing.open = True
        await until(lambda: kept.news[-1] == "direct")


async def test_a_route_that_cannot_work_says_so(keep):
    """A forced route is tried alone, and why it fails is told."""
    _, kept = await keep(link="srun")
    await until(lambda: kept.troubles)
    assert kept.troubles[0] == "the pilot cannot be reached: srun: there is no Slurm to step into the job with"
    assert kept.news == []


async def test_a_refused_link_is_not_dialled_again(keep, monkeypatch):
    """Where the secrets differ the reason is told, once: dialling again would not help."""
    monkeypatch.setattr(connection_module, "REDIAL", (0.0,))
    lone, kept = await keep(secret="00" * 32)
    await until(lambda: kept.troubles)
    assert kept.troubles == ["the pilot refuses us: the two ends of the link do not have the same secret"]
    joins = []
    monkeypatch.setattr(lone.pilot, "_talk", joins.append)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(kept.up(), 0.3)
    assert (len(kept.troubles), kept.news, joins) == (1, [], [])


async def test_the_link_is_made_as_soon_as_the_site_answers(keep, monkeypatch):
    """While the login node is silent nothing is dialled; the moment that it answers, the link is made."""

    class Cut(LocalShell):
        free = asyncio.Event()
        dials = 0

        async def read(self, path, **options):
            await self.free.wait()
            return await super().read(path, **options)

        async def dial(self, host, port):
            self.dials += 1
            if not self.free.is_set():
                raise ConnectionFailed("cut")
            return await super().dial(host, port)

    monkeypatch.setattr(connection_module, "REDIAL", (0.0, 0.2, 600.0))
    monkeypatch.setattr(dialling, "ANSWER", 0.1)
    cut = Cut()
    cut.free.set()
    _, kept = await keep(through=cut)
    await kept.up()
    cut.free.clear()
    kept.cut()
    await until(lambda: kept.troubles)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(kept.up(), 0.5)
    assert (cut.dials, kept.troubles) == (2, ["the login node does not answer"])
    cut.free.set()
    await kept.up()  # long before the last pause is over


async def test_what_is_not_understood_ends_nothing(keep, caplog):
    """News that make no sense here are logged; those after them are heard."""
    _, kept = await keep("say('odd'); say('scheduler', address='x'); stay()")
    await until(lambda: "scheduler" in kept.events)
    assert kept.events == ["odd", "scheduler"]
    assert "was not understood" in caplog.text


@pytest.mark.parametrize("error", [ConnectionFailed("lost"), TimeoutError("slow"), OSError(116, "Stale file handle")])
async def test_a_site_that_is_out_of_reach_is_tried_again(keep, shell, error):
    """While the site cannot be asked where its pilot listens, the question is put again; then it is connected to."""

    class Unsteady(LocalShell):
        failures = 3

        async def read(self, path, **options):
            if self.failures > 0:
                self.failures -= 1
                raise error
            return await super().read(path, **options)

        async def dial(self, host, port):
            if self.failures == 0:
                self.failures = -1
                raise ConnectionFailed("lost")
            return await super().dial(host, port)

    _, kept = await keep(through=Unsteady(), link="direct")
    await kept.up()
    assert kept.news == ["direct"]


async def test_a_stream_is_a_socket_here(keep):
    """What connects to the socket of a stream is connected with its service, TLS end to end, role checked."""
    lone, kept = await keep()
    await kept.up()

    async def serve(reader, writer):
        writer.write(b"hello " + await reader.readline())
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(lone.run.file("tls/scheduler.pem"), lone.run.file("tls/scheduler.key"))
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        host, port = server.sockets[0].getsockname()
        lone.run.publish("scheduler.json", {"address": f"tls://{host}:{port}"})
        path = places.stream_socket(lone.run.id, "scheduler")
        reader, writer = await asyncio.open_unix_connection(
            path, ssl=lone.tls(Role.CLIENT), server_hostname="scheduler.hpcnb"
        )
        writer.write(b"world\n")
        assert await reader.read() == b"hello world\n"
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError, match="session.hpcnb"):
            await asyncio.open_unix_connection(path, ssl=lone.tls(Role.CLIENT), server_hostname="session.hpcnb")


async def test_another_users_connection_is_ended(keep, monkeypatch):
    """Should somebody else get hold of a socket, the connection is ended before a byte is carried."""
    lone, kept = await keep()
    await kept.up()
    monkeypatch.setattr(connection_module, "peer_uid", lambda sock: os.getuid() + 1)
    reader, writer = await asyncio.open_unix_connection(places.stream_socket(lone.run.id, "scheduler"))
    assert await reader.read() == b""
    writer.close()


async def test_the_end_of_the_pilot_is_a_cut(keep):
    """A pilot that ends says why, and the link goes; until the job is known to be over it is dialled again."""
    lone, kept = await keep("say('scheduler', address='x'); stay()")
    await until(lambda: "scheduler" in kept.events)
    await kept.connection.tell({"op": "close"})
    async with asyncio.timeout(DEADLINE):
        await lone.ending
    await until(lambda: kept.news[-1] == "")
    assert kept.events[-1] == "ended"
    assert not kept.task.done()
    await until(lambda: kept.connection._control is not None)
    assert not await kept.connection.tell({"op": "attached", "clients": 1})


async def test_closing_leaves_nothing(keep, isolated):
    """When the connection is given up its sockets are gone, and so are the keys of its making."""
    _, kept = await keep()
    await kept.up()
    await kept.close()
    assert list(isolated.runtime.iterdir()) == []
    assert not await kept.connection.tell({"op": "close"})


async def test_a_key_is_on_disk_for_a_moment_only(isolated):
    """Making a TLS context leaves no key behind, also when it fails."""
    authority = Authority.create("x")
    client_context(authority.certificate, authority.issue(Role.CLIENT, lifetime=60))
    with pytest.raises(ssl.SSLError):
        client_context(authority.certificate, Identity(certificate=authority.certificate, key="no key"))
    assert list(isolated.runtime.iterdir()) == []
