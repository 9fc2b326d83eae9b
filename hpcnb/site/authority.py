"""The certificate authority of one cluster: who may speak to whom, for as long as the cluster lives.

Every connection inside a cluster is mutual TLS with certificates of the cluster's own authority. A certificate
names its *role* as a DNS name (``scheduler.hpcnb``), so that a stolen worker certificate cannot pose as the
scheduler: who connects asks for the role by TLS's ordinary host name check. The authority's key never leaves the
user's machine; a later notebook gets a certificate of its own from it.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCK_SKEW = datetime.timedelta(hours=24)
"""How far behind the clock of a site may be: certificates are valid from this long ago."""

AFTER_WALLTIME = datetime.timedelta(hours=48)


class Role(enum.StrEnum):
    """What a certificate's holder is in the cluster."""

    CLIENT = "client"  # a notebook, or a session's kernel
    AGENT = "agent"  # the user's machine's end of the link
    GATEWAY = "gateway"  # the allocation's end of the link
    SCHEDULER = "scheduler"
    WORKER = "worker"
    SESSION = "session"

    @property
    def server_name(self) -> str:
        return f"{self.value}.hpcnb"


_CLIENTS_ONLY = frozenset({Role.CLIENT, Role.AGENT})


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate and its key, both PEM text; the key is masked in `repr`."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Identity(certificate=…, key=…)"


class Authority:
    """A cluster's certificate authority.

    Parameters
    ----------
    certificate, key : str
        PEM text, as `certificate` and `key` gave it.

    Examples
    --------
    >>> authority = Authority.create("a1b2c3")
    >>> authority.issue(Role.CLIENT, lifetime=3600)
    Identity(certificate=…, key=…)
    """

    def __init__(self, certificate: str, key: str) -> None:
        self.certificate = certificate
        self.key = key
        self._certificate = x509.load_pem_x509_certificate(certificate.encode())
        loaded = serialization.load_pem_private_key(key.encode(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TypeError("the authority's key is not an elliptic-curve key")
        self._key = loaded

    def __repr__(self) -> str:
        return f"Authority({self._certificate.subject.rfc4514_string()})"

    @classmethod
    def create(cls, cluster: str) -> Authority:
        """Make a new authority (EC P-256; about 1 ms)."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"hpcnb cluster {cluster}")
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder(name, key, datetime.timedelta(days=3650))
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(_pem(certificate), _key_pem(key))

    def issue(self, role: Role, *, lifetime: int) -> Identity:
        """Issue a certificate for a role.

        Parameters
        ----------
        role : Role
        lifetime : int
            Seconds that the holder is needed (the walltime); the certificate is valid from 24 hours ago until
            48 hours after, so that clocks may differ.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role not in _CLIENTS_ONLY:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        valid = datetime.timedelta(seconds=lifetime) + AFTER_WALLTIME
        certificate = (
            _builder(_name(role.value), key, valid)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(role.server_name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Identity(certificate=_pem(certificate), key=_key_pem(key))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
