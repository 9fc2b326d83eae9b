"""Which processes belong to a sandbox, and how they end."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcnb.errors import SiteError
from hpcnb.sandbox import processes
from hpcnb.sandbox.plan import Paths
from hpcnb.sandbox.processes import Process

BOX = Paths(Path("/srv/box"))
OURS = {"SLURM_CONF": "/srv/box/etc/slurm.conf"}
SSHD = Process(
    pid=50, ppid=1, started=1, name="sshd", command="sshd: /usr/sbin/sshd -f /srv/box/etc/sshd_config [listener]"
)


def owned(*table, port=20004, servers=()):
    return {process.pid for process in processes.owned(table, BOX, port=port, servers=servers)}


def process(pid, name, *, ppid=1, command="", **environ):
    return Process(pid=pid, ppid=ppid, started=1, name=name, command=command, environ=environ)


@pytest.mark.parametrize("name", ["munged", "slurmctld", "slurmscriptd", "slurmd", "slurmstepd"])
def test_daemons_are_known_by_their_configuration(name):
    """Each daemon of this sandbox is ours, one of another or of the system is not."""
    other = process(3, name, SLURM_CONF="/srv/box2/etc/slurm.conf")
    assert owned(process(2, name, **OURS), other, process(4, name)) == {2}


def test_sshd_and_its_sessions_are_ours():
    """Sshd hides its environment, so it is known by its command line, and what it starts by its parent."""
    session = process(51, "sshd", ppid=50, command="sshd: ada@notty")
    child = process(52, "sleep", ppid=51)
    stranger = process(60, "sshd", command="sshd: /usr/sbin/sshd -D [listener]")
    editor = process(61, "vi", command="vi /srv/box/etc/sshd_config")
    assert owned(SSHD, session, child, stranger, editor) == {50, 51, 52}


def test_session_of_a_killed_sshd_is_known_by_its_connection():
    """Without its parent, a session is found by the port that it serves."""
    assert owned(process(51, "sshd"), process(52, "sh", ppid=51), servers={51}) == {51, 52}


def test_what_left_its_session_is_ours():
    """A process that detached itself from an ssh session is known by the connection in its environment."""
    detached = process(70, "sleep", SSH_CONNECTION="127.0.0.1 5 127.0.0.1 20004", **OURS)
    elsewhere = process(71, "bash", SSH_CONNECTION="192.0.2.1 5 192.0.2.2 22", **OURS)
    assert owned(detached, elsewhere) == {70}
    assert owned(detached, port=None) == set()


def test_what_escaped_its_job_is_ours():
    """A process of a job is known by the node that Slurm gave it, wherever its parent went."""
    assert owned(process(80, "python", SLURMD_NODENAME="n1", **OURS)) == {80}


def test_shell_with_the_variable_is_not_ours():
    """A user who has set SLURM_CONF to look at the queue keeps his shell, and what he runs in it."""
    assert owned(process(90, "bash", **OURS), process(91, "squeue", ppid=90, **OURS)) == set()


def test_who_asks_is_spared():
    """A program that ends the sandbox from inside of it does not end itself."""
    me = process(os.getpid(), "python", ppid=51)
    session = process(51, "sshd", ppid=50)
    assert owned(SSHD, session, me, process(53, "sleep", ppid=50)) == {53}


def test_table_shows_a_child():
    """What /proc says of a process, name with parentheses and all, arrives here."""
    code = "import sys; open('/proc/self/comm', 'w').write(') (x'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"KEY": "a=b"}
    ) as child:
        child.stdout.readline()
        found = next(process for process in processes.table() if process.pid == child.pid)
        assert (found.name, found.ppid, found.environ["KEY"]) == (") (x", os.getpid(), "a=b")
        assert found.command.startswith(f"{sys.executable} -c import sys")
        child.stdin.close()


@pytest.fixture
def stubborn():
    """A process that does not heed SIGTERM."""
    code = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        yield child
        child.kill()


def find(child):
    return [process for process in processes.table() if process.pid == child.pid]


def test_the_stubborn_are_killed(stubborn):
    """Who does not end when asked is ended, and a zombie counts as gone."""
    processes.end(lambda: find(stubborn), patience=0.2)
    assert find(stubborn) == []
    assert stubborn.wait(5) == -9


def test_another_process_of_the_same_number_is_spared(stubborn):
    """A process that started at another time is not the one that was meant."""
    [found] = find(stubborn)
    earlier = dataclasses.replace(found, started=found.started - 1)
    assert processes.is_alive(found)
    assert not processes.is_alive(earlier)
    looks = iter([[earlier], [earlier], []])
    processes.end(lambda: next(looks), patience=0.2)
    assert stubborn.poll() is None


def test_what_cannot_be_ended_is_named():
    """An error names the processes that stay."""
    ghost = process(2**22 + 1, "ghost")
    with pytest.raises(SiteError, match="do not end") as error:
        processes.end(lambda: [ghost], patience=0.05)
    assert error.value.evidence == f"{ghost.pid} (ghost)"
