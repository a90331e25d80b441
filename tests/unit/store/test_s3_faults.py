"""Every way a request to S3 goes wrong, and what the caller is told, against a real server behind a proxy."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from typing import TYPE_CHECKING

import pytest

from replicad.errors import ObjectExists, ObjectMissing, StoreRefused, StoreUnreachable
from replicad.store.retrying import RetryingStore, RetryPolicy
from tests.support.fault_proxy import Answer, Cut, Rule
from tests.unit.store.conftest import ONCE

if TYPE_CHECKING:
    from replicad.store.protocol import ObjectStore
    from replicad.store.s3 import S3Store
    from tests.support.fault_proxy import FaultProxy
    from tests.unit.store.conftest import OpenS3

HASTY = dataclasses.replace(ONCE, connect_timeout_seconds=0.4, read_timeout_seconds=0.4)
MINE = b'{"id": "mine"}'


def _retried(store: S3Store) -> ObjectStore:
    policy = RetryPolicy(attempts=5, budget_seconds=10, first_wait_seconds=0.001, max_wait_seconds=0.001)
    return RetryingStore(store, policy)


async def test_trap_checksums_only_where_required(s3: OpenS3, proxy: FaultProxy) -> None:
    """No checksum header, trailer, chunked signature or Expect goes out, but Content-MD5 with a batch of deletions.

    Seen to fail: without `request_checksum_calculation="when_required"` (x-amz-checksum-crc32 on puts), without
    `add_expect_header` unregistered, and without `_sign_with_md5` (crc32 on the deletion).
    """
    async with s3() as store:
        await store.put("a", os.urandom(200_000))
        await store.create("b", b"2")
        await store.get("a")
        await store.delete(["a", "b"])
    heads = [seen.head.lower() for seen in proxy.seen]
    for unwanted in ("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer", "aws-chunked", "expect:"):
        assert not [head for head in heads if unwanted in head], unwanted
    assert ["content-md5:" in head for head in heads] == [False, False, False, True]


async def test_trap_503_slow_down(s3: OpenS3, proxy: FaultProxy) -> None:
    """SlowDown is tried again by the one policy until it works; without the policy it is StoreUnreachable.

    Seen to fail: with the answer 503 mapped to StoreRefused.
    """
    proxy.rules.append(Rule(answer=Answer(status=503), skip=1, times=2))
    async with s3() as store:
        await store.put("a", b"first goes through")
        with pytest.raises(StoreUnreachable, match="SlowDown"):
            await store.put("a", b"slow down")
        await _retried(store).put("a", b"slow down")
        assert await store.get("a") == b"slow down"
    assert proxy.count("PUT") == 4


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_trap_429_and_server_errors(s3: OpenS3, proxy: FaultProxy, status: int) -> None:
    """429 and every 5xx that may pass are tried again, for reads, writes, listings and deletions alike.

    Seen to fail: with `_is_busy` returning False.
    """
    proxy.rules.append(Rule(answer=Answer(status=status), times=1))
    async with s3() as store:
        retried = _retried(store)
        await retried.put("a", b"body")
        for rule in proxy.rules:
            rule.matched = 0
        assert await retried.get("a") == b"body"
        proxy.rules[0].matched = 0
        assert [row.key async for row in retried.list("")] == ["a"]
        proxy.rules[0].matched = 0
        await retried.delete(["a"])
    assert len(proxy.seen) == 8


async def test_trap_sdk_retries_are_off(s3: OpenS3, proxy: FaultProxy) -> None:
    """One call is one request, whatever goes wrong with it; nothing beneath the policy tries again.

    Seen to fail: with `total_max_attempts` at 5 (several requests for one 503), and without
    `_retry_connection = False` (2 requests for a broken connection).
    """
    faults = [Rule(answer=Answer(status=status)) for status in (429, 500, 503)] + [Rule(cut=cut) for cut in Cut]
    async with s3(HASTY) as store:
        for fault in faults:
            proxy.rules[:] = []
            await store.put("a", bytes(1000))  # over a connection that is then used again
            proxy.rules[:], before = [fault], len(proxy.seen)
            with pytest.raises(StoreUnreachable):
                await store.get("a")
            assert len(proxy.seen) - before == 1, fault


async def test_trap_stream_dropped_in_the_middle(s3: OpenS3, proxy: FaultProxy) -> None:
    """A body that breaks off is an error of the transport, never a shorter object; the next attempt has all of it.

    Seen to fail: without aiohttp.ClientError among `CLIENT_ERRORS`, ClientPayloadError comes through.
    """
    body = os.urandom(300_000)
    async with s3() as store:
        await store.put("a", body)
        proxy.rules.append(Rule(method="GET", cut=Cut.BODY, times=2))
        with pytest.raises(StoreUnreachable):
            await store.get("a")
        assert await _retried(store).get("a") == body


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=200, body=b"half", announced_bytes=8),
        Answer(status=206, body=b"half", headers={"Content-Range": "bytes 0-3/100"}),
        Answer(status=206, body=b"wrong pl", headers={"Content-Range": "bytes 4-11/100"}),
        Answer(status=206, body=b"short", headers={"Content-Range": "bytes 0-7/100"}),
    ],
    ids=["fewer than announced", "fewer than asked for", "another range", "not what it says"],
)
async def test_trap_short_body_with_a_good_status(s3: OpenS3, proxy: FaultProxy, answer: Answer) -> None:
    """A body that is not the range that was asked for is StoreUnreachable, whatever the status says.

    Seen to fail: with `cut_to_range` returning the body as it is, for all but the first.
    """
    proxy.rules.append(Rule(method="GET", answer=answer))
    async with s3() as store:
        with pytest.raises(StoreUnreachable):
            await store.get("a", start=0, stop=8)


async def test_range_answered_with_the_whole(s3: OpenS3, proxy: FaultProxy) -> None:
    """A store that ignores a range and sends the whole object with 200 is understood."""
    proxy.rules.append(Rule(method="GET", answer=Answer(status=200, body=b"0123456789")))
    async with s3() as store:
        assert await store.get("a", start=2, stop=5) == b"234"
        assert await store.get("a", start=8, stop=99) == b"89"


async def test_trap_slow_body(s3: OpenS3, proxy: FaultProxy) -> None:
    """A body that drips in, fast enough for the gap between two bytes but not to arrive, counts as hung.

    Seen to fail: without `asyncio.timeout` in `Requests.one` (and `Underway.expect`), the body arrives after 1.6 s.
    """
    impatient = dataclasses.replace(HASTY, min_bytes_per_second=10 << 20)
    async with s3(impatient) as store:
        await store.put("a", bytes(1 << 20))
        proxy.rules.append(Rule(method="GET", bytes_per_second=640 << 10))
        with pytest.raises(StoreUnreachable, match="in time"):
            await store.get("a")


async def test_large_body_gets_its_time(s3: OpenS3, proxy: FaultProxy) -> None:
    """A body that takes longer than the limit for silence, but comes in at a bearable speed, arrives.

    Seen to fail: without the rescheduling in `Underway.expect`.
    """
    body = os.urandom(1 << 20)
    async with s3(dataclasses.replace(HASTY, min_bytes_per_second=100 << 10)) as store:
        await store.put("a", body)
        proxy.rules.append(Rule(method="GET", bytes_per_second=640 << 10))
        assert await store.get("a") == body


async def test_trap_peer_that_takes_nothing(s3: OpenS3, proxy: FaultProxy) -> None:
    """A put to a peer that reads nothing ends in time, although aiohttp's own limits do not see it.

    Seen to fail: without `asyncio.timeout` in `Requests.one`, the put never ends.
    """
    proxy.rules.append(Rule(method="PUT", cut=Cut.DEAF))
    impatient = dataclasses.replace(HASTY, min_bytes_per_second=200 << 20)
    async with s3(impatient) as store, asyncio.timeout(10):
        with pytest.raises(StoreUnreachable):
            await store.put("a", bytes(32 << 20))


async def test_trap_hanging_answer(s3: OpenS3, proxy: FaultProxy) -> None:
    """An answer that never comes is given up after the read timeout.

    Seen to fail: without the client's `read_timeout` and `asyncio.timeout` in `Requests.one`, it is waited for.
    """
    proxy.rules.append(Rule(cut=Cut.HANG))
    async with s3(HASTY) as store, asyncio.timeout(10):
        with pytest.raises(StoreUnreachable):
            await store.get("a")
        with pytest.raises(StoreUnreachable):
            _ = [row async for row in store.list("")]


async def test_trap_dns_failure(s3: OpenS3) -> None:
    """A name that cannot be looked up is StoreUnreachable, for a create as well: nothing can have been sent.

    Seen to fail: with `_never_sent` returning False, the create is CreateUndecided.
    """
    async with s3(endpoint="http://no-such-host.invalid") as store:
        with pytest.raises(StoreUnreachable, match="no-such-host"):
            await store.get("a")
        with pytest.raises(StoreUnreachable):
            await store.create("claims/1", MINE)


async def test_nobody_listens(s3: OpenS3) -> None:
    """A refused connection is StoreUnreachable, for a create as well."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with s3(endpoint=f"http://127.0.0.1:{port}") as store:
        with pytest.raises(StoreUnreachable):
            await store.put("a", b"")
        with pytest.raises(StoreUnreachable):
            await store.create("claims/1", MINE)


