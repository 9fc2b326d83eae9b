"""The relay: a process of its own, spoken to as the agent and the pilot do."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import hpcnb
from hpcnb.pilot.route import relay
from tests.isolation import DEADLINE

ROOT = Path(hpcnb.__file__).parents[1]


class Relay:
    """One relay, as it is started at a site."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-m", "hpcnb.pilot.route.relay", *arguments],
            env={"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def says(self):
        """The line before the bytes."""
        assert self.process.stdout.readline() == b"\n"
        line = self.process.stdout.readline()
        assert line.startswith(relay.SAYS)
        return line.removeprefix(relay.SAYS).decode().strip()

    def word(self, folder):
        """What it leaves for the pilot."""
        with contextlib.suppress(StopIteration):
            while self.process.poll() is None:
                if found := [path for path in folder.iterdir() if path.suffix == ".json" and path.name[0] != "."]:
                    return found[0], json.loads(found[0].read_text())
        pytest.fail(self.process.stderr.read().decode())


@pytest.fixture
def start():
    with contextlib.ExitStack() as running:

        def start(*arguments):
            started = Relay(*arguments)
            running.enter_context(started.process)
            running.callback(started.process.kill)
            return started

        yield start


@pytest.fixture
def gateway():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        yield server


def come(word, token=None):
    """Connect to a relay as the pilot does, with its token or another."""
    sock = socket.create_connection(("127.0.0.1", word["port"]), DEADLINE)
    sock.sendall(bytes.fromhex(word["token"]) if token is None else token)
    return sock


def exchange(started, peer):
    """Send something each way, at the same time, and compare."""
    there, back = os.urandom(3_000_000), os.urandom(3_000_000)
    with contextlib.ExitStack() as threads:
        for send, data in ((peer.sendall, back), (lambda data: write(started.process.stdin, data), there)):
            threads.callback((thread := threading.Thread(target=send, args=(data,))).join)
            thread.start()
        came = b""
        while len(came) < len(there):
            came += peer.recv(1 << 20)
        got = b""
        while len(got) < len(back):
            got += started.process.stdout.read(1 << 20)
    assert (came, got) == (there, back)


def write(file, data):
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def test_bytes_are_carried_both_ways(start, gateway):
    """After one line all that comes at one side leaves at the other, and when stdin ends so does the relay."""
    started = start("connect", *map(str, gateway.getsockname()))
    peer, _ = gateway.accept()
    assert started.says() == relay.CONNECTED
    with peer:
        exchange(started, peer)
        started.process.stdin.close()
        assert peer.recv(1) == b""
    assert started.process.wait(DEADLINE) == 0


def test_the_end_of_the_gateway_is_the_end(start, gateway):
    """What the gateway said last arrives before the end."""
    started = start("connect", *map(str, gateway.getsockname()))
    peer, _ = gateway.accept()
    assert started.says() == relay.CONNECTED
    peer.sendall(b"last")
    peer.close()
    assert started.process.stdout.read() == b"last"
    assert started.process.wait(DEADLINE) == 0


def test_what_cannot_be_reached_is_told(start):
    """The one line names the address and the reason."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        started = start("connect", "127.0.0.1", str(port))
        assert started.says() == f"connect 127.0.0.1 {port}: [Errno 111] Connection refused"
    assert started.process.wait(DEADLINE) == 1


def test_the_pilot_comes_with_its_token(start, tmp_path):
    """The word is private and names host, port and token; who shows it is connected, and it is good for once."""
    started = start("listen", str(tmp_path), "127.0.0.1")
    path, word = started.word(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (word["hosts"][0], len(bytes.fromhex(word["token"]))) == ("127.0.0.1", relay.TOKEN_SIZE)
    with come(word) as peer:
        assert started.says() == relay.CONNECTED
        assert list(tmp_path.iterdir()) == []
        exchange(started, peer)
        with pytest.raises(ConnectionRefusedError):
            come(word)


def test_a_stranger_is_let_go_and_holds_nobody_up(start, tmp_path):
    """A wrong token, half a token, silence, and more silent connections than are kept: the pilot gets in all the same."""
    started = start("listen", str(tmp_path), "127.0.0.1")
    _, word = started.word(tmp_path)
    with contextlib.ExitStack() as strangers:
        wrong = strangers.enter_context(come(word, os.urandom(relay.TOKEN_SIZE)))
        assert wrong.recv(1) == b""
        half = strangers.enter_context(come(word, bytes.fromhex(word["token"])[:16]))
        first = strangers.enter_context(come(word, b""))
        crowd = [strangers.enter_context(come(word, b"")) for _ in range(200)]
        with come(word) as peer:
            assert started.says() == relay.CONNECTED
            for stranger in (half, first, *crowd):
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(1) == b""
            exchange(started, peer)


def test_a_relay_that_nobody_waits_for_ends(start, tmp_path):
    """When stdin ends before the pilot has come, the word is taken back."""
    started = start("listen", str(tmp_path), "127.0.0.1")
    started.word(tmp_path)
    started.process.stdin.close()
    assert "nobody waits" in started.says()
    assert started.process.wait(DEADLINE) == 1
    assert list(tmp_path.iterdir()) == []
