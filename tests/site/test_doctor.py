"""The examination of a real site: Slurm and sshd as a newcomer meets them, whole and in the ways in which they are broken."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

import hpcnb as hpc
from hpcnb import handle
from hpcnb.sandbox import Sandbox
from hpcnb.site.finding import Verdict
from tests.site.account import jobs, slurm, until
from tests.site.sshd import Sshd, User, public

pytestmark = [pytest.mark.site, pytest.mark.slow]

OK, NOTE, FAILED, SKIPPED = Verdict


class Centre:
    """A Slurm behind login nodes that a test configures."""

    def __init__(self, sandbox, account, start_sshd) -> None:
        self.sandbox, self.account, self._start = sandbox, account, start_sshd
        self.home = account.folder / "home"

    def login_node(self, *options: str, **entry: object) -> Sshd:
        """Start one, and make it the site ``octopus``."""
        variables = f"HOME={self.account.folder} SLURM_CONF={self.sandbox.slurm_env['SLURM_CONF']}"
        sshd = self._start(*options, f"SetEnv {variables}")
        known = self.sandbox.site_entry() | {"host": sshd.name, "ssh-config": str(sshd.config), "home": str(self.home)}
        self.account.sites(octopus=known | entry)
        return sshd

    def examined(self) -> hpc.report.Report:
        """What is found out about it, by an agent without a connection."""
        self.account.stop_agent()
        return hpc.doctor("octopus")


@pytest.fixture
def centre(sandbox: Sandbox, account, start_sshd):
    """A site whose login node is yet to be started; in the end nobody is connected to it."""
    yield Centre(sandbox, account, start_sshd)
    account.stop_agent()


def by_name(report):
    """Its findings."""
    return {finding.name: finding for finding in report.findings}


def test_a_site_that_will_do(centre):
    """Each thing is found well, with figures; no job was submitted, and what stays is what a cluster leaves."""
    centre.login_node()
    report = centre.examined()
    found = by_name(report)
    assert report.ok
    assert {name: one.verdict for name, one in found.items() if one.verdict is not OK} == {}, repr(report)
    assert [*found] == [
        *("entry", "login", "login shell", "Python", "clock", "home", "batch system", "default job", "routes")
    ]
    assert "as here" in found["Python"].text
    assert found["batch system"].text.startswith("Slurm ")
    assert "main (2 nodes" in found["batch system"].text
    assert "1 node for 1h" in found["default job"].text
    assert str(centre.home) in found["home"].text
    assert jobs(centre.sandbox) == []
    assert [path.name for path in centre.home.iterdir()] == ["code"]
    again = by_name(hpc.doctor("octopus"))
    assert again["login"].text == "connected already, by an earlier command"


def test_the_command_shows_it(centre):
    """The terminal's lines and their end, and the exit status of what can be used."""
    centre.login_node()
    said = centre.account.run("doctor", "octopus")
    assert (said.status, said.err) == (0, ""), said.out
    assert said.out.splitlines()[-1] == "octopus is ready: `hpcnb up octopus` starts a cluster"


def test_a_default_job_that_can_never_start(centre):
    """Slurm's words, and what there is instead; the rest is well."""
    centre.login_node(partition="gpuu")
    found = by_name(centre.examined())
    assert found["default job"].verdict is FAILED
    assert "invalid partition" in found["default job"].text.lower()
    assert "Partitions there: main (2 nodes" in found["default job"].remedy
    assert {one.verdict for name, one in found.items() if name != "default job"} == {OK}
    assert jobs(centre.sandbox) == []


def test_a_job_that_has_to_wait(centre):
    """When it would start, by Slurm's estimate."""
    held = [
        "sbatch",
        "--parsable",
        "--nodes=2",
        "--exclusive",
        "--time=30",
        "--output=/dev/null",
        "--wrap",
        "sleep 600",
    ]
    environ = os.environ | centre.sandbox.slurm_env
    job = subprocess.run(held, env=environ, cwd="/", capture_output=True, text=True, check=True).stdout.strip()
    try:
        until(lambda: slurm(centre.sandbox, "squeue", "--noheader", "--format=%T", f"--jobs={job}") == "RUNNING")
        centre.login_node(nodes=2)
        text = by_name(centre.examined())["default job"].text
    finally:
        subprocess.run(["scancel", job], env=environ, check=True)
    assert text.startswith("2 nodes for 1h in main would start about "), text
    assert text.endswith(("in 29m", "in 30m")), text


