"""The pilot: what it hears, what it obeys, and each way in which it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
import time

import pytest

from hpcnb.errors import HPCError
from hpcnb.link import StreamError
from hpcnb.model import Ending, Reason
from hpcnb.pilot import lead
from hpcnb.pilot.route import gateway
from hpcnb.pilot.run import Run
from hpcnb.site.authority import Authority, Role
from tests.isolation import DEADLINE, until
from tests.unit.pilot.lone import SAY, LonePilot


@pytest.fixture
async def pilot(isolated, tmp_path, monkeypatch):
    """Start a pilot; it has ended after the test."""
    started = []

    async def start(nodes="stay()", *, attached=0, **wishes):
        started.append(LonePilot(tmp_path / "run", nodes, **wishes))
        return await started[-1].start(monkeypatch, attached=attached)

    yield start
    for each in started:
        await each.close()


async def end_of(pilot):
    """How a pilot ended."""
    async with asyncio.timeout(DEADLINE):
        return await pilot.ending


# -- its ends -------------------------------------------------------------------------------------------------------


async def test_close_is_obeyed(pilot):
    """Told to close, the pilot says that it ends, and has completed."""
    lone = await pilot()
    control = await lone.control()
    await control.tell(op="close")
    said = await control.hear("ended")
    assert Ending.from_json(said) == Ending(reason=Reason.COMPLETED, message="closed")
    assert await end_of(lone) == Ending(reason=Reason.COMPLETED, message="closed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_of_the_batch_system_is_obeyed(pilot, number):
    """What the batch system tells the job, the pilot does, and whoever listens hears of it."""
    lone = await pilot("say('scheduler', address='x'); stay()")
    control = await lone.control()
    await control.hear("scheduler")
    os.kill(os.getpid(), number)
    assert (await control.hear("ended"))["reason"] == "cancelled"
    assert (await end_of(lone)).reason is Reason.CANCELLED


async def test_a_node_that_fails_ends_it(pilot):
    """When a node says that going on makes no sense, the pilot ends with what it said."""
    lone = await pilot("say('failed', what='the scheduler process was killed', tail='its log'); stay()")
    ending = await end_of(lone)
    assert ending == Ending(reason=Reason.FAILED, message="the scheduler process was killed", tail="its log")


@pytest.mark.parametrize("status", [0, 3])
async def test_nodes_that_end_unasked_end_it(pilot, status):
    """Nodes that are gone without a word are a failure, whatever their exit status."""
    lone = await pilot(f"sys.exit({status})")
    ending = await end_of(lone)
    assert (ending.reason, ending.exit_code) == (Reason.FAILED, status)


async def test_nodes_that_are_killed_end_it(pilot):
    """A killed node does not leave a pilot that leads nobody."""
    lone = await pilot("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert (await end_of(lone)).exit_code == -signal.SIGKILL


async def test_nodes_end_with_it(pilot, tmp_path):
    """Nodes are told to end by the end of their stdin, and have the time to do so."""
    lone = await pilot(f"stay(); import pathlib; pathlib.Path({str(tmp_path / 'tidy')!r}).touch()")
    control = await lone.control()
    await control.tell(op="close")
    assert (await end_of(lone)).reason is Reason.COMPLETED
    assert (tmp_path / "tidy").exists()


async def test_nodes_that_do_not_end_are_killed(pilot, monkeypatch):
    """Nodes that obey nothing do not keep the pilot."""
    usual = lead.GRACE
    monkeypatch.setattr(lead, "GRACE", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); say('scheduler', address='x'); signal.pause()"
    lone = await pilot(deaf)
    control = await lone.control()
    await control.hear("scheduler")
    started = time.monotonic()
    await control.tell(op="close")
    assert (await end_of(lone)).reason is Reason.COMPLETED
    assert time.monotonic() - started < usual


# -- idleness -------------------------------------------------------------------------------------------------------


async def test_nobody_needs_it(pilot):
    """Without a client and without work the cluster ends after the time-out, and says so."""
    lone = await pilot(idle_timeout=1)
    ending = await end_of(lone)
    assert ending.reason is Reason.COMPLETED
    assert ending.message == "nobody was attached and nothing ran for 1 s (idle-timeout)"


async def test_a_client_keeps_it(pilot):
    """As long as a client is attached the cluster stays, and ends when the last one has gone."""
    lone = await pilot(idle_timeout=1, attached=1)
    control = await lone.control()
    await control.tell(op="attached", clients=2)
    await until(lambda: lone.pilot._attached == 2)
    done, _ = await asyncio.wait([lone.ending], timeout=2)
    assert not done
    await control.tell(op="attached", clients=0)
    assert (await end_of(lone)).reason is Reason.COMPLETED


async def test_an_agent_that_is_gone_keeps_nothing(pilot):
    """When the agent goes, and takes its word for its clients along, the time-out runs."""
    lone = await pilot(idle_timeout=1, attached=1)
    link = await lone.join()
    stream = link.open("control")
    await stream.write(b'{"op": "attached", "clients": 5}\n')
    await until(lambda: lone.pilot._attached == 5)
    done, _ = await asyncio.wait([lone.ending], timeout=1.5)
    assert not done
    await link.close()
    assert (await end_of(lone)).reason is Reason.COMPLETED


async def test_an_agent_that_never_comes_back_keeps_nothing(pilot, monkeypatch):
    """Where the agent died, and told nothing, its clients count for as long as a laptop may sleep, and no longer."""
    monkeypatch.setattr(lead, "AWAY", 3.0)
    lone = await pilot(idle_timeout=1, attached=1)
    link = await lone.join()
    stream = link.open("control")
    await stream.write(b'{"op": "attached", "clients": 5}\n')
    await until(lambda: lone.pilot._attached == 5)
    done, _ = await asyncio.wait([lone.ending], timeout=4)
    assert not done  # it is there all the time
    link._pipe._writer.transport.abort()
    done, _ = await asyncio.wait([lone.ending], timeout=2)
    assert not done
    assert lone.pilot._attached == 5
    assert (await end_of(lone)).message == "nobody was attached and nothing ran for 1 s (idle-timeout)"


@pytest.mark.parametrize("state", lead.BUSY)
async def test_work_keeps_it(pilot, tmp_path, state):
    """As long as there are tasks the cluster stays, also with nobody attached."""
    nodes = f"""
