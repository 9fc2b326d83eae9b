"""The lab itself: who reaches whom, and that each fault is one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.lab import faults, files
from tests.lab.lab import ADA, MALLORY, NB, NODES, PROJECT, until

pytestmark = [pytest.mark.site, pytest.mark.slow]

# In the shell of the laptop, so that nothing but the network is tried.
CONNECT = 'exec 3<>/dev/tcp/{}/{} && read -t {} -r line <&3 && echo "$line"'


def banner(host, address, port=22, *, within=20):
    """What the server at an address says first; None if it cannot be reached."""
    with contextlib.suppress(RuntimeError):
        return host.run("timeout", str(within), "bash", "-c", CONNECT.format(address, port, within), user=NB)
    return None


def answers(lab, **limits):
    """Whether the login node can be reached."""
    return banner(lab.laptop, "login", **limits) is not None


def test_only_port_22_of_the_login_node_can_be_reached(lab):
    """The laptop has a route to everything, but the firewall lets it to the login node's sshd alone."""
    for face in files.FACES:
        assert banner(lab.laptop, face).startswith("SSH-2.0")
    assert banner(lab.login, "node1", 6818, within=1) is None  # open, but it says nothing
    lab.login.run("bash", "-c", "exec 3<>/dev/tcp/node1/6818")
    for address, port in (("login", 6817), (f"{files.INNER}.1", 6817), ("node1", 6818), (f"{files.INNER}.12", 6818)):
        with pytest.raises(RuntimeError, match="exit status 124"):
            lab.laptop.run("timeout", "0.3", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}")


def test_hosts_have_things_of_their_own(lab):
    """Processes, temporary files and names are a host's own; the homes are the site's, and the laptop has others."""
    assert sorted(lab.slurm("srun", "-N2", "hostname").split()) == [*NODES]
    lab.slurm("srun", "-w", "node1", "sh", "-c", "echo 1 >/tmp/here; echo 2 >~/there")
    assert lab.slurm("srun", "-w", "node2", "sh", "-c", "cat ~/there; ls /tmp").split()[0] == "2"
    assert "here" not in lab.slurm("srun", "-w", "node2", "ls", "/tmp")
    assert lab.laptop.run("ls", "/home").split() == ["nb"]
    assert lab.laptop.named("slurm") == []
    with pytest.raises(RuntimeError):
        lab.laptop.run("sinfo", user=NB)
    with pytest.raises(RuntimeError):  # hpcnb is shipped there, not installed
        lab.login.run(sys.executable, "-c", "import hpcnb", user=ADA)


def test_two_users(lab):
    """One user can neither read the other's files nor cancel the other's jobs."""
    with pytest.raises(RuntimeError, match="Permission denied"):
        lab.login.run("ls", ADA.home, user=MALLORY)
    job = lab.slurm("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 60")
    with pytest.raises(RuntimeError, match="Access/permission denied"):
        lab.slurm("scancel", job, user=MALLORY)
    lab.slurm("scancel", job)


@pytest.mark.parametrize("fault", [faults.cut, faults.unplugged, faults.without_sshd])
def test_a_path_that_is_gone_and_comes_back(lab, fault):
    """A black hole, a pulled plug and a server that is away: nothing gets through, and afterwards all does."""
    with fault(lab):
        assert not answers(lab, within=1)
    assert answers(lab)
    for face in files.FACES:  # and whoever was not meant is as before
        assert banner(lab.laptop, face).startswith("SSH-2.0")


