"""The SSH shell against a real sshd: routes, limits, re-keying, losses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time

import paramiko
import pytest

from hpcnb.errors import ConfigError, ConnectionFailed
from hpcnb.site import ssh_transport, ssh_watch
from hpcnb.site.ssh import SSHShell
from tests.site import sshd as sshd_module
from tests.site.sshd import User, ending, public, say, until

pytestmark = pytest.mark.site


@pytest.fixture
async def echo(service):
    """The address of a TCP service that sends back what it gets."""
    return await service(sshd_module.echo)


async def exchange(shell, address, data: bytes) -> bytes:
    """What an echo service gives back through a stream of its own."""
    with ending(await shell.dial(*address)) as (reader, writer):
        back, _ = await asyncio.gather(reader.readexactly(len(data)), say(writer, data))
    return back


async def test_one_connection_carries_everything(sshd, connect, echo, tmp_path):
    """Commands, files and streams, many at once, are channels of one TCP connection."""
    shell = await connect(sshd)
    data = os.urandom(200_000)
    jobs = [shell.run(["cat"], stdin=data) for _ in range(12)]
    jobs += [shell.write(str(tmp_path / f"file{n}"), data) for n in range(4)]
    jobs += [exchange(shell, echo, data) for _ in range(12)]
    done = await asyncio.gather(*jobs)
    assert all(answer.stdout == data for answer in done[:12])
    assert all(answer == data for answer in done[16:])
    assert sshd.connections == 1


async def test_input_that_comes_too_late_does_no_harm(sshd, connect):
    """A command may end while its input is on the way; a server ends the connection over a byte for a dead channel."""
    shell, interval = await connect(sshd), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(8):
            jobs = (shell.run(["head", "-c", "100000"], stdin=bytes(2_500_000)) for _ in range(8))
            assert [len(done.stdout) for done in await asyncio.gather(*jobs)] == [100_000] * 8
    finally:
        sys.setswitchinterval(interval)


async def test_many_streams_at_once(sshd, connect, echo):
    """A hundred streams carry their own bytes each."""
    shell = await connect(sshd)
    sent = [os.urandom(3_000 + n) for n in range(100)]
    assert await asyncio.gather(*(exchange(shell, echo, data) for data in sent)) == sent


@pytest.mark.alone
async def test_small_answers_are_not_held_back(sshd, connect, service):
    """An answer written in two pieces comes without the 40 ms that a kernel waits to join them."""

    async def answer(reader, writer):
        while await reader.read(100):
            writer.write(b"a")
            await asyncio.sleep(0.001)  # or both would travel in one packet
            writer.write(b"b")

    shell = await connect(sshd)
    with ending(await shell.dial(*await service(answer))) as (reader, writer):
        times = []
        for _ in range(20):
            start = time.perf_counter()
            writer.write(b"?")
            await reader.readexactly(2)
            times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.03


@pytest.mark.parametrize("who", ["server", "client"])
async def test_the_connection_survives_re_keying(start_sshd, connect, echo, who):
    """Keys are changed again and again while channels open, carry data and close; nothing is lost."""
    sshd = start_sshd("LogLevel DEBUG", *(["RekeyLimit 100K"] if who == "server" else []))
    shell = await connect(sshd)
    if who == "client":
        shell._transport.packetizer.REKEY_BYTES = 100_000
    data = os.urandom(60_000)
    for _ in range(10):
        answers = await asyncio.gather(
            *(shell.run(["cat"], stdin=data) for _ in range(3)),
            *(exchange(shell, echo, data) for _ in range(6)),
        )
        assert [answer.stdout for answer in answers[:3]] + list(answers[3:]) == [data] * 9
    assert sshd.connections == 1
    assert sshd.rekeys > 20


async def test_a_server_with_another_cipher_is_served(start_sshd, connect, echo):
    """Where packets do not show their length the thread reads, and streams, commands and new keys are as ever."""
    sshd = start_sshd("LogLevel DEBUG", "Ciphers aes128-ctr", "RekeyLimit 500K")
    shell = await connect(sshd)
    data = os.urandom(1_000_000)
    jobs = [exchange(shell, echo, data) for _ in range(4)]
    assert await asyncio.gather(*jobs) == [data] * 4
    assert (await shell.run(["cat"], stdin=data)).stdout == data
    assert (sshd.connections, shell.alive) == (1, True)
    assert sshd.rekeys > 3


async def test_a_server_without_forwarding_says_so(start_sshd, connect, echo):
    """With `AllowTcpForwarding no` a stream fails with that reason; commands and files go on."""
    shell = await connect(start_sshd("AllowTcpForwarding no"))
    with pytest.raises(ConnectionFailed, match="site forbids TCP forwarding"):
        await shell.dial(*echo)
    assert (await shell.run(["echo", "well"])).out == "well\n"


@pytest.mark.parametrize("limit", [1, 2])
async def test_few_sessions_are_shared(start_sshd, connect, echo, tmp_path, limit):
    """With `MaxSessions 1` commands and files take turns, and streams are not counted."""
    shell = await connect(start_sshd(f"MaxSessions {limit}"))
    jobs = [shell.run(["echo", str(n)]) for n in range(4)]
    jobs += [shell.write(str(tmp_path / f"file{n}"), b"x") for n in range(2)]
    jobs += [exchange(shell, echo, b"stream")]
    done = await asyncio.gather(*jobs)
    assert [answer.out for answer in done[:4]] == ["0\n", "1\n", "2\n", "3\n"]
    assert await shell.read(str(tmp_path / "file1")) == b"x"
    assert done[-1] == b"stream"


async def test_a_pipe_leaves_a_session_for_commands(start_sshd, connect):
    """With `MaxSessions 2` commands go on beside a pipe; with 1 they could not, so the pipe is refused."""
    shell = await connect(start_sshd("MaxSessions 2", name="two"))
    with ending(await shell.pipe(["cat"])):
        assert (await shell.run(["echo", "beside"])).out == "beside\n"
    shell = await connect(start_sshd("MaxSessions 1", name="one"))
    with pytest.raises(ConnectionFailed, match="one session only"):
        await shell.pipe(["cat"])
    assert (await shell.run(["echo", "after"])).out == "after\n"


async def test_a_server_without_sessions_says_so(start_sshd, connect, echo):
    """A gateway (`MaxSessions 0`) forwards, but runs nothing, and the error says what to do about it."""
    shell = await connect(start_sshd("MaxSessions 0"))
    assert await exchange(shell, echo, b"stream") == b"stream"
    with pytest.raises(ConnectionFailed, match="runs nothing") as caught:
        await shell.run(["true"])
    assert "ProxyJump" in caught.value.remedy


async def test_a_server_without_sftp_says_so(start_sshd, connect):
    """Files need SFTP; the error says that it is missing, and commands go on."""
    shell = await connect(start_sshd("Subsystem sftp /nonexistent"))
    with pytest.raises(ConnectionFailed, match="no SFTP"):
        await shell.read("/etc/passwd")
    assert (await shell.run(["echo", "well"])).out == "well\n"


async def test_a_greeting_in_place_of_sftp_is_recognised(start_sshd, connect):
    """A login shell that prints at start spoils SFTP, as it does for OpenSSH; the error shows what came instead."""
    sshd = start_sshd("Subsystem sftp /usr/lib/openssh/sftp-server")
    (sshd.folder / ".bashrc").write_text("echo Welcome to the site\n")
    shell = await connect(sshd)
    with pytest.raises(ConnectionFailed, match="no SFTP") as caught:
        await shell.read("/etc/passwd")
    assert "Welcome" in caught.value.evidence


async def test_a_lost_sftp_session_is_opened_again(sshd, connect, tmp_path):
    """When the server ends the session for files, the next file does not notice."""
    shell = await connect(sshd)
    await shell.write(str(tmp_path / "file"), b"x")
    await asyncio.to_thread(shell._files._sftp.channel.close)
    assert await shell.read(str(tmp_path / "file")) == b"x"


async def test_a_chatty_login_shell_does_no_harm(sshd, connect):
    """What the start files of the login shell print is not taken for output of the command."""
    (sshd.folder / ".bashrc").write_text("echo Welcome; echo Careful >&2; printf 'no newline'; set -x\n")
    shell = await connect(sshd)
    done = await shell.run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.out, done.err) == ("out\n", "err\n")


async def test_a_login_shell_that_refuses_is_heard(sshd, connect):
    """When the login shell ends before the command begins, all that it said comes back."""
    (sshd.folder / ".bashrc").write_text("echo 'Accounts are closed for maintenance.'; exit 7\n")
    shell = await connect(sshd)
    done = await shell.run(["true"])
    assert (done.returncode, done.out) == (7, "Accounts are closed for maintenance.\n")


async def test_a_lost_connection_is_told(sshd, connect, echo):
    """When the server is gone, what runs and what comes fails as lost, and dialled connections end."""
    shell = await connect(sshd)
    with ending(await shell.dial(*echo)) as (reader, _):
        running = asyncio.create_task(shell.run(["sleep", "1000"]))
        await asyncio.wait([running], timeout=0.3)
        sshd.kill_connections()
        with pytest.raises(ConnectionFailed, match="lost"):
            await running
        assert await reader.read(1) == b""
    for attempt in shell.run(["true"]), shell.read("/etc/passwd"), shell.dial(*echo):
        with pytest.raises(ConnectionFailed, match="lost"):
            await attempt


@pytest.fixture
async def road(sshd, service, monkeypatch):
    """A way to `sshd` that can be cut for the connections on it (`flows`), and for new ones (`open`)."""
    for name, seconds in {
        "TICK": 0.05,
        "BUSY_SILENCE": 0.2,
        "ANSWER": 1.0,  # which a busy machine keeps, too
        "PATIENCE": 1.0,
        "_PROBE_TIMEOUT": 0.3,
    }.items():
        monkeypatch.setattr(ssh_watch, name, seconds)
    flows, opens = asyncio.Event(), asyncio.Event()
    flows.set()
    opens.set()

    async def carry(reader, writer, gate):
        while data := await reader.read(1 << 16):
            await gate.wait()
            writer.write(data)

    async def travel(reader, writer):
        gate = flows if not travellers else opens
        travellers.append(gate)
        await gate.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", sshd.port)
        try:
            await asyncio.gather(carry(reader, far_writer, gate), carry(far_reader, writer, gate))
        finally:
            far_writer.close()
            with contextlib.suppress(ConnectionError):
                await far_writer.wait_closed()

    travellers = []
    _, port = await service(travel)
    sshd.known_hosts.write_text(f"[127.0.0.1]:{port} {public(sshd.host)}\n")
    sshd.configure(f"Port {port}")
    return flows, opens


async def test_a_connection_that_died_without_a_word_is_noticed(sshd, connect, road):
    """When a new connection gets an answer and the old one none, the old one is given up, and what waits fails."""
    flows, _ = road
    shell = await connect(sshd)
    running = asyncio.create_task(shell.run(["sleep", "60"]))
    await asyncio.wait([running], timeout=0.5)
    assert shell.alive  # a command may well be silent
    flows.clear()
    with pytest.raises(ConnectionFailed, match="lost") as caught:
        await asyncio.wait_for(running, 30)
    assert "while 127.0.0.1 answers others" in caught.value.evidence
    assert not shell.alive


async def test_a_connection_outlives_its_way(sshd, connect, road):
    """While no connection gets through, the old one is kept; when the way is back it carries on."""
    flows, opens = road
    shell = await connect(sshd)
    flows.clear()
    opens.clear()
    running = asyncio.create_task(shell.run(["echo", "well"]))
    await asyncio.wait([running], timeout=2)
    assert shell.alive
    flows.set()
    assert (await asyncio.wait_for(running, 30)).out == "well\n"


async def test_through_a_jump_host(start_sshd, connect, echo):
    """ProxyJump leads through a server with its own key, user and known host; the site sees one connection from it."""
    site, gate = start_sshd(), start_sshd(name="gate")
    site.configure("ProxyJump gate")
    site.config.write_text(site.config.read_text() + gate.config.read_text())
    shell = await connect(site)
    assert (await shell.run(["echo", "well"])).out == "well\n"
    data = os.urandom(1_000_000)
    assert await exchange(shell, echo, data) == data
    assert (gate.connections, site.connections) == (1, 1)


async def test_a_jump_host_that_cannot_reach_the_site_is_named(start_sshd, connect):
    """The error says that it was the jump host that could not connect, and to what."""
    site, gate = start_sshd(), start_sshd(name="gate")
    site.configure("ProxyJump gate", "Port 1")
    site.config.write_text(site.config.read_text() + gate.config.read_text())
    with pytest.raises(ConnectionFailed, match="gate could not connect to 127.0.0.1 port 1"):
        await connect(site)


async def test_a_refused_connection_is_named(sshd, connect):
    """Where no sshd listens, the error says so."""
    sshd.configure("Port 1")
    with pytest.raises(ConnectionFailed, match="127.0.0.1 port 1") as caught:
        await connect(sshd)
    assert "refused" in caught.value.evidence
    assert caught.value.where == "site"


async def test_an_unknown_name_is_named(sshd, connect):
    """A host name without an address is told from a host that does not answer."""
    sshd.configure("HostName no-such-host.invalid")
    with pytest.raises(ConnectionFailed, match=r"no-such-host\.invalid has no address"):
        await connect(sshd)


async def test_silence_is_not_waited_for_for_ever(sshd, connect):
    """A host that accepts connections and says nothing is given up after ConnectTimeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sshd.configure(f"Port {silent.getsockname()[1]}", "ConnectTimeout 1")
        with pytest.raises(ConnectionFailed, match="says nothing"):
            await connect(sshd)


