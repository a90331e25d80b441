"""Where credentials come from, and that they go nowhere but into signatures."""

from __future__ import annotations

import dataclasses
import json
import traceback
from typing import TYPE_CHECKING

import pytest
from botocore.utils import ContainerMetadataFetcher

from replicad.errors import ReplicadError, StoreRefused, StoreUnreachable
from replicad.store.s3 import open_s3
from replicad.store.s3_client import connect
from replicad.store.url import S3Location
from tests.support.fault_proxy import Answer, Cut, Rule
from tests.unit.store.conftest import ONCE

if TYPE_CHECKING:
    from pathlib import Path

    from botocore.awsrequest import AWSPreparedRequest

    from replicad.store.options import StoreOptions
    from replicad.store.s3_client import S3Connection
    from tests.support.fault_proxy import FaultProxy
    from tests.support.moto_server import MotoServer
    from tests.unit.store.conftest import OpenS3

ACCESS, SECRET, TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "FwoGZXIvYXdzEXAMPLETOKEN"
NO_KEYS = dataclasses.replace(ONCE, access_key_id=None, secret_access_key=None)
EXAMPLE = dataclasses.replace(ONCE, access_key_id=ACCESS, secret_access_key=SECRET, session_token=TOKEN)
LOCAL = S3Location(bucket="bucket", endpoint="http://127.0.0.1:9")


def _heads(proxy: FaultProxy) -> str:
    return "\n".join(seen.head for seen in proxy.seen)


async def test_explicit_credentials(s3: OpenS3, proxy: FaultProxy) -> None:
    """Credentials of the options sign the request, with the session token; the secret never goes out."""
    async with s3(EXAMPLE) as store:
        await store.put("a", b"1")
    assert f"Credential={ACCESS}/" in _heads(proxy)
    assert f"X-Amz-Security-Token: {TOKEN}" in _heads(proxy)
    assert SECRET not in _heads(proxy)