def test_a_black_hole_keeps_what_is_in_flight(lab):
    """A connection that is older than a cut goes on after it: TCP sends again what was lost."""
    command = ("ssh", "login", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done")
    with lab.laptop.start(*command, user=NB) as ssh:
        assert ssh.stdout.readline() == "1\n"
        with faults.cut(lab):
            time.sleep(0.5)  # the length of the cut
        assert ssh.communicate(timeout=20)[0] == "2\n3\n4\n5\n6\n7\n8\n"


@pytest.mark.alone
def test_a_narrow_path(lab):
    """The bandwidth is what was said, and no more."""
    with faults.narrow(lab, kbit=4000):
        began = time.monotonic()
        lab.laptop.run("ssh", "login", "head -c 1000000 /dev/zero", user=NB)
        assert time.monotonic() - began > 1.5
    with lab.laptop.start("ssh", "login", "head -c 1000000 /dev/zero", user=NB) as ssh:
        ssh.stdout.read(1)  # logging in takes its time on a busy machine
        began = time.monotonic()
        assert len(ssh.stdout.read()) == 999_999
        assert time.monotonic() - began < 1.5


@pytest.mark.alone
def test_a_slow_and_a_lossy_path(lab):
    """A delay is paid each way; with a tenth of the packets lost everything still comes through, later."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("the slow wire is a tun device, which this kernel has not")
    program = (
        "import socket, time\ndef trip():\n    began = time.perf_counter()\n"
        "    with socket.create_connection(('login', 22)) as s:\n        took = time.perf_counter() - began\n"
        "        assert s.recv(9).startswith(b'SSH')\n    return took\nprint(min(trip() for _ in range(3)))"
    )
    with faults.slow(lab, delay=0.1, jitter=0.02):
        trip = float(lab.laptop.run(sys.executable, "-c", program, user=NB))
        assert 0.2 <= trip < 0.4
    with faults.slow(lab, loss=0.1):
        assert len(lab.laptop.run("ssh", "login", "head -c 300000 /dev/zero", user=NB)) == 300_000
    assert float(lab.laptop.run(sys.executable, "-c", program, user=NB)) < 0.1


def test_connections_that_are_killed(lab):
    """The processes that serve connections die, the server lives."""
    until(lambda: not faults.connections(lab), why="what other tests connected is gone")
    with lab.laptop.start("ssh", "login", "echo in; sleep 60", user=NB) as ssh:
        assert ssh.stdout.readline() == "in\n"
        assert faults.kill_connections(lab) == 2
        assert ssh.wait(10) == 255
    assert answers(lab)


def test_slurm_away_and_hanging(lab):
    """Slurm's controller can be ended, and started again with its jobs; and it can hang."""
    job = lab.slurm("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 60")
    with faults.without_slurmctld(lab):
        assert faults.controllers(lab) == []
    assert lab.jobs() == [job]
    with faults.suspended(faults.controllers(lab)), pytest.raises(RuntimeError, match="exit status 124"):
        lab.slurm("timeout", "0.5", "squeue")
    assert lab.jobs() == [job]


def test_a_node_without_power(lab):
    """All of a node dies at once; switched on again, it takes jobs."""
    lab.hosts["node2"].power_off()
    lab.boot_node("node2")
    assert lab.slurm("srun", "-w", "node2", "hostname") == "node2"


def test_a_lab_ends_with_its_owner(lab, tmp_path):
    """When the owner is killed, every host ends; the next lab removes the files."""
    program = "import time, tests.lab.lab as l\nwith l.Lab() as lab: print(lab.folder, *(h.pid for h in lab.hosts.values()), flush=True); time.sleep(600)"
    environ = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, text=True) as owner:
        folder, *pids = owner.stdout.readline().split()
        there = [psutil.Process(int(pid)) for pid in pids]
        assert len(there) == 4
        owner.kill()
    psutil.wait_procs(there, timeout=10)
    until(lambda: not any(process.is_running() for process in there))
    assert Path(folder).exists()
    with type(lab)():
        assert not Path(folder).exists()
    assert answers(lab)


def test_a_person_may_enter(lab):
    """`make lab-shell` gives a shell on the laptop, from where the site can be used, and says how to reach the rest."""
    program = [sys.executable, "-m", "tests.lab.shell"]
    typed = "hostname; hpcnb sites; ssh login hostname; exit 7\n"
    done = subprocess.run(program, cwd=PROJECT, input=typed, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (7, "")
    for text in ("nsenter --target=", "# node2", "nb@laptop:~$", "* centre: slurm on login\n", "\nlogin\n"):
        assert text in done.stdout
