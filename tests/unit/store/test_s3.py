"""What the S3 store does when nothing goes wrong: requests made, limits kept, listings in pages."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from replicad.errors import StoreRefused, StoreUnreachable
from tests.support.fault_proxy import Answer, Rule
from tests.support.waiting import wait_until_async
from tests.unit.store.conftest import ONCE, Notes

if TYPE_CHECKING:
    from replicad.store.protocol import ObjectStore
    from tests.support.fault_proxy import FaultProxy
    from tests.support.moto_server import MotoServer
    from tests.unit.store.conftest import OpenS3


def _listing(*keys: str, more: str = "") -> Answer:
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>7</Size></Contents>"
        for key in keys
    )
    end = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}"
    document = f"<?xml version='1.0'?><ListBucketResult><Name>b</Name>{rows}{end}</ListBucketResult>"
    return Answer(status=200, body=document.encode())


async def _keys(store: ObjectStore, prefix: str = "", after: str = "") -> list[str]:
    return [row.key async for row in store.list(prefix, after=after)]


async def test_trap_listing_of_more_than_1000_keys(
    s3: OpenS3, moto: MotoServer, bucket: str, proxy: FaultProxy
) -> None:
    """A listing goes on past its first page, from its beginning or behind a key, and so does a deletion.

    Seen to fail: with `return` after the first page 1 000 keys come; with one DeleteObjects for all, the
    server refuses more than 1 000 keys.
    """
    keys = [f"log/{number:05}" for number in range(1_003)]
    with ThreadPoolExecutor(4) as pool:
        _ = list(pool.map(lambda key: moto.put_object(bucket, key, b"x"), keys))
    async with s3() as store:
        assert await _keys(store, "log/") == keys
        assert proxy.count("GET") == 2
        assert await _keys(store, "log/", after="log/00001") == keys[2:]
        await store.delete(keys)
        assert proxy.count("POST") == 2
        assert await _keys(store) == []


async def test_listing_that_repeats_its_last_key(s3: OpenS3, proxy: FaultProxy) -> None:
    """A store that begins a page with the last key of the page before, or ignores StartAfter, is put up with."""
    going_on = "<NextContinuationToken>2</NextContinuationToken>"
    proxy.rules.append(Rule(path="continuation-token=2", answer=_listing("b", "c")))
    proxy.rules.append(Rule(answer=_listing("a", "b", more=going_on)))
    async with s3() as store:
        assert await _keys(store) == ["a", "b", "c"]
        assert await _keys(store, after="a") == ["b", "c"]


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (_listing("b", "a"), "should be in key order"),
        (_listing("a", more="<Other/>"), "does not say where"),
        (_listing("a", more="<NextContinuationToken>same</NextContinuationToken>"), "does not say where"),
    ],
    ids=["out of order", "no way on", "the same page for ever"],
)
async def test_listing_that_cannot_be_trusted(s3: OpenS3, proxy: FaultProxy, listing: Answer, found: str) -> None:
    """A listing out of order or without an end is refused: a plan made from it would be wrong."""
    proxy.rules.append(Rule(answer=listing))
    async with s3() as store:
        with pytest.raises(StoreRefused, match=found):
            await _keys(store)


async def test_requests_are_bounded(s3: OpenS3, proxy: FaultProxy) -> None:
    """No more requests are under way than the options allow, and waiting for a turn does not count as slowness.

    Seen to fail: without the semaphore the requests that wait for a connection run out of time; with a larger pool
    of connections as well, all 24 are under way at once.
    """
    patience = dataclasses.replace(ONCE, concurrency=3, connect_timeout_seconds=0.3, read_timeout_seconds=1.7)
    proxy.rules.append(Rule(latency_seconds=0.3))  # eight turns take longer than a request may
    async with s3(patience) as store:
        await asyncio.gather(*(store.put(f"{number}", b"") for number in range(24)))
    assert proxy.most_under_way == 3


async def test_every_request_is_observed(s3: OpenS3, proxy: FaultProxy) -> None:
    """The observer hears of each request with its outcome and bytes, of those that fail as well."""
    notes = Notes()
    async with s3(observer=notes) as store:
        await store.put("a", b"12345")
        await store.get("a", start=1, stop=3)
        await store.create("b", b"123")
        for operation in (store.get("missing"), store.create("b", b"1")):
            with pytest.raises(Exception, match="object"):
                await operation
        await _keys(store)
        await store.delete(["a", "b"])
        proxy.rules.append(Rule(answer=Answer(status=503)))
        with pytest.raises(StoreUnreachable):
            await store.put("a", b"12")
        proxy.rules[0].answer = Answer(status=403, code="AccessDenied")
        with pytest.raises(StoreRefused):
            await store.get("a")
    assert notes.requests == [
        ("put", "ok", 5, 0),
        ("get", "ok", 0, 2),
        ("create", "ok", 3, 0),
        ("get", "missing", 0, 0),
        ("create", "exists", 1, 0),
        ("list", "ok", 0, 0),
        ("delete", "ok", 0, 0),
        ("put", "unreachable", 2, 0),
        ("get", "refused", 0, 0),
    ]


async def test_cancelled_request(s3: OpenS3, proxy: FaultProxy) -> None:
    """A cancelled request stays cancelled, is observed as such, and frees its place."""
    notes = Notes()
    proxy.rules.append(Rule(method="GET", latency_seconds=60))
    async with s3(dataclasses.replace(ONCE, concurrency=1), observer=notes) as store:
        reading = asyncio.create_task(store.get("a"))
        await wait_until_async(lambda: proxy.seen)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await store.put("a", b"")
    assert [request[:2] for request in notes.requests] == [("get", "cancelled"), ("put", "ok")]


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed")])
async def test_store_without_batch_deletion(s3: OpenS3, proxy: FaultProxy, status: int, code: str) -> None:
    """A store without DeleteObjects is found out once, and then gets one DELETE for each key."""
    proxy.rules.append(Rule(method="POST", answer=Answer(status=status, code=code)))
    async with s3() as store:
        for key in ("a", "b", "c"):
            await store.put(key, b"")
        await store.delete(["a", "b"])
        await store.delete(["b", "c"])
        assert await _keys(store) == []
    assert (proxy.count("POST"), proxy.count("DELETE")) == (1, 4)


@pytest.mark.parametrize(
    ("code", "expected"), [("InternalError", StoreUnreachable), ("AccessDenied", StoreRefused), ("NoSuchKey", None)]
)
async def test_batch_deletion_that_fails_in_part(
    s3: OpenS3, proxy: FaultProxy, code: str, expected: type[Exception] | None
) -> None:
    """A key that could not be deleted is an error although the answer's status is 200; a missing key is none."""
    document = f"<DeleteResult><Error><Key>b</Key><Code>{code}</Code><Message>no</Message></Error></DeleteResult>"
    proxy.rules.append(Rule(method="POST", answer=Answer(status=200, body=document.encode())))
    async with s3() as store:
        if expected is None:
            await store.delete(["a", "b"])
        else:
            with pytest.raises(expected, match=f"delete b.*{code}"):
                await store.delete(["a", "b"])


async def test_single_deletion_that_fails(s3: OpenS3, proxy: FaultProxy) -> None:
    """Of several deletions made one by one, the first error is raised as itself."""
    proxy.rules.append(Rule(method="POST", answer=Answer(status=501)))
    proxy.rules.append(Rule(method="DELETE", path="/b", answer=Answer(status=403, code="AccessDenied")))
    async with s3() as store:
        with pytest.raises(StoreRefused, match="AccessDenied"):
            await store.delete(["a", "b", "c"])
