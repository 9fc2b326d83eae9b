"""The OpenSSH configuration: we read it as `ssh -G` does."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcnb.errors import ConfigError
from hpcnb.site.ssh_config import Config

CONFIG = """
# What stands first counts.
IgnoreUnknown UseKeychain
Include {folder}/inner.conf {folder}/more.d/*.conf

Host plain
    HostName plain.example.org
    Port 2222
    User ada
    IdentityFile ~/.ssh/id_%r_%h
    IdentityFile "{folder}/with space"
    IdentitiesOnly yes
    CertificateFile {folder}/one
    CertificateFile {folder}/two
    ConnectTimeout 7
    ServerAliveInterval 1m

Host equals
    HostName=equals.example.org
    User = ada   # with a comment

Host *.tokens !no.tokens
    HostName %h.example.org
    UserKnownHostsFile {folder}/known/%k ~/.ssh/%h_%p
    HostKeyAlias alias-%n

Host outer
    Include {folder}/conditional.conf

Host many a?b [y]
    User many

Match originalhost matched user {me}
    HostName matched.example.org

Match host matched.example.org
    Port 99

Match originalhost ran exec "test %n = ran"
    User ran

Match originalhost never !exec "true"
    User wrong

Match final host final.example.org
    Port 77

Host final
    HostName final.example.org

Host hop
    ProxyJump ada@gate:2200,second

Host none
    ProxyJump none
    IdentityFile none
    UserKnownHostsFile none

UseKeychain yes

Host *
    User last
    IdentityFile {folder}/last
    HashKnownHosts yes
    GlobalKnownHostsFile /etc/one /etc/two
"""

INNER = """
Host plain
    User inner
Host inner
    HostName inner.example.org
"""

CONDITIONAL = """
User conditional
Host plain
    Port 1
Host outer
    Port 2
"""

HOSTS = [
    "plain",
    "equals",
    "some.tokens",
    "no.tokens",
    "outer",
    "many",
    "aXb",
    "matched",
    "ran",
    "never",
    "final",
    "hop",
    "none",
    "unheard.of",
    "ada@plain",
    "MATCHED",
    "Plain",
]


@pytest.fixture
def config(tmp_path):
    """A configuration with everything in it."""
    (tmp_path / "more.d").mkdir()
    (tmp_path / "inner.conf").write_text(INNER)
    (tmp_path / "conditional.conf").write_text(CONDITIONAL)
    (tmp_path / "more.d" / "a.conf").write_text("Host included\n  Port 5\n")
    (tmp_path / "config").write_text(CONFIG.format(folder=tmp_path, me=getpass.getuser()))
    return tmp_path / "config"


def openssh(config: Path, host: str) -> dict[str, list[str]]:
    """What `ssh -G` says: the values of each keyword."""
    done = subprocess.run(["ssh", "-G", "-F", config, host], capture_output=True, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


@pytest.mark.skipif(shutil.which("ssh") is None, reason="apt-get install openssh-client")
@pytest.mark.parametrize("host", [*HOSTS, "included"])
def test_a_host_is_looked_up_as_by_openssh(config, host):
    """Every keyword that we honour has the value that OpenSSH finds."""
    theirs, ours = openssh(config, host), Config(config).lookup(host)
    assert [ours.host.lower()] == theirs["hostname"]
    assert [str(ours.port)] == theirs["port"]
    assert [ours.user] == theirs["user"]
    assert ours.identities_only == (theirs["identitiesonly"] == ["yes"])
    assert ours.hash_known_hosts == (theirs["hashknownhosts"] == ["yes"])
    assert ",".join(ours.jumps) == theirs.get("proxyjump", [""])[0]
    assert ours.key_alias == theirs.get("hostkeyalias", [""])[0].replace("%n", host)
    assert [str(path) for path in ours.certificates] == theirs.get("certificatefile", [])
    assert " ".join(map(str, ours.global_known_hosts)) == theirs["globalknownhostsfile"][0]
    assert ours.connect_timeout == {"none": 20.0}.get(theirs["connecttimeout"][0]) or float(theirs["connecttimeout"][0])


@pytest.mark.skipif(shutil.which("ssh") is None, reason="apt-get install openssh-client")
def test_keys_are_those_of_openssh(config, tmp_path):
    """Identity files come in order, with their tokens filled in."""
    ours = [str(path) for path in Config(config).lookup("plain").identities]
    home = str(Path.home())
    assert ours == [
        f"{home}/.ssh/id_ada_plain.example.org".replace("ada", "inner"),
        f"{tmp_path}/with space",
        f"{tmp_path}/last",
    ]
    assert len(openssh(config, "plain")["identityfile"]) == len(ours)


def test_tokens_are_filled_in(config, tmp_path):
    """Files of known hosts may be named after host, port and alias; `none` is none."""
    found = Config(config).lookup("some.tokens")
    assert found.user_known_hosts == (
        tmp_path / "known" / "alias-some.tokens",
        Path.home() / ".ssh" / "some.tokens.example.org_22",
    )
    assert Config(config).lookup("none").user_known_hosts == ()
    assert Config(config).lookup("none").identities == (tmp_path / "last",)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("host", ("host", 22, None)),
        ("ada@host", ("host", 22, "ada")),
        ("ada@host:2200", ("host", 2200, "ada")),
        ("ada@idp.org@host", ("host", 22, "ada@idp.org")),
        ("[::1]:2200", ("::1", 2200, None)),
        ("ssh://ada@host:2200", ("host", 2200, "ada")),
    ],
)
def test_a_host_may_be_written_with_user_and_port(tmp_path, written, expected):
    """What `ssh` and ProxyJump understand, we do; it wins over the configuration."""
    (tmp_path / "config").write_text("Host *\n  User last\n")
    found = Config(tmp_path / "config").lookup(written)
    assert (found.host, found.port, found.user) == (*expected[:2], expected[2] or "last")


@pytest.mark.parametrize("written", ["", "-oProxyCommand=x", "a:b:c", "host:port", "a@", "ho st:22x"])
def test_what_is_no_host_is_refused(tmp_path, written):
    """An option or nonsense in place of a host is an error of the configuration."""
    (tmp_path / "config").touch()
    with pytest.raises(ConfigError, match="no host name"):
        Config(tmp_path / "config").lookup(written)


def route(tmp_path, text, host):
    (tmp_path / "config").write_text(text)
    return [end.alias for end in Config(tmp_path / "config").route(host)]


def test_the_way_leads_through_jump_hosts(tmp_path):
    """Each jump host may have one of its own before it; of several the first alone is asked for its way."""
    text = "Host site\n ProxyJump a,b\nHost a\n ProxyJump x\nHost b\n ProxyJump y\n"
    assert route(tmp_path, text, "site") == ["x", "a", "b", "site"]


def test_a_jump_host_may_be_covered_by_its_own_rule(tmp_path):
    """`Host *` with a ProxyJump does not send the jump host through itself."""
    assert route(tmp_path, "Host *\n ProxyJump gate\n", "site") == ["gate", "site"]


def test_a_circle_is_an_error(tmp_path):
    """Jump hosts that lead to each other are named."""
    with pytest.raises(ConfigError, match="a → b → a"):
        route(tmp_path, "Host a\n ProxyJump b\nHost b\n ProxyJump a\n", "a")


def test_a_proxy_command_is_an_error_with_its_place(tmp_path):
    """What we cannot do is said, with the line and what to write instead; for other hosts it does not matter."""
    text = "Host site\n ProxyCommand ssh -W %h:%p gate\n"
    with pytest.raises(ConfigError, match=r"config line 2") as caught:
        route(tmp_path, text, "site")
    assert "ProxyJump" in caught.value.remedy
    assert route(tmp_path, text, "other") == ["other"]
    assert route(tmp_path, "Host site\n ProxyCommand none\n", "site") == ["site"]


def test_a_number_that_is_none_is_an_error(tmp_path):
    """A port that is no number is named."""
    with pytest.raises(ConfigError, match="port 'many'"):
        route(tmp_path, "Port many\n", "site")


def test_an_include_without_end_is_an_error(tmp_path):
    """A file that includes itself is named."""
    with pytest.raises(ConfigError, match="too deep"):
        route(tmp_path, f"Include {tmp_path}/config\n", "site")


def test_the_usual_files_are_read(tmp_path, monkeypatch):
    """Without a file the user's own is read, and his usual keys are offered, if he has them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    assert Config().lookup("site").identities == ()
    (tmp_path / ".ssh" / "config").write_text("Host site\n  HostName site.example.org\n")
    (tmp_path / ".ssh" / "id_rsa").touch()
    found = Config().lookup("site")
    assert found.host == "site.example.org"
    assert found.identities == (tmp_path / ".ssh" / "id_rsa",)
    assert found.user_known_hosts[0] == tmp_path / ".ssh" / "known_hosts"