import pathlib, time
say("load", workers=1, cores=1, tasks={{"{state}": 1}})
while not pathlib.Path({str(tmp_path / "done")!r}).exists():
    time.sleep(0.01)
say("load", workers=1, cores=1, tasks={{"memory": 1}})
stay()
"""
    lone = await pilot(nodes, idle_timeout=1, attached=1)
    await until(lambda: lone.pilot._latest)
    lone.pilot._attached = 0
    done, _ = await asyncio.wait([lone.ending], timeout=2)
    assert not done
    (tmp_path / "done").touch()
    assert (await end_of(lone)).reason is Reason.COMPLETED


async def test_a_running_cell_keeps_it(pilot, tmp_path):
    """As long as a cell runs the cluster stays, also with nobody attached."""
    nodes = f"""
import pathlib, time
say("session", name="main", busy=True)
while not pathlib.Path({str(tmp_path / "done")!r}).exists():
    time.sleep(0.01)
say("session", name="main", busy=False)
stay()
"""
    lone = await pilot(nodes, idle_timeout=1, attached=1)
    await until(lambda: lone.pilot._busy)
    lone.pilot._attached = 0
    done, _ = await asyncio.wait([lone.ending], timeout=2)
    assert not done
    (tmp_path / "done").touch()
    assert (await end_of(lone)).reason is Reason.COMPLETED


async def test_it_warns_before_it_ends(pilot, monkeypatch):
    """Some time before an idle cluster ends, who listens hears of it, once."""
    monkeypatch.setattr(lead, "LAST_WARNING", 0.9)
    lone = await pilot(idle_timeout=1, attached=1)
    control = await lone.control()
    lone.pilot._attached = 0
    assert 0 < (await control.hear("idle"))["left"] < 0.9
    with pytest.raises((EOFError, StreamError)):
        await control.hear("idle")


async def test_an_end_that_was_announced_can_be_prevented(pilot, monkeypatch):
    """Whoever wants an idle cluster kept says so: the time-out runs anew, and the warning is taken back."""
    monkeypatch.setattr(lead, "LAST_WARNING", 1.4)
    lone = await pilot(idle_timeout=2, attached=1)
    control = await lone.control()
    lone.pilot._attached = 0
    for _ in range(2):
        assert (await control.hear("idle"))["left"] < 1.4
        await control.tell(op="keep")
        assert (await control.hear("idle"))["left"] is None
    assert (await end_of(lone)).reason is Reason.COMPLETED


# -- what it hears --------------------------------------------------------------------------------------------------


async def test_events_are_passed_on(pilot):
    """What the nodes say reaches who listens, in order."""
    lone = await pilot("say('scheduler', address='tls://1'); say('load', workers=1, cores=2, tasks={}); stay()")
    control = await lone.control()
    assert await control.hear() == {"event": "scheduler", "address": "tls://1"}
    assert await control.hear() == {"event": "load", "workers": 1, "cores": 2, "tasks": {}}


async def test_who_comes_late_hears_the_latest(pilot):
    """A later listener is told where things stand: the last of each kind."""
    lone = await pilot("say('load', workers=0); say('scheduler', address='tls://1'); say('load', workers=2); stay()")
    first = await lone.control()
    while (await first.hear("load"))["workers"] != 2:
        pass
    second = await lone.control()
    assert [await second.hear(), await second.hear()] == [
        {"event": "load", "workers": 2},
        {"event": "scheduler", "address": "tls://1"},
    ]


GARBAGE = ["'no json'", "5", "'null'", "[1]", "'{}'", "chr(27) + '[31m'", "'x' * 200_000"]


async def test_what_others_print_is_no_event(pilot, capfd):
    """What a library prints past us goes to the job's log, however long or odd, and the events around it are heard."""
    printed = "; ".join(f"print({text}, flush=True)" for text in GARBAGE)
    lone = await pilot(f"say('scheduler', address='one'); {printed}; say('scheduler', address='two'); stay()")
    control = await lone.control()
    async with asyncio.timeout(DEADLINE):
        while (await control.hear("scheduler"))["address"] != "two":
            pass
    sys.stderr.flush()
    shown = capfd.readouterr().err
    assert "no json\n" in shown
    assert "x" * 200_000 in shown


