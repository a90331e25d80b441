"""S3 and whatever speaks its protocol, as an object store.

Of S3 this needs put, get with a range, list, delete, multipart upload, and for ownership a put with
`If-None-Match: *` (`s3_google.py` says that in Google's words). ETags are neither sent nor compared, except those of
parts, which go back to the store as they came: quoted, unquoted or not MD5, it makes no difference. `If-Match` is not
used at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, IncompleteReadError

from replicad.errors import ObjectMissing, ReplicadError, StoreRefused, StoreUnreachable
from replicad.store.retrying import RetryPolicy
from replicad.store.s3_client import connect
from replicad.store.s3_errors import code_of, is_busy_code, status_of
from replicad.store.s3_http import as_body
from replicad.store.s3_request import Requests
from replicad.store.s3_rows import cut_to_range, rows_of
from replicad.store.s3_upload import S3Upload, send_parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicad.store.into import Rooms
    from replicad.store.metered import RequestObserver
    from replicad.store.options import StoreOptions
    from replicad.store.protocol import StoredObject
    from replicad.store.s3_client import S3Connection
    from replicad.store.url import S3Location

_KEYS_PER_DELETE = 1_000
_PIECE_BYTES = 256 << 10  # of a body, moved in one go
_RANGE_NOT_SATISFIABLE = 416
_NO_BATCH_STATUSES = frozenset({405, 501})


async def open_s3(location: S3Location, options: StoreOptions, observer: RequestObserver | None) -> S3Store:
    """Open the bucket of a location; its prefix is left to `PrefixedStore`. No request is made yet.

    Raises:
        StoreRefused: there are no usable credentials.
        StoreUnreachable: the platform's credential service does not answer.
    """
    return S3Store(await connect(location, options), options, observer)


class S3Store:
    """All objects of one bucket. Each request is made once; the retrying is done above (`RetryingStore`).

    The parts of `put_stream` are the exception: they are tried again here, one by one, because the stream they
    came from cannot be rewound.
    """

    def __init__(self, connection: S3Connection, options: StoreOptions, observer: RequestObserver | None) -> None:
        self.url = connection.url
        self._connection = connection
        self._options = options
        self._client = connection.client
        self._bucket = connection.bucket
        self._requests = Requests(connection, options, observer)
        self._policy = RetryPolicy.of(options)
        self._deletes_in_batches = True

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        if stop is not None and stop <= start:
            return b""  # HTTP has no empty range
        wanted = {} if start == 0 and stop is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        async with self._requests.one("get", key) as request:
            try:
                answer = await self._client.get_object(Bucket=self._bucket, Key=key, **wanted)
            except ClientError as error:
                if status_of(error) == _RANGE_NOT_SATISFIABLE:
                    return b""  # the range begins at or behind the end
                raise
            async with answer["Body"] as stream:
                request.expect(int(answer.get("ContentLength", 0)))
                body: bytes = await stream.read()
            request.received(len(body))
            return cut_to_range(answer, body, start=start, stop=stop)

    async def get_into(self, key: str, rooms: Rooms) -> bytes | memoryview:
        """Return a whole object, in a room if it can be, see `read_into`."""
        async with self._requests.one("get", key) as request:
            answer = await self._client.get_object(Bucket=self._bucket, Key=key)
            body: bytes | memoryview
            async with answer["Body"] as stream:
                if (announced := answer.get("ContentLength")) is None:
                    body = await stream.read()
                else:
                    request.expect(int(announced))
                    body = room = await rooms.taken(int(announced))
                    with rooms.filling(room):
                        await _fill(room, stream)
            request.received(len(body))
            return body

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        async with self._requests.one("put", key, sent_bytes=len(body)):
            await self._client.put_object(Bucket=self._bucket, Key=key, Body=as_body(body))

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`.

        A stream shorter than one part becomes a plain put. Of a longer one at most two parts are in memory: one
        on its way, one being filled.

        Raises:
            StoreRefused: also when the stream has more parts than S3 takes.
        """
        whole, size_bytes = await send_parts(
            S3Upload(self._connection, self._requests, self._policy, key=key),
            parts,
            part_bytes=self._options.part_bytes,
        )
        if whole is not None:
            small = whole
            await self._policy.run(lambda: self.put(key, small))
        return size_bytes

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, see `ObjectStore.create`."""
        async with self._requests.one("create", key, sent_bytes=len(body)):
            await self._client.put_object(Bucket=self._bucket, Key=key, Body=as_body(body), IfNoneMatch="*")

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, see `ObjectStore.list`; one request for each 1 000.

        Raises:
            StoreRefused: also when the store lists out of order, or begins the same page again: what is
                planned from such a listing would be wrong.
        """
        first = {"StartAfter": after} if after else {}
        last = after
        token: str | None = None
        while True:
            going_on = first if token is None else {"ContinuationToken": token}
            async with self._requests.one("list", prefix):
                page = await self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **going_on)
            if "IsTruncated" not in page:  # of a portal or proxy: it must not pass for an empty store
                raise StoreUnreachable(store=self.url, operation=f"list {prefix}", found="an answer that is no listing")
            for row in rows_of(page, prefix=prefix, after=after, store=self.url):
                if row.key < last:
                    found = f"{row.key!r} after {last!r} in a listing that should be in key order"
                    raise StoreRefused(store=self.url, operation=f"list {prefix}", found=found)
                if row.key > last:  # some stores repeat the last key of a page at the beginning of the next
                    last = row.key
                    yield row
            if not page.get("IsTruncated"):
                return
            before, token = token, page.get("NextContinuationToken")
            if token is None or token == before:
                found = "a listing that goes on, but does not say where"
                raise StoreRefused(store=self.url, operation=f"list {prefix}", found=found)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`; one request for each 1 000 where the store can do that."""
        for first in range(0, len(keys), _KEYS_PER_DELETE):
            batch = keys[first : first + _KEYS_PER_DELETE]
            if not (self._deletes_in_batches and len(batch) > 1 and await self._delete_batch(batch)):
                await self._delete_singly(batch)

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def _delete_batch(self, keys: Sequence[str]) -> bool:
        """Delete up to 1 000 objects by one request; return False when the store has no such request."""
        wanted = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        async with self._requests.one("delete", f"{len(keys)} objects"):
            try:
                answer = await self._client.delete_objects(Bucket=self._bucket, Delete=wanted)
            except ClientError as error:
                if status_of(error) in _NO_BATCH_STATUSES or code_of(error) in {"NotImplemented", "MethodNotAllowed"}:
                    self._deletes_in_batches = False
                    return False
                raise
        for failed in answer.get("Errors", ()):
            code = str(failed.get("Code", ""))
            if code != "NoSuchKey":
                kind = StoreUnreachable if is_busy_code(code) else StoreRefused
                raise kind(store=self.url, operation=f"delete {failed.get('Key')}", found=code)
        return True

    async def _delete_singly(self, keys: Sequence[str]) -> None:
        try:
            async with asyncio.TaskGroup() as deletions:
                for key in keys:
                    deletions.create_task(self._delete_one(key))
        except* ReplicadError as errors:
            failed = errors
        else:
            return
        raise failed.exceptions[0]

    async def _delete_one(self, key: str) -> None:
        with contextlib.suppress(ObjectMissing):
            async with self._requests.one("delete", key):
                await self._client.delete_object(Bucket=self._bucket, Key=key)


async def _fill(body: memoryview, stream: Any) -> None:  # noqa: ANN401 - aiobotocore has no types
    at = 0
    while piece := await stream.read(_PIECE_BYTES):
        end = at + len(piece)
        if end > len(body):  # something on the way unpacks what it forwards
            raise IncompleteReadError(actual_bytes=end, expected_bytes=len(body))
        body[at:end] = piece
        at = end
    if at < len(body):
        raise IncompleteReadError(actual_bytes=at, expected_bytes=len(body))