@pytest.mark.parametrize(("greeting", "message"), [(b"HTTP/1.1 400\r\n", "does not speak SSH"), (b"", "ended the")])
async def test_another_service_is_recognised(sshd, connect, service, greeting, message):
    """A port that belongs to something else, or that hangs up at once, is said to be just that."""

    async def greet(reader, writer):
        writer.write(greeting)
        await writer.drain()

    _, port = await service(greet)
    sshd.configure(f"Port {port}")
    with pytest.raises(ConnectionFailed, match=message):
        await connect(sshd)


async def test_old_algorithms_are_refused(start_sshd, connect):
    """A server that offers nothing safe is not talked to."""
    with pytest.raises(ConnectionFailed, match="no algorithm in common"):
        await connect(start_sshd("Ciphers aes128-cbc"))


async def test_a_missing_configuration_is_an_error(tmp_path):
    """A configuration file that was named must exist."""
    with pytest.raises(ConfigError, match="nowhere"):
        await SSHShell.connect("site", ask=User(), config_file=tmp_path / "nowhere")


async def test_nothing_is_left_after_closing(sshd):
    """Closing ends all threads and sockets of the connection."""
    before = set(threading.enumerate())
    shell = await SSHShell.connect("site", ask=User(), config_file=sshd.config)
    await shell.run(["true"])
    _, writer = await shell.dial("127.0.0.1", sshd.port)
    await shell.close()
    writer.close()
    async with asyncio.timeout(30):
        while left := [
            thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("asyncio")
        ]:
            await asyncio.to_thread(left[0].join, 5)


