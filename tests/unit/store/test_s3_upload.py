"""Streams to S3: when they become one put, when parts, and what is left when they fail."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from replicad.errors import ObjectMissing, StoreRefused, StoreUnreachable
from replicad.store import s3_upload
from tests.support.fault_proxy import Answer, Cut, Rule
from tests.support.waiting import wait_until_async
from tests.unit.store.conftest import ONCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fault_proxy import FaultProxy
    from tests.support.moto_server import MotoServer
    from tests.unit.store.conftest import OpenS3

PART = ONCE.part_bytes
TRYING = dataclasses.replace(ONCE, attempts=4, first_wait_seconds=0.001, max_wait_seconds=0.001)
LONG = os.urandom(2 * PART + 1000)


async def _stream(body: bytes, piece_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
    for start in range(0, len(body), piece_bytes):
        yield body[start : start + piece_bytes]


async def test_short_stream_is_one_put(s3: OpenS3, proxy: FaultProxy) -> None:
    """A stream shorter than a part costs one request."""
    async with s3() as store:
        assert await store.put_stream("a", _stream(LONG[: PART - 1])) == PART - 1
    assert [seen.method for seen in proxy.seen] == ["PUT"]


async def test_parts_are_of_equal_size(s3: OpenS3, proxy: FaultProxy) -> None:
    """All parts but the last have exactly the size set, however the stream is cut: R2 refuses anything else."""
    async with s3() as store:
        await store.put_stream("a", _stream(LONG, 777_777))
        assert await store.get("a") == LONG
    lengths = [
        int(line.split(":")[1])
        for seen in proxy.seen
        if "partNumber" in seen.path
        for line in seen.head.lower().splitlines()
        if line.startswith("content-length")
    ]
    assert lengths == [PART, PART, 1000]


async def test_nothing_shows_before_the_end(s3: OpenS3) -> None:
    """While parts are sent the key is free; the object appears whole."""
    seen_missing = asyncio.Event()
    async with s3() as store:

        async def parts() -> AsyncIterator[bytes]:
            yield LONG
            with pytest.raises(ObjectMissing):
                await store.get("a")
            seen_missing.set()
            yield b"end"

        assert await store.put_stream("a", parts()) == len(LONG) + 3
        assert seen_missing.is_set()
        assert await store.get("a") == LONG + b"end"


async def test_memory_is_bounded(s3: OpenS3) -> None:
    """A stream of many parts takes the memory of a few, whatever its length.

    Seen to fail: with all of it gathered first, 86 MiB.
    """

    async def parts() -> AsyncIterator[bytes]:
        for number in range(40):
            yield bytes([number]) * (1 << 20)

    async with s3() as store:
        tracemalloc.start()
        try:
            await store.put_stream("a", parts())
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < 4 * PART


@pytest.mark.parametrize("fault", [Answer(status=503), Cut.BEFORE, Cut.REQUEST, Cut.ANSWER])
async def test_part_that_fails_is_sent_again(s3: OpenS3, proxy: FaultProxy, fault: Answer | Cut) -> None:
    """A part that fails is sent again alone, by the one policy; the stream goes on."""
    answer, cut = (fault, None) if isinstance(fault, Answer) else (None, fault)
    proxy.rules.append(Rule(path="partNumber=2", answer=answer, cut=cut, times=2))
    async with s3(TRYING) as store:
        await store.put_stream("a", _stream(LONG))
        assert await store.get("a") == LONG
    counts = [proxy.count("PUT", f"partNumber={number}") for number in (1, 2, 3)]
    assert counts == [1, 3, 1]


async def test_trap_lost_answer_to_the_completion(s3: OpenS3, proxy: FaultProxy) -> None:
    """A completion whose answer is lost is repeated, answered "no such upload", and settled by the listing.

    Seen to fail: without the look at the listing in `S3Upload.complete`, ObjectMissing is raised.
    """
    proxy.rules.append(Rule(method="POST", path="uploadId", cut=Cut.ANSWER, times=1))
    # as S3 has it; moto takes a completion twice
    proxy.rules.append(Rule(method="POST", path="uploadId", answer=Answer(status=404, code="NoSuchUpload")))
    async with s3(TRYING) as store:
        assert await store.put_stream("a", _stream(LONG)) == len(LONG)
        assert await store.get("a") == LONG
    assert proxy.count("POST", "uploadId") == 2


async def test_upload_that_vanished(s3: OpenS3, proxy: FaultProxy) -> None:
    """An upload that the store no longer knows, and that left no object, is an error."""
    proxy.rules.append(Rule(method="POST", path="uploadId", answer=Answer(status=404, code="NoSuchUpload")))
    async with s3(TRYING) as store:
        with pytest.raises(StoreUnreachable, match="lost the upload"):
            await store.put_stream("a", _stream(LONG))


async def test_completion_that_fails_with_status_200(s3: OpenS3, proxy: FaultProxy) -> None:
    """S3 may answer a completion with 200 and an error inside; it is tried again."""
    failed = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>again</Message></Error>"
    proxy.rules.append(Rule(method="POST", path="uploadId", answer=Answer(status=200, body=failed), times=1))
    async with s3(TRYING) as store:
        await store.put_stream("a", _stream(LONG))
        assert await store.get("a") == LONG


@pytest.mark.parametrize("where", ["partNumber=1", "partNumber=3", "uploadId"])
async def test_failed_upload_is_aborted(
    s3: OpenS3, proxy: FaultProxy, moto: MotoServer, bucket: str, where: str
) -> None:
    """An upload that fails for good leaves no object and no parts behind, which would be paid for unseen.

    Seen to fail: without `upload.abort()` one upload stays open.
    """
    method = "POST" if where == "uploadId" else "PUT"
    proxy.rules.append(Rule(method=method, path=where, answer=Answer(status=403, code="AccessDenied")))
    async with s3(TRYING) as store:
        with pytest.raises(StoreRefused, match="AccessDenied"):
            await store.put_stream("a", _stream(LONG))
        with pytest.raises(ObjectMissing):
            await store.get("a")
    assert moto.open_uploads(bucket) == 0
    assert proxy.count("DELETE") == 1


async def test_cancelled_upload_is_aborted(s3: OpenS3, proxy: FaultProxy, moto: MotoServer, bucket: str) -> None:
    """A cancelled upload is aborted, with a part on its way; nothing is left running."""
    proxy.rules.append(Rule(path="partNumber=2", latency_seconds=60))
    async with s3() as store:
        uploading = asyncio.create_task(store.put_stream("a", _stream(LONG)))
        await wait_until_async(lambda: proxy.count("PUT", "partNumber=2"))
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert moto.open_uploads(bucket) == 0


async def test_abort_of_a_store_that_is_away(s3: OpenS3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An abort that gets no answer is given up soon, and the first error is the one raised."""
    monkeypatch.setattr(s3_upload, "_ABORT_SECONDS", 0.05)
    proxy.rules.append(Rule(path="partNumber=1", answer=Answer(status=403, code="AccessDenied")))
    proxy.rules.append(Rule(method="DELETE", cut=Cut.DEAF))
    async with s3() as store, asyncio.timeout(10):
        with pytest.raises(StoreRefused, match="AccessDenied"):
            await store.put_stream("a", _stream(LONG))


async def test_too_many_parts(s3: OpenS3, moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of more parts than S3 takes is refused with what to change, and leaves nothing."""
    monkeypatch.setattr(s3_upload, "_MAX_PARTS", 1)
    async with s3() as store:
        with pytest.raises(StoreRefused, match="raise the part size"):
            await store.put_stream("a", _stream(LONG))
    assert moto.open_uploads(bucket) == 0
