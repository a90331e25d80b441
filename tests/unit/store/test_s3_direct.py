"""Reading S3 without the SDK: what is understood, and what is left to the SDK."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from replicad.errors import ObjectMissing
from replicad.store.into import Rooms, read_into
from replicad.store.open import StoreOptions, open_store
from replicad.store.retrying import RetryingStore
from replicad.store.s3_access import plain_access
from replicad.store.s3_direct import DirectReads
from replicad.store.url import S3Location
from tests.support.fault_proxy import Answer, Cut, FaultProxy, Rule
from tests.support.moto_server import CREDENTIALS, REGION
from tests.support.waiting import wait_until_async
from tests.unit.store.conftest import ONCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.moto_server import MotoServer

BODY = os.urandom(300_000)


@pytest.fixture
async def proxy(moto: MotoServer) -> AsyncIterator[FaultProxy]:
    """A proxy before the moto server."""
    async with FaultProxy("127.0.0.1", moto.port) as running:
        yield running


@pytest.fixture
async def store(moto: MotoServer, proxy: FaultProxy) -> AsyncIterator[RetryingStore]:
    """A bucket with one object, to be read."""
    found = await open_store(moto.new_bucket_url(endpoint=proxy.endpoint), ONCE, only_to_read=True)
    assert isinstance(found, RetryingStore)
    await found.put("a/b c+ü", BODY)
    yield found
    await found.close()


def reads(store: RetryingStore) -> DirectReads:
    """Return what is below the retrying."""
    found = store._store
    assert isinstance(found, DirectReads)
    return found


async def test_plain_success_needs_no_sdk(moto: MotoServer) -> None:
    """Objects, ranges and listings are read, on connections that are kept, and the SDK is not opened."""
    url = moto.new_bucket_url()
    full, direct = await open_store(url, ONCE), await open_store(url, ONCE, only_to_read=True)
    for number in range(20):
        await full.put(f"x/{number:02} &=?%", bytes([number]) * number)
    assert isinstance(direct, RetryingStore)
    for prefix, after in (("x/", ""), ("x/0", ""), ("x/", "x/07"), ("nothing", "")):
        assert [row async for row in direct.list(prefix, after=after)] == [
            row async for row in full.list(prefix, after=after)
        ]
    bodies = await asyncio.gather(*(direct.get(f"x/{number:02} &=?%") for number in range(20)))
    assert bodies == [bytes([number]) * number for number in range(20)]
    assert await direct.get("x/09 &=?%", start=2, stop=5) == b"\x09" * 3
    assert await direct.get("x/09 &=?%", start=7) == b"\x09" * 2
    assert await direct.get("x/09 &=?%", start=7, stop=100) == b"\x09" * 2
    assert reads(direct)._full is None
    assert len(reads(direct)._idle) <= ONCE.concurrency
    await full.close()
    await direct.close()


async def test_a_listing_of_many_pages(moto: MotoServer) -> None:
    """A listing goes on for as many pages as it takes, without the SDK."""
    url = moto.new_bucket_url()
    full, direct = await open_store(url, ONCE), await open_store(url, ONCE, only_to_read=True)
    keys = [f"x/{number:04}" for number in range(1_005)]
    await asyncio.gather(*(full.put(key, b"") for key in keys))
    assert isinstance(direct, RetryingStore)
    assert [row.key async for row in direct.list("x/")] == keys
    assert [row.key async for row in direct.list("x/", after="x/0002")] == keys[3:]
    assert reads(direct)._full is None
    await full.close()
    await direct.close()


@pytest.mark.parametrize(
    "fault",
    [
        {"answer": Answer(status=500)},
        {"answer": Answer(status=301, headers={"Location": "http://127.0.0.1:1/"})},
        {"answer": Answer(status=200, body=b"short", announced_bytes=10)},
        {"answer": Answer(status=206, body=b"unasked")},
        {"cut": Cut.BEFORE},
        {"cut": Cut.ANSWER},
        {"cut": Cut.BODY},
        {"cut": Cut.HANG},
    ],
    ids=str,
)
@pytest.mark.parametrize("into", [False, True])
async def test_whatever_else_comes_is_asked_of_the_sdk(
    moto: MotoServer, proxy: FaultProxy, fault: dict[str, object], *, into: bool
) -> None:
    """An answer that is no plain success is asked for again by the SDK, and so is all that follows."""
    quick = dataclasses.replace(ONCE, connect_timeout_seconds=0.5, read_timeout_seconds=2.5)
    store = await open_store(moto.new_bucket_url(endpoint=proxy.endpoint), quick, only_to_read=True)
    assert isinstance(store, RetryingStore)
    await store.put("key", BODY)
    rule = Rule(method="GET", path="/key", times=1, **fault)  # type: ignore[arg-type]  # one of the two
    proxy.rules.append(rule)
    assert (await read_into(store, "key", Rooms(len(BODY), 1)) if into else await store.get("key")) == BODY
    assert [seen.method for seen in proxy.seen] == ["PUT", "GET", "GET"]
    assert reads(store)._doubted
    assert await store.get("key") == BODY
    await store.close()


@pytest.mark.parametrize(
    "body",
    [
        b"no listing",
        b"<html>a portal</html>",
        b"<ListBucketResult></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        (
            b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a/z</Key><Size>1</Size><LastModified>"
            b"2026-01-01T00:00:00Z</LastModified></Contents><Contents><Key>a/b</Key><Size>1</Size><LastModified>"
            b"2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
        ),
    ],
    ids=repr,
)
async def test_what_is_no_listing_is_asked_of_the_sdk(store: RetryingStore, proxy: FaultProxy, body: bytes) -> None:
    """What cannot be a whole page, in order, is asked for again; nothing of it is believed."""
    proxy.rules.append(Rule(method="GET", path="list-type", times=1, answer=Answer(status=200, body=body)))
    assert [row.key async for row in store.list("a/")] == ["a/b c+ü"]
    assert reads(store)._doubted


async def test_what_is_missing_is_missing(store: RetryingStore) -> None:
    """The SDK says what an error means."""
    with pytest.raises(ObjectMissing):
        await store.get("nothing")
    assert await store.get("a/b c+ü") == BODY


async def test_a_cancelled_read_ends_at_once(store: RetryingStore, proxy: FaultProxy) -> None:
    """TRAP: SIGTERM while a body does not come: nobody waits for the time limit of the request.

    Seen to fail (by the time limit of the test) without `abort`.
    """
    proxy.rules.append(Rule(method="GET", path="/b", cut=Cut.HANG))
    reading = asyncio.create_task(store.get("a/b c+ü"))
    await wait_until_async(lambda: any(seen.method == "GET" for seen in proxy.seen))
    reading.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(reading, return_exceptions=True)
    assert reading.cancelled()


KEYS = StoreOptions(access_key_id="a", secret_access_key="b")  # noqa: S106 - of nobody


@pytest.mark.parametrize(
    ("location", "environ", "host", "root"),
    [
        (S3Location(bucket="b-1", region="eu-west-1"), {}, "b-1.s3.eu-west-1.amazonaws.com", "/"),
        (S3Location(bucket="b.1", region="eu-west-1"), {}, None, None),
        (S3Location(bucket="b-1", region="cn-north-1"), {}, None, None),
        (S3Location(bucket="b-1", region="us-gov-west-1"), {}, None, None),
        (S3Location(bucket="b-1", region="eu-west-1", path_style=True), {}, None, None),
        (S3Location(bucket="b-1", region="eu-west-1"), {"AWS_CA_BUNDLE": "/x"}, None, None),
        (S3Location(bucket="b-1", region="eu-west-1"), {"https_proxy": "http://x"}, None, None),
        (S3Location(bucket="b-1", region="eu-west-1"), {"AWS_ENDPOINT_URL_S3": "http://x"}, None, None),
        (S3Location(bucket="b-1", region="eu-west-1"), {"AWS_PROFILE": "x"}, None, None),
        (S3Location(bucket="b-1"), {"AWS_CONFIG_FILE": "/x"}, None, None),
        (S3Location(bucket="b-1"), {"AWS_REGION": "eu-west-1"}, "b-1.s3.eu-west-1.amazonaws.com", "/"),
        (S3Location(bucket="B_1", endpoint="http://h:9", region="x"), {"AWS_CA_BUNDLE": "/x"}, "h:9", "/B_1/"),
        (S3Location(bucket="b", endpoint="http://h", region="x", path_style=False), {}, None, None),
        (S3Location(bucket="b", endpoint="http://h/deep", region="x"), {}, None, None),
    ],
)
def test_only_what_is_said_in_full_is_read_directly(
    location: S3Location, environ: dict[str, str], host: str | None, root: str | None
) -> None:
    """Where the environment has something to say that only the SDK understands, the SDK is asked."""
    found = plain_access(location, KEYS, environ)
    assert (found and found.host, found and found.root) == (host, root)


def test_credentials_are_those_of_the_options_or_the_environment() -> None:
    """Keys come from the options, or from the environment's variables; without any the SDK looks for some."""
    location = S3Location(bucket="b", endpoint="http://h", region=REGION)
    assert plain_access(location, StoreOptions(), {}) is None
    found = plain_access(location, StoreOptions(), {**CREDENTIALS, "AWS_SESSION_TOKEN": "t"})
    assert found is not None
    assert found.credentials.session_token == "t"  # noqa: S105 - of nobody
    named = plain_access(location, KEYS, {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"})
    assert named is not None
    assert named.credentials.access_key_id == "a"