def test_without_forwarding_there_is_a_relay(centre):
    """It is a note: a cluster is reached all the same."""
    centre.login_node("AllowTcpForwarding no")
    report = centre.examined()
    found = by_name(report)["routes"]
    assert report.ok
    assert (found.verdict, "forbids TCP forwarding" in found.text, "(exec)" in found.text) == (NOTE, True, True)


def test_one_session_alone(centre):
    """A server that allows no second session leaves forwarding."""
    centre.login_node("MaxSessions 1")
    found = by_name(centre.examined())
    assert found["routes"].verdict is NOTE
    assert "MaxSessions" in found["routes"].text
    assert {one.verdict for name, one in found.items() if name != "routes"} == {OK}


def test_a_forced_route_that_is_forbidden(centre):
    """`up` would fail, so it has failed."""
    centre.login_node("AllowTcpForwarding no", link="direct")
    found = by_name(centre.examined())["routes"]
    assert (found.verdict, "link: direct needs it" in found.text) == (FAILED, True)
    assert found.remedy.startswith("Leave link: out")


def test_a_login_shell_that_talks(centre):
    """What it prints is shown; everything else works all the same."""
    centre.login_node()
    start = centre.account.folder / ".bashrc"
    start.write_text("echo Welcome to octopus; echo Careful >&2\n")
    try:
        found = by_name(centre.examined())
    finally:
        start.unlink()
    assert found["login shell"].verdict is NOTE
    assert sorted(found["login shell"].evidence.splitlines()) == ["Careful", "Welcome to octopus"]
    assert {one.verdict for name, one in found.items() if name != "login shell"} == {OK}


def test_files_without_sftp(centre):
    """The home has failed, and what needs no files has not."""
    centre.login_node("Subsystem sftp /nonexistent")
    found = by_name(centre.examined())
    assert found["home"].verdict is FAILED
    assert "SFTP" in found["home"].text
    assert found["default job"].verdict is OK


def test_a_changed_host_key(centre):
    """Nothing is sent to it, and everything after the login is skipped."""
    sshd = centre.login_node()
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {public(sshd.user)}\n")
    report = centre.examined()
    entry, login, *others = report.findings
    assert (entry.verdict, login.verdict) == (OK, FAILED)
    assert "has changed" in login.text
    assert "ssh-keygen -R" in login.remedy
    assert {one.verdict for one in others} == {SKIPPED}
    assert not report.ok


def test_a_key_that_is_not_let_in(centre):
    """Without anybody to ask, the login says what it has tried; the exit status tells scripts."""
    sshd = centre.login_node()
    sshd.authorize("")
    said = centre.account.run("doctor", "octopus", "--json")
    found = json.loads(said.out)
    assert said.status == 1
    assert (found[1]["name"], found[1]["verdict"], bool(found[1]["remedy"])) == ("login", "failed", True)


def test_what_a_login_asks_is_asked_here(centre, monkeypatch):
    """At first contact the user vouches for the host key, and it is on record from then on."""
    sshd = centre.login_node()
    sshd.known_hosts.write_text("")
    user = User("yes")
    centre.account.stop_agent()
    monkeypatch.setattr(handle, "_asker", user)
    report = hpc.doctor("octopus")
    assert report.ok, repr(report)
    assert ["authenticity" in prompt.text for prompt in user.prompts] == [True]
    assert sshd.known_hosts.read_text()


def test_a_login_node_that_is_silent(centre):
    """It is not waited for without an end, and what it has not said is the evidence."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sshd = centre.login_node(connect_timeout=2)
        sshd.configure(f"Port {silent.getsockname()[1]}")
        _, login, *others = centre.examined().findings
    assert (login.verdict, "says nothing" in login.text) == (FAILED, True)
    assert login.seconds < 10
    assert {one.verdict for one in others} == {SKIPPED}


def test_interrupted_in_the_middle(centre):
    """Ctrl-C while a command hangs at the site ends it here at once, and there as well."""
    mark = Path(centre.account.folder, "hangs")
    centre.login_node(setup=[f"echo $$ > {mark}; exec sleep 600"])
    looking = centre.account.start("doctor", "octopus")
    until(lambda: mark.exists() and mark.read_text().strip())
    pid = int(mark.read_text())
    assert [looking.stdout.readline()[0] for _ in range(3)] == ["✓"] * 3  # shown while the next one hangs
    looking.send_signal(signal.SIGINT)
    out, err = looking.communicate(timeout=20)
    assert looking.returncode == 130, err
    assert out == ""
    until(lambda: not Path(f"/proc/{pid}").exists())