async def test_what_had_not_begun_when_it_was_closed(sshd, connect, monkeypatch):
    """A call that waited for a thread fails with its connection: as if its caller were cancelled, that would go unheard."""
    monkeypatch.setattr(ssh_transport, "_THREADS", 1)
    shell = await connect(sshd)
    busy, held = threading.Event(), threading.Event()
    transport = shell._transport
    first = asyncio.create_task(transport.call(lambda: busy.set() or held.wait(30)))
    await asyncio.to_thread(busy.wait, 30)
    waiting = [shell.run(["true"]), shell.read("/etc/hostname"), shell.dial("127.0.0.1", 9), transport.call(len, "")]
    waiting = [asyncio.create_task(one) for one in waiting]
    given_up = asyncio.create_task(transport.call(len, ""))
    await asyncio.sleep(0)
    given_up.cancel()
    await shell.close()
    held.set()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in ended] == [ConnectionFailed] * 4
    assert await first
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_giving_up_a_connection_leaves_nothing(sshd):
    """Whoever is cancelled while connecting leaves no connection behind."""
    asked = asyncio.Event()

    async def never(prompt):
        asked.set()
        await asyncio.Event().wait()

    sshd.known_hosts.unlink()
    task = asyncio.create_task(SSHShell.connect("site", ask=never, config_file=sshd.config))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_channels_refused_at_once_keep_their_own_reasons(start_sshd, connect):
    """Two refusals at the same time do not get each other's reason, as in paramiko itself."""
    sshd = start_sshd("PermitOpen 127.0.0.1:1")
    transport = (await connect(sshd))._transport

    async def code(port):
        with pytest.raises(paramiko.ChannelException) as caught:
            await transport.open("direct-tcpip", ("127.0.0.1", port))
        return caught.value.code

    assert await asyncio.gather(*(code(1 + n % 2) for n in range(40))) == [2, 1] * 20


async def test_an_open_that_came_too_late_is_closed(sshd, connect, echo):
    """A channel that opens after its asker has gone is closed, not left open at the server."""
    shell = await connect(sshd)
    task = asyncio.create_task(shell.dial(*echo))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    files = shell._files._sftp.channel
    await until(lambda: all(channel.closed for channel in shell._transport._channels.values() if channel is not files))