async def test_trap_expired_credentials(s3: OpenS3, proxy: FaultProxy) -> None:
    """An expired session token is refused at once, not tried again, and the message says what to do.

    Seen to fail: with StoreRefused among what the policy tries again, the count is 5.
    """
    proxy.rules.append(Rule(answer=Answer(status=400, code="ExpiredToken")))
    async with s3() as store:
        with pytest.raises(StoreRefused, match="session token has expired"):
            await _retried(store).get("a")
    assert len(proxy.seen) == 1


async def test_trap_clock_skew(s3: OpenS3, proxy: FaultProxy) -> None:
    """A signature refused for its time is StoreRefused, names the clock, and quotes the store's own time.

    Seen to fail: without the case RequestTimeTooSkewed in `_advice`, the message speaks of credentials only.
    """
    their_time = "Wed, 01 Jan 2031 00:00:00 GMT"
    skewed = Answer(status=403, code="RequestTimeTooSkewed", headers={"Date": their_time})
    proxy.rules.append(Rule(answer=skewed))
    async with s3() as store:
        with pytest.raises(StoreRefused, match=f"clock is wrong.*{their_time}"):
            await store.put("a", b"")


async def test_missing_bucket_is_no_empty_store(s3: OpenS3) -> None:
    """A bucket that does not exist is refused, for reads and listings too: it must not look like "no backup"."""
    async with s3(bucket="no-such-bucket") as store:
        with pytest.raises(StoreRefused, match="create the bucket"):
            await store.get("a")
        with pytest.raises(StoreRefused, match="create the bucket"):
            _ = [row async for row in store.list("")]


