"""The certificates of a cluster: who they let in, as what, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import pickle
import ssl
import tempfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from hpcnb.site.authority import AFTER_WALLTIME, CLOCK_SKEW, Authority, Identity, Role

CLIENTS = {Role.CLIENT, Role.AGENT}


@pytest.fixture(scope="module")
def authority():
    """The authority of one cluster."""
    return Authority.create("a1b2c3")


def certificate(identity):
    """A certificate to look into."""
    return x509.load_pem_x509_certificate(identity.certificate.encode())


def context(side, authority, identity):
    """TLS with a certificate, believing one authority alone."""
    made = ssl.SSLContext(side)
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=authority.certificate)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(identity.certificate + identity.key)
        file.flush()
        made.load_cert_chain(file.name)
    return made


async def handshake(server, client, name):
    """Have two contexts shake hands; raises what the client sees."""

    async def echo(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(await reader.readexactly(1))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server) as listening:
        reader, writer = await asyncio.open_connection(
            *listening.sockets[0].getsockname(), ssl=client, server_hostname=name
        )
        try:
            writer.write(b"x")
            return await reader.readexactly(1)
        finally:
            writer.close()


@pytest.mark.parametrize("role", Role)
def test_a_certificate_names_its_role(authority, role):
    """A certificate's only name is its role's, and only servers may serve."""
    issued = certificate(authority.issue(role, lifetime=60))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [role.server_name] == [f"{role}.hpcnb"]
    usages = set(issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usages
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usages) == (role not in CLIENTS)


def test_a_certificate_is_no_authority(authority):
    """Who holds a certificate cannot issue others."""
    issued = certificate(authority.issue(Role.WORKER, lifetime=60))
    constraints = issued.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    ca = x509.load_pem_x509_certificate(authority.certificate.encode())
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_a_certificate_lives_as_long_as_it_is_needed(authority):
    """Certificates are valid from a day ago, for slow clocks, until two days after the walltime."""
    now = datetime.datetime.now(datetime.UTC)
    issued = certificate(authority.issue(Role.CLIENT, lifetime=3600))
    slack = datetime.timedelta(minutes=1)
    assert abs(issued.not_valid_before_utc - (now - CLOCK_SKEW)) < slack
    assert abs(issued.not_valid_after_utc - (now + datetime.timedelta(hours=1) + AFTER_WALLTIME)) < slack


def test_every_certificate_has_its_own_key(authority):
    """No two certificates share a key or a number, not even of one role."""
    issued = [authority.issue(role, lifetime=60) for role in (Role.WORKER, Role.WORKER, Role.CLIENT)]
    assert len({identity.key for identity in issued}) == 3
    assert len({certificate(identity).serial_number for identity in issued}) == 3


def test_an_authority_comes_back_from_its_texts(authority):
    """A later agent issues certificates that the cluster of an earlier one accepts."""
    again = Authority(authority.certificate, authority.key)
    issued = certificate(again.issue(Role.CLIENT, lifetime=60))
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate.encode()))


def test_a_key_of_another_kind_is_refused(authority):
    """What is no elliptic-curve key is no authority's key."""
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(TypeError, match="elliptic-curve"):
        Authority(authority.certificate, other.decode())


def test_no_key_is_shown(authority):
    """The repr of an authority, and of what it issues, holds no key."""
    issued = authority.issue(Role.CLIENT, lifetime=60)
    assert repr(issued) == str(issued) == "Identity(certificate=…, key=…)"
    assert repr(authority) == "Authority(CN=hpcnb cluster a1b2c3)"
    with pytest.raises(TypeError):
        pickle.dumps(authority)


async def test_mutual_tls(authority):
    """Who holds certificates of one cluster, of the right roles, speaks with each other."""
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue(Role.SCHEDULER, lifetime=60))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue(Role.CLIENT, lifetime=60))
    assert await handshake(server, client, Role.SCHEDULER.server_name) == b"x"


async def test_a_stolen_workers_certificate_does_not_pose_as_the_scheduler(authority):
    """Who asks for the scheduler by name does not take a worker for it."""
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue(Role.WORKER, lifetime=60))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue(Role.CLIENT, lifetime=60))
    with pytest.raises(ssl.SSLCertVerificationError, match="scheduler.hpcnb"):
        await handshake(server, client, Role.SCHEDULER.server_name)


async def test_a_clients_certificate_serves_nobody(authority):
    """A notebook's certificate cannot be used by a server."""
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue(Role.CLIENT, lifetime=60))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue(Role.CLIENT, lifetime=60))
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(server, client, Role.CLIENT.server_name)


@pytest.mark.parametrize("side", ["server", "client"])
async def test_another_cluster_is_another_world(authority, side):
    """Certificates of another authority, even one of the same name, are believed by neither side."""
    other = Authority.create("a1b2c3")
    issuers = {"server": authority, "client": authority} | {side: other}
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, issuers["server"].issue(Role.SCHEDULER, lifetime=60))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, issuers["client"].issue(Role.CLIENT, lifetime=60))
    with pytest.raises((OSError, EOFError)):
        await handshake(server, client, Role.SCHEDULER.server_name)


async def test_a_certificate_that_has_run_out_is_refused(authority):
    """After its time a certificate opens nothing any more."""
    old = -int(AFTER_WALLTIME.total_seconds()) - 60
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue(Role.SCHEDULER, lifetime=old))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue(Role.CLIENT, lifetime=60))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await handshake(server, client, Role.SCHEDULER.server_name)


async def test_openssl_finds_no_fault(authority):
    """The chain passes OpenSSL's strictest check."""
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, authority.issue(Role.GATEWAY, lifetime=60))
    client = context(ssl.PROTOCOL_TLS_CLIENT, authority, authority.issue(Role.CLIENT, lifetime=60))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert await handshake(server, client, Role.GATEWAY.server_name) == b"x"


def test_identities_are_values():
    """An identity is a record: equal by its texts, and not to be changed."""
    assert Identity(certificate="a", key="b") == Identity(certificate="a", key="b")
    with pytest.raises(AttributeError):
        Identity(certificate="a", key="b").key = "c"


def test_nothing_is_left_on_disk(authority, monkeypatch, tmp_path):
    """Making and issuing touches no file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Authority.create("x").issue(Role.CLIENT, lifetime=1)
    assert list(tmp_path.iterdir()) == []
