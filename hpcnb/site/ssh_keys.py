"""The keys that may open a login node: in the agent and in files, bare and with certificates."""

from __future__ import annotations

import base64
import binascii
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from paramiko.pkey import PublicBlob

from hpcnb.site.hostkeys import CERTIFIED, encoded, kind, read_certificate
from hpcnb.site.ssh_config import Endpoint

_MAGIC = b"openssh-key-v1\0"
_HEAD, _TAIL = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END OPENSSH PRIVATE KEY-----"
_FOREVER = 2**64 - 1
_CLASSES: tuple[tuple[type, type[paramiko.PKey]], ...] = (
    (Ed25519PrivateKey, paramiko.Ed25519Key),
    (EllipticCurvePrivateKey, paramiko.ECDSAKey),
    (RSAPrivateKey, paramiko.RSAKey),
)


class Locked(Exception):
    """The file needs a passphrase, or another one."""


class Unusable(Exception):
    """There is no key that we can use."""


class _Held(paramiko.AgentKey):
    """A key in the agent. When the agent will not sign, the server refuses the key, and the next has its turn."""

    def __init__(self, key: paramiko.AgentKey, *, certified: bool) -> None:
        super().__init__(key.agent, key.blob, key.comment)
        if certified:  # the agent knows it by its certificate only
            self.inner_key = None

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> paramiko.Message:
        try:
            return super().sign_ssh_data(data, algorithm)
        except (paramiko.SSHException, OSError):  # raised here, it would end the whole connection
            return paramiko.Message()


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A key to try.

    Parameters
    ----------
    label : str
        Where it comes from: a file, or the agent's comment.
    public : bytes
        Empty where only the passphrase would tell.
    certificate : bytes
        Show this instead of the bare key, unless empty.
    held : paramiko.AgentKey, optional
        Signs by the agent; otherwise the file does.
    path : Path, optional
        The file.
    """

    label: str
    public: bytes
    certificate: bytes = b""
    held: paramiko.AgentKey | None = field(default=None, repr=False)
    path: Path | None = None

    @property
    def ends(self) -> float | None:
        """POSIX time at which the certificate expires; None for one that does not, and without one."""
        found = read_certificate(self.certificate) if self.certificate else None
        return float(found.valid_before) if found and found.valid_before < _FOREVER else None

    def load(self, passphrase: str = "") -> paramiko.PKey:
        """The key, ready to sign.

        Raises
        ------
        Locked
            The file is encrypted, and not with this passphrase.
        Unusable
            The file is missing or holds no private key that we can use.
        """
        if self.held is None and kind(self.public).startswith("sk-"):
            raise Unusable("a security key works through the agent only: `ssh-add` it")
        key = self.held or _load(self.path or Path(), passphrase.encode() or None)
        blob = PublicBlob(kind(self.certificate), self.certificate) if self.certificate else None
        vars(key).update(public_blob=blob)
        return key


def offers(end: Endpoint, held: Sequence[paramiko.AgentKey]) -> Iterator[Offer]:
    """The keys for a server in order: those that the configuration names, then the agent's others if it allows them.

    A file whose key the agent holds stays closed, so that nobody is asked for its passphrase.
    """
    ring = _Ring(end, held)
    seen = set()
    for path in end.identities:
        public = _public(path)
        if public not in seen or not public:
            seen.add(public)
            yield from ring.offers(str(path), public, path)
    for public in ring.publics(certified=end.identities_only):
        if public not in seen:
            yield from ring.offers("agent", public, None)


class _Ring:
    """What the agent holds, and the certificates in files, by public key."""

    def __init__(self, end: Endpoint, held: Iterable[paramiko.AgentKey]) -> None:
        self.bare: dict[bytes, paramiko.AgentKey] = {}
        self.certified: dict[bytes, paramiko.AgentKey] = {}
        self.certificates: dict[bytes, list[bytes]] = defaultdict(list)
        for key in held:
            if kind(key.blob).endswith(CERTIFIED):
                self.certified[_certified_key(key.blob)] = _Held(key, certified=True)
            else:
                self.bare[key.blob] = _Held(key, certified=False)
        usual = [path.with_name(f"{path.name}-cert.pub") for path in end.identities]
        for path in (*end.certificates, *usual):
            if certificate := _public_file(path):
                self.certificates[_certified_key(certificate)].append(certificate)

    def publics(self, *, certified: bool) -> Iterator[bytes]:
        """The keys in the agent; on request only those for which the configuration names a certificate."""
        for public in {**self.bare, **self.certified}:
            if public and (public in self.certificates or not certified):
                yield public

    def offers(self, source: str, public: bytes, path: Path | None) -> Iterator[Offer]:
        held = self.bare.get(public)
        if held is not None and path is None:
            source = f"agent: {held.comment}"
        for certificate in self.certificates.get(public, ()):
            if held is not None or path is not None:
                yield Offer(label=f"{source} certified", public=public, certificate=certificate, held=held, path=path)
        if public in self.certified:
            key = self.certified[public]
            yield Offer(label=f"agent: {key.comment} certified", public=public, certificate=key.blob, held=key)
        if held is not None or path is not None:
            yield Offer(label=source, public=public, held=held, path=path)


def _load(path: Path, passphrase: bytes | None) -> paramiko.PKey:
    try:
        data = path.read_bytes()
        private = (load_ssh_private_key if _HEAD in data else load_pem_private_key)(data, passphrase)
    except OSError as error:
        raise Unusable(error.strerror) from None
    except UnsupportedAlgorithm as error:
        raise Unusable(str(error)) from None
    except (TypeError, ValueError, InvalidTag) as error:
        if _encrypted(path):
            raise Locked from None
        raise Unusable(str(error)) from None
    for private_class, key_class in _CLASSES:
        if isinstance(private, private_class):
            text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
            return key_class.from_private_key(io.StringIO(text))
    raise Unusable("a kind of key that we do not know")


def _encrypted(path: Path) -> bool:
    data = path.read_bytes()
    header = _header(data)
    return header[0] != b"none" if header else b"ENCRYPTED" in data


def _header(data: bytes) -> tuple[bytes, bytes] | None:
    """The cipher and the public key of a private key in OpenSSH's format, which are not encrypted."""
    try:
        body = base64.b64decode(data.partition(_HEAD)[2].partition(_TAIL)[0])
    except binascii.Error:
        return None
    if not body.startswith(_MAGIC):
        return None
    message = paramiko.Message(body[len(_MAGIC) :])
    cipher, _, _, _, public = (
        message.get_binary(),
        message.get_binary(),
        message.get_binary(),
        message.get_int(),
        message.get_binary(),
    )
    return cipher, public


def _public(path: Path) -> bytes:
    """The public key of an identity file, if that can be had without a passphrase."""
    try:
        header = _header(path.read_bytes())
    except OSError:
        header = None
    return header[1] if header else _public_file(path) or _public_file(path.with_name(f"{path.name}.pub"))


def _public_file(path: Path) -> bytes:
    try:
        fields = path.read_text("ascii", "replace").split()
        key = base64.b64decode(fields[1])
    except (OSError, IndexError, ValueError):
        return b""
    return key if kind(key) == fields[0] else b""


def _certified_key(certificate: bytes) -> bytes:
    found = read_certificate(certificate)
    return encoded(found.public_key()) if found else b""