async def test_a_listener_that_does_not_read_holds_up_nobody(pilot):
    """Summaries for who does not read are dropped, the oldest first; the pilot and the others go on."""
    flood = "[say('load', workers=n, pad='x' * 3000) for n in range(20000)]; say('scheduler', address='after'); stay()"
    lone = await pilot(flood)
    link = await lone.join()
    silent = link.open("control")
    await silent.write(b'{"op": "attached", "clients": 0}\n')
    await until(lambda: lone.ending.done() or len(asyncio.all_tasks()) > 3)
    control = await lone.control()
    assert (await control.hear("scheduler"))["address"] == "after"


# -- who may join ---------------------------------------------------------------------------------------------------


async def test_without_a_certificate_nobody_joins(pilot):
    """A stranger's connection ends in the TLS handshake."""
    lone = await pilot()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=lone.authority.certificate)
    with pytest.raises((OSError, HPCError)):
        await lone.join(tls=context)


async def test_another_clusters_certificate_is_worth_nothing(pilot):
    """A certificate of another authority, and be it of the same user's, is refused."""
    lone = await pilot()
    with pytest.raises((OSError, HPCError)):
        await lone.join(tls=lone.tls(authority=Authority.create("another")))


async def test_without_the_secret_nobody_joins(pilot):
    """A certificate alone, a stolen worker's for one, does not join the link."""
    lone = await pilot()
    with pytest.raises(HPCError, match="do not have the same secret"):
        await lone.join(secret="00" * 32, tls=lone.tls(Role.WORKER))
    await lone.control()


async def test_plain_text_gets_nothing(pilot):
    """Whoever speaks no TLS learns nothing, and harms nobody."""
    lone = await pilot()
    reader, writer = await asyncio.open_connection(*lone.address)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert b"hpcnb" not in await reader.read()
    writer.close()
    await lone.control()


