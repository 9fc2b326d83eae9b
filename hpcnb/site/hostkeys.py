"""Strict ``known_hosts``: which keys a login node may show, by the rules of OpenSSH.

Pure logic over the text of the files; `ssh_trust` reads them and talks to the user.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    SSHCertPublicKeyTypes,
    load_ssh_public_identity,
)

from hpcnb.site.patterns import any_fits

CERTIFIED = "-cert-v01@openssh.com"
"""Ends the name of an algorithm whose key comes in a certificate."""

_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"
_PORT = 22
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
_WEAK = b"\0\0\0\x07ssh-rsa"
"""How a signature by RSA with SHA-1 begins."""


class Verdict(enum.Enum):
    """What the files say of a key that a host shows."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a file.

    Parameters
    ----------
    file, line : str, int
        Where it stands.
    marker : str
        ``""``, ``"@revoked"`` or ``"@cert-authority"``.
    hosts : str
        Patterns separated by commas, or one hashed name.
    key : bytes
        The public key as SSH sends it.
    """

    file: str
    line: int
    marker: str
    hosts: str
    key: bytes

    def covers(self, name: str) -> bool:
        """Whether the line speaks of a host, whose name is in lower case."""
        if not self.hosts.startswith("|"):
            return any_fits(name, self.hosts.lower().split(","))
        salt, _, digest = self.hosts.removeprefix("|1|").partition("|")
        try:
            return hmac.compare_digest(_digest(base64.b64decode(salt), name), base64.b64decode(digest))
        except ValueError:
            return False


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, the line that led to it, and what was wrong with the host's certificate."""

    verdict: Verdict
    entry: Entry | None = None
    flaw: str = ""


def parse(text: str, file: str) -> Iterator[Entry]:
    """Read the lines of a file; one that makes no sense is passed over, as OpenSSH does."""
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or marker not in {"", _REVOKED, _AUTHORITY}:
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except ValueError:
            continue
        if kind(key) == fields[1]:
            yield Entry(file=file, line=number, marker=marker, hosts=fields[0], key=key)


class KnownHosts:
    """What a set of files says of one host.

    Parameters
    ----------
    entries : iterable of Entry
    host : str
        The name, or its alias (which stands for name and port: leave `port` alone).
    port : int
        Other than 22 it is part of the name: ``[host]:port``.
    """

    def __init__(self, entries: Iterable[Entry], host: str, port: int = _PORT) -> None:
        self.host = host.lower()
        self.name = self.host if port == _PORT else f"[{self.host}]:{port}"
        entries = tuple(entries)
        self._entries = {name: [entry for entry in entries if entry.covers(name)] for name in (self.name, self.host)}

    def judge(self, key: bytes, certificate: bytes = b"") -> Judgement:
        """Judge the key that the host showed, and the certificate that it came in.

        A certificate that does not convince is no reproach: then the bare key is judged.
        """
        judgement = self._judge(self._entries[self.name], key, certificate)
        if judgement.verdict is Verdict.UNKNOWN and self.name != self.host:
            # OpenSSH asks again without the port, and takes no answer but these two.
            plain = self._judge(self._entries[self.host], key, certificate)
            if plain.verdict in {Verdict.KNOWN, Verdict.REVOKED}:
                return plain
        return judgement

    def _judge(self, entries: list[Entry], key: bytes, blob: bytes) -> Judgement:
        certificate = read_certificate(blob) if blob else None
        authority = encoded(certificate.signature_key()) if certificate else b""
        for entry in entries:
            if entry.marker == _REVOKED and entry.key in {key, authority}:
                return Judgement(verdict=Verdict.REVOKED, entry=entry)
        flaw = ""
        for entry in entries:
            if certificate and entry.marker == _AUTHORITY and entry.key == authority:
                flaw = _flaw(certificate, blob, self.host)
                if not flaw:
                    return Judgement(verdict=Verdict.KNOWN, entry=entry)
        return _judge_bare(key, entries, flaw)

    def algorithms(self, offered: Sequence[str]) -> tuple[str, ...]:
        """Order host key algorithms so that the host shows a key on record, if it has one."""
        entries = [entry for found in self._entries.values() for entry in found]
        known = {name for entry in entries if not entry.marker for name in _algorithms(entry.key)}
        certified = any(entry.marker == _AUTHORITY for entry in entries)
        first = [f"{name}{CERTIFIED}" for name in offered] if certified else []
        return (*first, *sorted(offered, key=lambda name: name not in known))


def kind(key: bytes) -> str:
    """The type that a public key names itself, such as ``ssh-ed25519``."""
    return key[4 : 4 + int.from_bytes(key[:4], "big")].decode("ascii", "replace")


def label(key: bytes) -> str:
    """The type of a public key in one word, as OpenSSH shows it."""
    return kind(key).removeprefix("ssh-").partition("-")[0].upper()


def fingerprint(key: bytes) -> str:
    """The fingerprint of a public key, as OpenSSH shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def record(name: str, key: bytes, *, hashed: bool) -> str:
    """The line by which a key becomes known."""
    if hashed:
        salt = secrets.token_bytes(20)
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(_digest(salt, name)).decode()}"
    return f"{name} {kind(key)} {base64.b64encode(key).decode()}\n"


def _digest(salt: bytes, name: str) -> bytes:
    return hmac.digest(salt, name.encode(), "sha1")  # the format's choice; it hides names, it protects nothing


def _algorithms(key: bytes) -> tuple[str, ...]:
    return _SIGNATURES.get(kind(key), (kind(key),))


def _judge_bare(key: bytes, entries: list[Entry], flaw: str) -> Judgement:
    other: Entry | None = None
    for entry in (entry for entry in entries if not entry.marker):
        if entry.key == key:
            return Judgement(verdict=Verdict.KNOWN, entry=entry, flaw=flaw)
        if other is None or kind(entry.key) == kind(key):
            other = entry
    # A key of another type counts as a change too: an attacker chooses the type.
    return Judgement(verdict=Verdict.CHANGED if other else Verdict.UNKNOWN, entry=other, flaw=flaw)


def read_certificate(blob: bytes) -> SSHCertificate | None:
    """A certificate as SSH sends it; None: it is none."""
    try:
        found = load_ssh_public_identity(f"{kind(blob)} {base64.b64encode(blob).decode()}".encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return found if isinstance(found, SSHCertificate) else None


def encoded(key: SSHCertPublicKeyTypes) -> bytes:
    """A public key as SSH sends it."""
    return base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])


def _flaw(certificate: SSHCertificate, blob: bytes, host: str) -> str:
    """Why a host certificate by an authority we trust does not convince; empty when it does."""
    if not _signed(certificate, blob):
        return "its signature is wrong, or made with SHA-1"
    if certificate.type is not SSHCertificateType.HOST:
        return "it is not for a host"
    if not certificate.valid_after <= time.time() < certificate.valid_before:
        return "it is expired, or not valid yet; compare the clocks"
    if certificate.critical_options:
        return "it has an option that we do not know"
    # No name at all means every name to older OpenSSH; to newer ones, and to us, it means none.
    if host.encode() not in certificate.valid_principals:
        return f"it is not for {host}"
    return ""


def _signed(certificate: SSHCertificate, blob: bytes) -> bool:
    key = certificate.signature_key()
    if isinstance(key, RSAPublicKey):
        size = (key.key_size + 7) // 8
        if blob[-(len(_WEAK) + 4 + size) :].startswith(_WEAK):
            return False
    try:
        certificate.verify_cert_signature()
    except (InvalidSignature, ValueError):
        return False
    return True
