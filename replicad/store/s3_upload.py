"""Storing an object of unknown size: S3's multipart upload, one part on its way while the next is filled.

Nothing shows under the key before the upload is completed. An upload that fails is aborted, or its parts
would be paid for without being seen; one whose abort fails too is left to the bucket's lifecycle rule.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from replicad.errors import ObjectMissing, ReplicadError, StoreRefused, StoreUnreachable
from replicad.store.s3_http import as_body
from replicad.store.s3_rows import rows_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.store.retrying import RetryPolicy
    from replicad.store.s3_client import S3Connection
    from replicad.store.s3_request import Requests

_MAX_PARTS = 10_000
_ABORT_SECONDS = 5.0  # a shutdown must not wait long for a store that is away


async def send_parts(upload: S3Upload, parts: AsyncIterator[bytes], *, part_bytes: int) -> tuple[bytes | None, int]:
    """Send a stream as parts of exactly `part_bytes` (R2 insists), the last one shorter.

    Returns:
        (None, size in bytes) once the object stands; or (the whole stream, its size) when it is shorter than
        one part, and nothing was sent.
    """
    waiting = bytearray()
    size_bytes = 0
    try:
        async for piece in parts:
            waiting += piece
            size_bytes += len(piece)
            while len(waiting) >= part_bytes:
                await upload.send(bytes(memoryview(waiting)[:part_bytes]))
                del waiting[:part_bytes]
        if not upload.begun:
            return bytes(waiting), size_bytes
        if waiting:
            await upload.send(bytes(waiting))
        await upload.complete(size_bytes)
    except BaseException:
        await upload.abort()
        raise
    return None, size_bytes


class S3Upload:
    """One multipart upload, begun by its first part; each request is tried again by the policy."""

    def __init__(self, connection: S3Connection, requests: Requests, policy: RetryPolicy, *, key: str) -> None:
        self._client = connection.client
        self._store = connection.url
        self._requests = requests
        self._policy = policy
        self._key = key
        self._target: dict[str, str] = {"Bucket": connection.bucket, "Key": key}
        self._etags: list[str] = []
        self._on_its_way: asyncio.Task[str] | None = None

    @property
    def begun(self) -> bool:
        """Whether the store knows of this upload."""
        return "UploadId" in self._target

    async def send(self, part: bytes) -> None:
        """Send the next part, once the one before has arrived."""
        if not self.begun:
            self._target["UploadId"] = await self._policy.run(self._begin)
        await self._arrived()
        number = len(self._etags) + 1
        if number > _MAX_PARTS:
            found = f"more than {_MAX_PARTS} parts of {len(part)} bytes; raise the part size"
            raise StoreRefused(store=self._store, operation=f"part {self._key}", found=found)
        sending = self._policy.run(lambda: self._send(number, part))
        self._on_its_way = asyncio.get_running_loop().create_task(sending, name=f"part {number} of {self._key}")

    async def complete(self, size_bytes: int) -> None:
        """Make an object of the parts.

        A completion whose answer was lost is answered "no such upload" the second time; then the listing tells.
        """
        await self._arrived()
        try:
            await self._policy.run(self._complete)
        except ObjectMissing:
            if await self._policy.run(self._size_stored) != size_bytes:
                found = "the store lost the upload before it was completed"
                raise StoreUnreachable(store=self._store, operation=f"complete {self._key}", found=found) from None

    async def abort(self) -> None:
        """Let the store forget the parts; gives up soon and quietly, because another error is being raised."""
        if self._on_its_way is not None:
            self._on_its_way.cancel()
            await asyncio.gather(self._on_its_way, return_exceptions=True)
        if self.begun:
            with contextlib.suppress(ReplicadError, TimeoutError):
                async with asyncio.timeout(_ABORT_SECONDS), self._requests.one("abort", self._key):
                    await self._client.abort_multipart_upload(**self._target)

    async def _arrived(self) -> None:
        if self._on_its_way is not None:
            self._etags.append(await self._on_its_way)
            self._on_its_way = None

    async def _begin(self) -> str:
        async with self._requests.one("begin", self._key):
            answer = await self._client.create_multipart_upload(**self._target)
        return str(answer["UploadId"])

    async def _send(self, number: int, part: bytes) -> str:
        async with self._requests.one("part", self._key, sent_bytes=len(part)):
            answer = await self._client.upload_part(**self._target, PartNumber=number, Body=as_body(part))
        return str(answer["ETag"])

    async def _complete(self) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, start=1)]
        async with self._requests.one("complete", self._key):
            await self._client.complete_multipart_upload(**self._target, MultipartUpload={"Parts": parts})

    async def _size_stored(self) -> int | None:
        async with self._requests.one("list", self._key):
            page = await self._client.list_objects_v2(Bucket=self._target["Bucket"], Prefix=self._key, MaxKeys=1)
        rows = rows_of(page, prefix=self._key, after="", store=self._store)
        return next((row.size_bytes for row in rows if row.key == self._key), None)
