"""Test line 5 of "nothing is lost": a login by password and one-time code, asked once for each connection."""

from __future__ import annotations

import base64
import hmac
import struct
import time

import pytest

from tests.lab import faults, files
from tests.lab.lab import NODES, PASSWORD, until
from tests.lab.notebook import Notebook

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(180)]

HEALINGS = 20
QUESTIONS = ["Password:", "Verification code:"]
COUNTER = """%%hpc
import pathlib, time
count = 0
while not (pathlib.Path.home() / "stop").exists():
    print(count, flush=True)
    count += 1
    time.sleep(0.1)
"""


def code(at: float = 0.0) -> str:
    """The one-time code of a moment (RFC 6238: HMAC-SHA-1, 30 s, six digits)."""
    key = base64.b32decode(files.OTP_SECRET)
    digest = hmac.digest(key, struct.pack(">Q", int(at or time.time()) // 30), "sha1")
    start = digest[-1] & 15
    return f"{(int.from_bytes(digest[start : start + 4], 'big') & 0x7FFFFFFF) % 10**6:06}"


class Asked:
    """The questions that a notebook's user is asked, and what he answers."""

    def __init__(self, notebook) -> None:
        self._notebook = notebook
        self.questions: list[str] = []

    def answer(self, *answers: str) -> None:
        """Answer the next questions."""
        for answer in answers:
            message = self._notebook.client.get_stdin_msg(timeout=60)
            assert message["msg_type"] == "input_request"
            assert message["content"]["password"]
            self.questions.append(message["content"]["prompt"])
            self._notebook.client.input(answer)

    @property
    def silent(self) -> bool:
        """Nothing is asked now."""
        return not self._notebook.client.stdin_channel.msg_ready()


@pytest.fixture
def gate(lab):
    """The site behind the server that asks."""
    lab.configure(host="login-otp")
    (lab.login.path("/home/ada/stop")).unlink(missing_ok=True)
    return lab


@pytest.fixture
def notebook(gate):
    """A notebook without a cluster yet."""
    notebook = Notebook(gate)
    yield notebook
    notebook.close()


def connected(lab) -> int:
    """How many connections the server has seen."""
    return lab.login.path("/var/log/sshd-login-otp.log").read_text().count("Connection from")


def lines(cell) -> list[int]:
    """What the counter has printed."""
    return [int(line) for line in cell.text[: cell.text.rfind("\n") + 1].splitlines() if line.isdigit()]


UP = "%hpc up centre --workers-per-node 1 --cores-per-worker 1"


def up(notebook, asked):
    """Start a cluster; the user logs in."""
    cell = notebook.send(UP, allow_stdin=True)
    asked.answer(PASSWORD, code())
    notebook.wait(cell, 120)
    assert cell.reply["status"] == "ok", cell.outputs


def test_one_login_serves_all_healings_and_a_lost_one_is_asked_for_once(gate, notebook, figure):
    """Many healings of the link ask nothing; a lost connection asks once, in the cell that waits, and tries nothing before."""
    asked = Asked(notebook)
    up(notebook, asked)
    counter = notebook.send(COUNTER, allow_stdin=True)
    notebook.hear_until(lambda: lines(counter))
    before, began = connected(gate), time.monotonic()
    pipes = set()
    for _ in range(HEALINGS):
        pipes |= until(lambda known=pipes: faults.pipes(gate, NODES[0]) - known, why="the link has a new pipe")
        with faults.refused(gate, NODES[0]):
            seen = lines(counter)[-1]
        notebook.hear_until(lambda seen=seen: lines(counter)[-1] > seen + 1, 60)
    figure(f"{HEALINGS} healings of the link without a login: {(time.monotonic() - began) / HEALINGS:.2f} s each")
    assert asked.silent
    assert connected(gate) == before

    assert faults.kill_connections(gate)
    until(lambda: not asked.silent, why="the user is asked")
    waiting = connected(gate)
    notebook.hear_until(pause := after(4), 10)
    assert pause()
    assert connected(gate) == waiting  # nobody has answered, so nobody has tried again
    seen = lines(counter)[-1]
    asked.answer(PASSWORD, code(time.time() + 30))  # the next one: no code is good for two logins
    notebook.hear_until(lambda: lines(counter)[-1] > seen, 60)
    gate.login.path("/home/ada/stop").touch()
    notebook.wait(counter, 60)
    assert counter.reply["status"] == "ok", counter.outputs
    assert lines(counter) == list(range(len(lines(counter))))
    assert [question.partition(": ")[2].strip() for question in asked.questions] == QUESTIONS * 2


def after(seconds: float):
    """A condition that holds from some time on."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def test_wrong_codes_end_in_an_error(gate, notebook):
    """Three wrong codes are an error that says what the server said, in Python, too; nothing is tried behind the user's back."""
    asked = Asked(notebook)
    before = connected(gate)
    cell = notebook.send("import hpcnb as hpc\nhpc.Cluster('centre', workers_per_node=1)", allow_stdin=True)
    asked.answer(*[PASSWORD, "000000"] * 3)
    notebook.wait(cell, 120)
    assert cell.error[0] == "AuthenticationFailed", cell.outputs
    assert "login-otp did not let ada in" in cell.error[1]
    notebook.hear_until(after(3), 10)
    assert asked.silent
    assert connected(gate) == before + 1
