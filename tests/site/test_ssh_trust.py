"""Host keys: what we accept is what `ssh -o StrictHostKeyChecking=yes` accepts, and what the user is told."""

from __future__ import annotations

import asyncio
import stat

import pytest

from hpcnb.errors import ConfigError, HostKeyMismatch
from tests.site.sshd import User, certify, fingerprint, hash_names, keygen, public

pytestmark = pytest.mark.site


@pytest.fixture
def write_known_hosts(tmp_path):
    """Fill in the name, the host key, another and one of another type, and give the file to a server's client."""
    keys = {"other": keygen(tmp_path / "other"), "ecdsa": keygen(tmp_path / "ecdsa-other", kind="ecdsa")}

    def write(sshd, text, **more):
        keys.update(host=sshd.host, **more)
        found = {name: public(key) for name, key in keys.items()}
        filled = text.format(name=f"[127.0.0.1]:{sshd.port}", base64=found["host"].split()[1], **found)
        sshd.known_hosts.write_text(f"{filled}\n")

    return write


async def accepts(sshd) -> bool:
    """Whether OpenSSH's own client accepts the server's key."""
    options = ["-F", sshd.config, "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    process = await asyncio.create_subprocess_exec(
        "ssh", *options, sshd.name, "true", stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


SIGNS = {"unknown": "vouched", "changed": "changed", "revoked": "revoked"}


async def ours(connect, sshd) -> str:
    """Our own verdict: ``known``, or the word for why not."""
    try:
        shell = await connect(sshd)
    except HostKeyMismatch as error:
        return next(word for word, sign in SIGNS.items() if sign in error.what)
    await shell.close()
    return "known"


PLAIN = {
    "known": ("{name} {host}", "known"),
    "hashed": ("{name} {host}", "known"),
    "empty": ("", "unknown"),
    "elsewhere": ("example.org {host}", "unknown"),
    "without port": ("127.0.0.1 {host}", "known"),
    "without port, another": ("127.0.0.1 {other}", "unknown"),
    "changed": ("{name} {other}", "changed"),
    "changed, known without port": ("{name} {other}\n127.0.0.1 {host}", "changed"),
    "another type": ("{name} {ecdsa}", "changed"),
    "second line": ("{name} {other}\n{name} {ecdsa}\n{name} {host}", "known"),
    "revoked": ("{name} {host}\n@revoked * {host}", "revoked"),
    "another revoked": ("@revoked * {other}\n{name} {host}", "known"),
    "revoked elsewhere": ("@revoked example.org {host}\n{name} {host}", "known"),
    "wildcard": ("127.0.0.? {host}", "known"),
    "negated": ("*,!127.0.0.1,!{name} {host}", "unknown"),
    "list": ("example.org,{name} {host} comment", "known"),
    "nonsense": (
        "# note\n\nword\n{name} ssh-ed25519 !!!\n{name} ssh-rsa AAAA\n@what * {other}\n  {name} {host}",
        "known",
    ),
    "wrong type named": ("{name} ssh-rsa {base64}", "unknown"),
    "authority for a bare key": ("@cert-authority * {host}", "unknown"),
}


@pytest.mark.parametrize("case", PLAIN)
async def test_the_verdict_on_a_key(shared_sshd, connect, write_known_hosts, case):
    """On every kind of line in known_hosts we say what OpenSSH says."""
    text, expected = PLAIN[case]
    write_known_hosts(shared_sshd, text)
    if case == "hashed":
        hash_names(shared_sshd.known_hosts)
    assert await accepts(shared_sshd) is (expected == "known")
    assert await ours(connect, shared_sshd) == expected


CERTIFIED = {
    "trusted": ("@cert-authority 127.0.0.1 {authority}", ["-n", "127.0.0.1"], "known"),
    "trusted, bare key changed": ("@cert-authority * {authority}\n{name} {other}", ["-n", "127.0.0.1"], "known"),
    "another authority": ("@cert-authority * {other}", ["-n", "127.0.0.1"], "unknown"),
    "another authority, bare key known": ("@cert-authority * {other}\n{name} {host}", ["-n", "127.0.0.1"], "known"),
    "authority revoked": ("@cert-authority * {authority}\n@revoked * {authority}", ["-n", "127.0.0.1"], "revoked"),
    "host key revoked": ("@cert-authority * {authority}\n@revoked * {host}", ["-n", "127.0.0.1"], "revoked"),
    "for another host": ("@cert-authority * {authority}", ["-n", "example.org"], "unknown"),
    "for another host, bare key known": ("@cert-authority * {authority}\n{name} {host}", ["-n", "x"], "known"),
    "expired": ("@cert-authority * {authority}", ["-n", "127.0.0.1", "-V", "-2d:-1d"], "unknown"),
    "not yet valid": ("@cert-authority * {authority}", ["-n", "127.0.0.1", "-V", "+1d:+2d"], "unknown"),
    "authority of others": ("@cert-authority example.org {authority}", ["-n", "127.0.0.1"], "unknown"),
}


@pytest.mark.parametrize("case", CERTIFIED)
async def test_the_verdict_on_a_certificate(start_sshd, connect, write_known_hosts, tmp_path, case):
    """Host certificates are judged as OpenSSH does: one that does not convince leaves the bare key."""
    text, options, expected = CERTIFIED[case]
    authority = keygen(tmp_path / "authority")
    sshd = start_sshd(
        f"HostCertificate {tmp_path}/site/host-cert.pub", prepare=lambda host: certify(authority, host, "-h", *options)
    )
    write_known_hosts(sshd, text, authority=authority)
    assert await accepts(sshd) is (expected == "known")
    assert await ours(connect, sshd) == expected


async def test_first_contact_asks(sshd, connect):
    """An unknown key is shown with host, type and fingerprint as OpenSSH prints it; a yes is remembered."""
    sshd.known_hosts.unlink()
    sshd.configure(f"UserKnownHostsFile {sshd.folder}/new/known_hosts")
    user = User("yes")
    await connect(sshd, user=user)
    (prompt,) = user.prompts
    assert (prompt.kind, prompt.title) == ("confirm", f"{sshd.me}@site")
    assert f"host '[127.0.0.1]:{sshd.port}'" in prompt.text
    assert f"ED25519 key fingerprint is {fingerprint(sshd.host)}." in prompt.text
    remembered = sshd.folder / "new" / "known_hosts"
    assert remembered.read_text() == f"[127.0.0.1]:{sshd.port} {public(sshd.host)}\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (remembered, remembered.parent)] == [0o600, 0o700]
    assert await accepts(sshd)
    await connect(sshd)


async def test_names_are_remembered_hashed_where_the_user_wants(sshd, connect):
    """With HashKnownHosts the name is hidden, and found again, after a last line that was torn too."""
    sshd.configure("HashKnownHosts yes")
    sshd.known_hosts.write_text("# torn")
    await connect(sshd, "yes")
    assert "127.0.0.1" not in sshd.known_hosts.read_text()
    assert await accepts(sshd)
    await connect(sshd)


@pytest.mark.parametrize("answers", [["no"], ["YES please"], [""], []])
async def test_anything_but_yes_is_a_no(sshd, connect, answers):
    """Without the user's word nothing is sent, nothing remembered, and the error tells what to compare."""
    sshd.known_hosts.write_text("")
    with pytest.raises(HostKeyMismatch, match="Nothing was sent") as caught:
        await connect(sshd, *answers)
    assert fingerprint(sshd.host) in caught.value.evidence
    assert caught.value.where == "site"
    assert sshd.known_hosts.read_text() == ""
    assert not any("userauth" in line or "Accepted" in line for line in sshd.lines)


async def test_a_changed_key_is_told_with_its_place(sshd, connect, tmp_path):
    """The error names file and line, both fingerprints and the command that forgets the old key."""
    other = keygen(tmp_path / "other")
    sshd.known_hosts.write_text(f"# two\n[127.0.0.1]:{sshd.port} {public(other)}\n")
    user = User("yes")
    with pytest.raises(HostKeyMismatch) as caught:
        await connect(sshd, user=user)
    error = str(caught.value)
    assert f"{sshd.known_hosts} line 2" in error
    assert fingerprint(other) in error
    assert fingerprint(sshd.host) in error
    command = caught.value.remedy.partition("new: ")[2]
    assert command == f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {sshd.known_hosts}"
    assert user.prompts == []


async def test_a_revoked_key_is_told_with_its_place(sshd, connect):
    """The error names the line that revokes the key."""
    sshd.known_hosts.write_text(sshd.known_hosts.read_text() + f"@revoked * {public(sshd.host)}\n")
    with pytest.raises(HostKeyMismatch, match="revoked") as caught:
        await connect(sshd, "yes")
    assert f"{sshd.known_hosts} line 2" in caught.value.evidence


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_the_key_on_record_is_asked_for(start_sshd, connect, tmp_path, kind):
    """A server with several keys shows the one that is known, so that nobody is asked."""
    keys = [keygen(tmp_path / name, kind=name) for name in ("ecdsa", "rsa")]
    sshd = start_sshd(*(f"HostKey {key}" for key in keys))
    known = sshd.host if kind == "ed25519" else tmp_path / kind
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {public(known)}\n")
    await connect(sshd)


async def test_several_files_count(sshd, connect, tmp_path):
    """The user's files and the machine's are read together: one may know, another revoke."""
    sshd.known_hosts.rename(tmp_path / "global")
    sshd.configure(f"UserKnownHostsFile {tmp_path}/none {tmp_path}/user", f"GlobalKnownHostsFile {tmp_path}/global")
    await connect(sshd)
    (tmp_path / "user").write_text(f"@revoked * {public(sshd.host)}\n")
    with pytest.raises(HostKeyMismatch, match="revoked"):
        await connect(sshd)


async def test_an_alias_stands_for_name_and_port(sshd, connect):
    """HostKeyAlias is looked up, and remembered, as it is."""
    sshd.configure("HostKeyAlias cluster")
    sshd.known_hosts.write_text("")
    await connect(sshd, "yes")
    assert sshd.known_hosts.read_text() == f"cluster {public(sshd.host)}\n"
    assert await accepts(sshd)
    await connect(sshd)


async def test_a_jump_host_is_checked_too(start_sshd, connect, tmp_path):
    """The key of each server on the way must be known, and the error names the one that is not."""
    site, gate = start_sshd(), start_sshd(name="gate")
    site.configure("ProxyJump gate")
    site.config.write_text(site.config.read_text() + gate.config.read_text())
    gate.known_hosts.write_text(f"[127.0.0.1]:{gate.port} {public(keygen(tmp_path / 'other'))}\n")
    with pytest.raises(HostKeyMismatch, match="has changed") as caught:
        await connect(site)
    assert caught.value.where == "gate"
    assert site.connections == 0


async def test_a_file_that_cannot_be_read_is_an_error(sshd, connect):
    """A file of known hosts that is there must be readable: it may revoke the key."""
    sshd.configure(f"UserKnownHostsFile {sshd.known_hosts} {sshd.folder}")
    with pytest.raises(ConfigError, match="cannot be read"):
        await connect(sshd)
