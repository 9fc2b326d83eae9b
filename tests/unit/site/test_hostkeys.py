"""Known hosts, as logic over text: no line breaks it, and fingerprints are OpenSSH's."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcnb.site.hostkeys import KnownHosts, Verdict, fingerprint, label, parse, record


def key(kind: str = "ssh-ed25519", content: bytes = bytes(32)) -> bytes:
    """A public key as SSH sends it."""
    return struct.pack(">I", len(kind)) + kind.encode() + struct.pack(">I", len(content)) + content


def known(text: str, host: str = "host", port: int = 22) -> KnownHosts:
    return KnownHosts(parse(text, "file"), host, port)


def test_a_fingerprint_is_openssh_s():
    """The fingerprint of a known key is the one that ssh-keygen prints."""
    line = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"  # GitHub's, as it publishes it
    assert fingerprint(base64.b64decode(line)) == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


@pytest.mark.parametrize(
    ("kind", "shown"), [("ssh-ed25519", "ED25519"), ("ssh-rsa", "RSA"), ("ecdsa-sha2-nistp256", "ECDSA")]
)
def test_a_type_is_shown_as_by_openssh(kind, shown):
    """The type of a key is one word."""
    assert label(key(kind)) == shown


@given(st.text())
def test_no_text_breaks_the_reader(text):
    """Whatever is in a file, reading and judging it ends in a verdict."""
    assert known(text).judge(key()).verdict in Verdict


@given(st.binary())
def test_no_certificate_breaks_the_judge(blob):
    """Whatever a server shows as its certificate, an unknown key stays unknown."""
    assert known("@cert-authority * ssh-ed25519 AAAA").judge(key(), blob).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(("host", "port"), [("host", 22), ("Host.Example.ORG", 22), ("host", 2222), ("::1", 22)])
def test_what_is_recorded_is_known(host, port, hashed):
    """A line that we write is found again, in the clear and hashed, and for that name alone."""
    name = known("", host, port).name
    line = record(name, key(), hashed=hashed)
    assert known(line, host, port).judge(key()).verdict is Verdict.KNOWN
    assert known(line, "other", port).judge(key()).verdict is Verdict.UNKNOWN
    assert known(line, host, port).judge(key(content=bytes(31) + b"x")).verdict is Verdict.CHANGED


def test_a_verdict_knows_its_line():
    """A changed key is told with file and line; of several the one of the same type."""
    lines = [record("host", key(kind, b"old"), hashed=False) for kind in ("ssh-rsa", "ssh-ed25519", "ssh-rsa")]
    entry = known("".join(lines)).judge(key()).entry
    assert (entry.file, entry.line) == ("file", 2)


def test_algorithms_on_record_come_first():
    """The server is asked for a key that we know; for a certificate only where an authority is known."""
    offered = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
    assert known("").algorithms(offered) == offered
    line = record("host", key("ssh-rsa"), hashed=False)
    assert known(line).algorithms(offered) == (*offered[2:], *offered[:2])
    certified = known(f"@cert-authority {line}").algorithms(offered)
    assert certified == (*(f"{name}-cert-v01@openssh.com" for name in offered), *offered)