async def test_forbidden(s3: OpenS3, proxy: FaultProxy) -> None:
    """A 403 is refused for every operation, creates included; it is never taken for a missing object."""
    proxy.rules.append(Rule(answer=Answer(status=403, code="AccessDenied")))
    async with s3() as store:
        for operation in (store.get("a"), store.put("a", b""), store.create("a", b""), store.delete(["a", "b"])):
            with pytest.raises(StoreRefused, match="AccessDenied"):
                await operation


async def test_wrong_region(s3: OpenS3, proxy: FaultProxy) -> None:
    """A bucket in another region is refused with the region to set."""
    there = {"x-amz-bucket-region": "eu-central-1"}
    proxy.rules.append(Rule(answer=Answer(status=301, code="PermanentRedirect", headers=there)))
    async with s3() as store:
        with pytest.raises(StoreRefused, match="region=eu-central-1"):
            await store.get("a")


async def test_missing_and_existing(s3: OpenS3, proxy: FaultProxy) -> None:
    """404 and 412 without the usual error document are still ObjectMissing and ObjectExists."""
    async with s3() as store:
        proxy.rules.append(Rule(answer=Answer(status=404, body=b"")))
        with pytest.raises(ObjectMissing):
            await store.get("a")
        proxy.rules[0].answer = Answer(status=412, body=b"")
        with pytest.raises(ObjectExists):
            await store.create("a", b"")


async def test_answer_that_is_no_s3(s3: OpenS3, proxy: FaultProxy) -> None:
    """A page of a captive portal or balancer instead of S3's XML is an error, never an empty listing.

    Seen to fail: without the look at IsTruncated in `S3Store.list`, the well-formed page lists nothing.
    """
    for page in (b"<html><body>Sign in to the WiFi", b"<html><body>Sign in</body></html>", b""):
        proxy.rules[:] = [Rule(answer=Answer(status=200, body=page))]
        async with s3() as store:
            with pytest.raises(StoreUnreachable):
                _ = [row async for row in store.list("")]


async def test_refused_connections(s3: OpenS3, proxy: FaultProxy) -> None:
    """A bucket that goes away and comes back is StoreUnreachable in between, and fine afterwards."""
    async with s3() as store:
        await store.put("a", b"1")
        proxy.refuse = True
        with pytest.raises(StoreUnreachable):
            await store.put("a", b"1")
        proxy.refuse = False
        assert await store.get("a") == b"1"
