"""S3 over https, as everybody uses it: whom the client trusts, and what it leaves to TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from replicad.errors import CreateUndecided, StoreRefused
from replicad.store.create import create_settled
from tests.support.fault_proxy import Cut, FaultProxy, Rule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.moto_server import MotoServer
    from tests.unit.store.conftest import OpenS3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "replicad tests")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
async def proxy(moto: MotoServer, certificate: Path) -> AsyncIterator[FaultProxy]:
    """A proxy that speaks https, before the moto server."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with FaultProxy("127.0.0.1", moto.port, tls=tls) as running:
        yield running


async def test_unknown_authority(s3: OpenS3, proxy: FaultProxy) -> None:
    """A server whose certificate nobody trusted has signed is refused before anything is sent to it.

    Seen to fail: with `verify=False` for every endpoint, the put succeeds.
    """
    async with s3() as store:
        for operation in (store.put("a", b"1"), store.create("a", b"1")):
            with pytest.raises(StoreRefused, match="AWS_CA_BUNDLE"):
                await operation
    assert proxy.seen == []


async def test_named_authority(
    s3: OpenS3, proxy: FaultProxy, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private authority named by AWS_CA_BUNDLE is trusted; bodies of every size arrive, and are not hashed twice.

    Seen to fail: without `payload_signing_enabled: False`, x-amz-content-sha256 is a hash.
    """
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    async with s3() as store:
        for body in (b"", b"1", os.urandom(300_000)):
            await store.put("a", body)
            assert await store.get("a") == body
        await store.create("b", b"1")
        await store.delete(["a", "b"])
    puts = [seen.head.lower() for seen in proxy.seen if seen.method == "PUT"]
    assert all("x-amz-content-sha256: unsigned-payload" in head for head in puts)
    assert not [head for head in puts if "aws-chunked" in head or "expect:" in head]


async def test_trap_lost_answer_over_tls(
    s3: OpenS3, proxy: FaultProxy, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over https too a create whose answer is lost is sent once, and settled by reading it back.

    Seen to fail: without `_retry_connection = False`, two PUTs.
    """
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    async with s3() as store:
        await store.put("warm", b"1")
        proxy.rules.append(Rule(method="PUT", path="claims/", cut=Cut.ANSWER))
        with pytest.raises(CreateUndecided):
            await store.create("claims/1", b"mine")
        assert proxy.count("PUT", "claims/") == 1
        assert await create_settled(store, "claims/1", b"mine", is_mine=b"mine".__eq__)