async def test_streams_lead_to_our_services_only(pilot):
    """A stream cannot be opened to an address of the joiner's choice."""
    lone = await pilot()
    link = await lone.join()
    for name in ("tcp:127.0.0.1:22", "../../etc/passwd", "run.json", ""):
        with pytest.raises((StreamError, ValueError)):
            await link.open(name).read()


async def test_a_service_that_does_not_start_is_named(pilot, monkeypatch):
    """A stream to a service that does not come up ends with that reason, not with silence."""
    monkeypatch.setattr(gateway, "PATIENCE", 0.1)
    lone = await pilot()
    link = await lone.join()
    with pytest.raises(StreamError, match="session service did not start"):
        await link.open("session").read()


async def test_a_stream_waits_for_its_service(pilot):
    """A stream to a service that is still starting is joined to it once it has started."""
    lone = await pilot()
    link = await lone.join()
    stream = link.open("scheduler")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host, port = server.getsockname()
        lone.run.publish("scheduler.json", {"address": f"tls://{host}:{port}"})
        accepted, _ = await asyncio.get_running_loop().sock_accept(server)
        with accepted:
            accepted.send(b"hello")
            assert await stream.read() == b"hello"


async def test_who_adds_nodes_listens_nowhere(pilot, tmp_path):
    """An allocation that only adds nodes has no gateway, and idleness is the leader's business."""
    lone = await pilot("say('load', workers=0); stay()", index=1, idle_timeout=1)
    done, _ = await asyncio.wait([lone.ending], timeout=1.5)
    assert not done
    assert not lone.run.file("pilot.json").exists()


# -- the program ----------------------------------------------------------------------------------------------------


@pytest.fixture
def program(isolated, tmp_path, monkeypatch):
    """Run the pilot as the job does, on nodes that are a few lines; its exit status, and the ending it wrote."""

    def start(nodes, **wishes):
        lone = LonePilot(tmp_path / "run", nodes, **wishes)
        asyncio.run(lone.prepare())
        monkeypatch.setattr(lead, "node_command", lambda run: [sys.executable, "-c", SAY + nodes])
        status = lead.main(str(lone.folder))
        return status, Ending.from_json(json.loads(lone.run.file("ended.json").read_text()))

    return start


def test_a_good_end_is_written(program):
    """What ends as it should has the exit status 0, and says why."""
    status, ending = program("stay()", idle_timeout=1)
    assert (status, ending.reason) == (0, Reason.COMPLETED)
    assert "idle-timeout" in ending.message


def test_a_bad_end_is_written(program):
    """What fails has another exit status, and the evidence."""
    status, ending = program("say('failed', what='no', tail='log')")
    assert (status, ending.reason, ending.message, ending.tail) == (1, Reason.FAILED, "no", "log")


def test_a_fault_of_the_pilots_own_is_written(program, monkeypatch, caplog):
    """A pilot that fails says so where the agent looks; its log has the rest."""

    async def fail(pilot):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(lead.Pilot, "lead", fail)
    status, ending = program("stay()")
    assert (status, ending.reason) == (1, Reason.FAILED)
    assert ending.message == "the pilot failed: ZeroDivisionError: by zero"
    assert "Traceback" in caplog.text


def test_the_ending_is_private(program, tmp_path):
    """What the pilot leaves is readable by the user alone."""
    program("sys.exit(0)")
    for name in ("ended.json", "pilot.json"):
        assert (tmp_path / "run" / name).stat().st_mode & 0o077 == 0


def a_run(**fields):
    """A run's record."""
    return Run(id="c0ffee", token="0" * 32, path="/run dir", spec=None, directory="/", **fields)


def test_one_process_is_one_node():
    """Without Slurm the node's process is started directly."""
    command = lead.node_command(a_run())
    assert command == [sys.executable, "-m", "hpcnb.pilot.node", "--run-dir", "/run dir"]


def test_srun_starts_one_process_on_each_node(monkeypatch):
    """In Slurm one process is started on each node, with all of its cores and memory."""
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "16")
    command = lead.node_command(a_run(launcher="srun"))
    assert command[0] == "srun"
    for word in ("--overlap", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=16", "--mem=0"):
        assert word in command
    assert command[-5:] == [sys.executable, "-m", "hpcnb.pilot.node", "--run-dir", "/run dir"]