async def test_credentials_of_the_environment(s3: OpenS3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any in the options, those of the environment are used."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with s3(NO_KEYS) as store:
        await store.put("a", b"1")
    assert f"Credential={ACCESS}/" in _heads(proxy)


async def test_credentials_of_a_container(s3: OpenS3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container platform's credential service is asked, and what it gives expires and is renewed by botocore."""
    given = {"AccessKeyId": ACCESS, "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": "2099-01-01T00:00:00Z"}
    proxy.rules.append(Rule(path="/credentials", answer=Answer(status=200, body=json.dumps(given).encode())))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{proxy.endpoint}/credentials")
    async with s3(NO_KEYS) as store:
        await store.put("a", b"1")
        assert set(store._connection.secrets()) == {ACCESS, SECRET, TOKEN}
    assert f"X-Amz-Security-Token: {TOKEN}" in _heads(proxy)


async def test_credentials_of_a_role_by_web_identity(
    s3: OpenS3, proxy: FaultProxy, moto: MotoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A role assumed through STS (Kubernetes) works: the trimmed description of S3 leaves other services whole."""
    token = tmp_path / "token"
    token.write_text("a.web.token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    async with s3(NO_KEYS) as store:
        await store.put("a", b"1")
    assert "X-Amz-Security-Token" in _heads(proxy)


async def test_credentials_of_a_file(
    s3: OpenS3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The shared credentials file is read, by profile."""
    shared = tmp_path / "credentials"
    shared.write_text(f"[backup]\naws_access_key_id={ACCESS}\naws_secret_access_key={SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    monkeypatch.setenv("AWS_PROFILE", "backup")
    async with s3(NO_KEYS) as store:
        await store.put("a", b"1")
    assert f"Credential={ACCESS}/" in _heads(proxy)


async def test_credential_service_away(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential service that does not answer is worth another try: StoreUnreachable."""
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)  # between the three attempts that botocore makes
    proxy.rules.append(Rule(path="/credentials", cut=Cut.BEFORE))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{proxy.endpoint}/credentials")
    with pytest.raises(StoreUnreachable, match="credentials"):
        await connect(LOCAL, NO_KEYS)


async def test_role_that_may_not_be_assumed(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A refusal of the credential service is StoreRefused when the store is opened."""
    token = tmp_path / "token"
    token.write_text("a.web.token")
    document = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    proxy.rules.append(Rule(answer=Answer(status=403, body=document)))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.endpoint)
    with pytest.raises(StoreRefused, match="AccessDenied"):
        await connect(LOCAL, NO_KEYS)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("AWS_PROFILE", "nobody", "nobody"),
        ("AWS_ACCESS_KEY_ID", ACCESS, "Partial credentials"),
        ("AWS_CA_BUNDLE", "/no/such/bundle.pem", "AWS_CA_BUNDLE"),
    ],
)
async def test_wrong_settings_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    """A wrong setting of the platform is StoreRefused and names what is wrong, at the latest with the first request."""
    monkeypatch.setenv(name, value)
    options = ONCE if name == "AWS_CA_BUNDLE" else NO_KEYS
    with pytest.raises(StoreRefused, match=complaint):
        await _first_request(dataclasses.replace(LOCAL, endpoint="https://127.0.0.1:9"), options)


async def _first_request(location: S3Location, options: StoreOptions) -> None:
    store = await open_s3(location, options, None)
    try:
        await store.get("a")
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("location", "region"),
    [
        (LOCAL, "us-east-1"),
        (dataclasses.replace(LOCAL, region="auto"), "auto"),
        (S3Location(bucket="bucket"), "us-east-1"),
        (S3Location(bucket="bucket", region="eu-central-1"), "eu-central-1"),
    ],
)
async def test_region(location: S3Location, region: str) -> None:
    """The region is the URL's, else the platform's, else us-east-1."""
    connection = await connect(location, ONCE)
    assert connection.client.meta.region_name == region
    await connection.close()


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
async def test_region_of_the_platform(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Both variables that platforms set for the region are read."""
    monkeypatch.setenv(name, "ap-south-1")
    connection = await connect(S3Location(bucket="bucket"), ONCE)
    assert connection.client.meta.region_name == "ap-south-1"
    await connection.close()


@pytest.mark.parametrize(
    ("location", "host"),
    [
        (S3Location(bucket="bucket", region="eu-central-1"), "https://bucket.s3.eu-central-1.amazonaws.com/a"),
        (S3Location(bucket="my.bucket", region="eu-central-1"), "https://s3.eu-central-1.amazonaws.com/my.bucket/a"),
        (S3Location(bucket="bucket", region="cn-north-1"), "https://bucket.s3.cn-north-1.amazonaws.com.cn/a"),
        (
            S3Location(bucket="bucket", region="eu-central-1", path_style=True),
            "https://s3.eu-central-1.amazonaws.com/bucket/a",
        ),
        (S3Location(bucket="bucket", endpoint="https://s3.example.com"), "https://s3.example.com/bucket/a"),
        (
            S3Location(bucket="bucket", endpoint="https://s3.example.com", path_style=False),
            "https://bucket.s3.example.com/a",
        ),
        (S3Location(bucket="bucket", endpoint="https://x.example/storage/s3"), "https://x.example/storage/s3/bucket/a"),
    ],
)
async def test_addressing(location: S3Location, host: str) -> None:
    """AWS is addressed by virtual hosts, in every partition; an endpoint by path; `path_style` decides otherwise.

    Shows that the endpoint rules of botocore are whole, although its description of S3 is trimmed.
    """
    connection = await connect(location, ONCE)
    assert await _url_of_a_get(connection) == host
    await connection.close()


async def _url_of_a_get(connection: S3Connection) -> str:
    class NotSent(Exception):
        pass

    def keep(request: AWSPreparedRequest, **_: object) -> None:
        raise NotSent(request.url)

    connection.client.meta.events.register("before-send.s3", keep)
    try:
        await connection.client.get_object(Bucket=connection.bucket, Key="a")
    except NotSent as caught:
        return str(caught)
    raise AssertionError("nothing was sent")


async def test_trap_secrets_in_errors(s3: OpenS3, proxy: FaultProxy) -> None:
    """A server that repeats the credentials in its error does not get them into messages, causes or tracebacks.

    Seen to fail: without the Scrubber in `_for_message`; with `raise … from error` whatever the error says.
    """
    document = f"<Error><Code>AccessDenied</Code><Message>{ACCESS} {SECRET} {TOKEN}</Message></Error>"
    proxy.rules.append(Rule(answer=Answer(status=403, body=document.encode())))
    async with s3(EXAMPLE) as store:
        with pytest.raises(StoreRefused, match="AccessDenied") as caught:
            await store.get("a")
        shown = "".join(traceback.format_exception(caught.value)) + f"{store._connection!r} {store!r} {EXAMPLE!r}"
    assert isinstance(caught.value, ReplicadError)
    for secret in (ACCESS, SECRET, TOKEN):
        assert secret not in shown


async def test_the_head_of_a_put_is_short(s3: OpenS3, proxy: FaultProxy) -> None:
    """A PUT tells the store what it needs to know, and nothing about the SDK: small segments are hardly larger.

    Seen to fail with the SDK's own headers left in.
    """
    async with s3(EXAMPLE) as store:
        await store.put("a", b"1")
        await store.get("a")
    put, get = (seen.head.lower() for seen in proxy.seen)
    assert put.startswith("put ")
    for name in ("amz-sdk-", "accept"):
        assert f"\n{name}" not in put
        assert f"\n{name}" in get
