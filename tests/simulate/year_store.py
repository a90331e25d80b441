"""The bucket of a simulated year: a folder, with times of the simulated clock, requests counted and priced by verb."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.support.timed_store import TimedStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from replicad.store.protocol import ObjectStore, StoredObject

_LISTED_AT_ONCE = 1_000  # rows of S3's answer to one LIST
_DELETED_AT_ONCE = 1_000
_PART_BYTES = 8 << 20

Verb = Literal["put", "get", "list", "delete"]


@dataclass
class Traffic:
    """Requests as S3 would count them, and bytes of bodies."""

    requests: Counter[str] = field(default_factory=Counter)  # by verb
    sent_bytes: int = 0
    received_bytes: int = 0

    def add(self, verb: Verb, count: int = 1, *, sent_bytes: int = 0, received_bytes: int = 0) -> None:
        """Count requests of a verb."""
        self.requests[verb] += count
        self.sent_bytes += sent_bytes
        self.received_bytes += received_bytes

    def since(self, before: Traffic) -> Traffic:
        """Return what came after an earlier copy."""
        return Traffic(
            self.requests - before.requests,
            self.sent_bytes - before.sent_bytes,
            self.received_bytes - before.received_bytes,
        )

    def copy(self) -> Traffic:
        """Return what was counted so far."""
        return Traffic(Counter(self.requests), self.sent_bytes, self.received_bytes)


@dataclass
class Bucket:
    """What is stored, as its owner's bill sees it. `weigh` is called before anything changes."""

    now_ms: Callable[[], int]
    sizes: dict[str, int] = field(default_factory=dict)
    times_ms: dict[str, int] = field(default_factory=dict)
    stored_bytes: int = 0
    byte_ms: int = 0  # bytes stored, times milliseconds
    most_bytes: int = 0
    _since_ms: int | None = None

    def weigh(self) -> None:
        """Count what was stored until now."""
        now_ms = self.now_ms()
        self.byte_ms += self.stored_bytes * (now_ms - (now_ms if self._since_ms is None else self._since_ms))
        self._since_ms = now_ms

    def put(self, key: str, size_bytes: int) -> None:
        """Note that an object is stored."""
        self.weigh()
        self.stored_bytes += size_bytes - self.sizes.get(key, 0)
        self.most_bytes = max(self.most_bytes, self.stored_bytes)
        self.sizes[key], self.times_ms[key] = size_bytes, self.now_ms()

    def delete(self, keys: Sequence[str]) -> None:
        """Note that objects are gone."""
        self.weigh()
        for key in keys:
            self.stored_bytes -= self.sizes.pop(key, 0)
            self.times_ms.pop(key, None)


class CountedStore(TimedStore):
    """Counts what somebody asks of the bucket."""

    def __init__(self, store: ObjectStore, bucket: Bucket, traffic: Traffic) -> None:
        super().__init__(store, bucket.now_ms)
        self._stored_ms = bucket.times_ms
        self.bucket = bucket
        self.traffic = traffic

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object."""
        self.traffic.add("get")
        body = await super().get(key, start=start, stop=stop)
        self.traffic.received_bytes += len(body)
        return body

    async def put(self, key: str, body: bytes) -> None:
        """Store an object now."""
        self.traffic.add("put", sent_bytes=len(body))
        await self._store.put(key, body)
        self.bucket.put(key, len(body))

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object now; a large one is sent in parts, each a request, and begun and completed by one."""
        size_bytes = await self._store.put_stream(key, parts)
        requests = 1 if size_bytes <= _PART_BYTES else 2 - -size_bytes // _PART_BYTES
        self.traffic.add("put", requests, sent_bytes=size_bytes)
        self.bucket.put(key, size_bytes)
        return size_bytes

    async def create(self, key: str, body: bytes) -> None:
        """Store an object now, if its key is free."""
        self.traffic.add("put", sent_bytes=len(body))
        await self._store.create(key, body)
        self.bucket.put(key, len(body))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over the objects; each thousand is a request."""
        rows = 0
        async for row in super().list(prefix, after=after):
            if rows % _LISTED_AT_ONCE == 0:
                self.traffic.add("list")
            rows += 1
            yield row
        if not rows:
            self.traffic.add("list")

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; each thousand is a request."""
        self.traffic.add("delete", -(-len(keys) // _DELETED_AT_ONCE))
        await self._store.delete(keys)
        self.bucket.delete(keys)


class Witness(CountedStore):
    """Tells somebody what was stored: key and body."""

    def __init__(self, store: ObjectStore, bucket: Bucket, told: Callable[[str, bytes], None]) -> None:
        super().__init__(store, bucket, Traffic())
        self._told = told

    async def put(self, key: str, body: bytes) -> None:
        """Store an object now."""
        await super().put(key, body)
        self._told(key, body)


class MortalStore:
    """The same for one process, which dies at one of its requests: before it, or when it was done and nobody was told.

    A deletion of many may also have been done in part.
    """

    def __init__(self, store: CountedStore) -> None:
        self.died = asyncio.Event()
        self.at = ""  # which request it died at
        self._store = store
        self._left: int | None = None
        self._kind = ""
        self._share = 0.0

    @property
    def url(self) -> str:
        """The URL of the store beneath."""
        return self._store.url

    def die_at(self, requests: int, share: float, kind: str = "") -> None:
        """Die at the request so many from now of those with a text in verb or key; `share` of it is done by then."""
        self._left, self._share, self._kind = requests, share, kind

    def kill(self) -> None:
        """Die now, between two requests."""
        self.died.set()

    async def _may(self, verb: str, key: str) -> bool:
        """Return whether this request is the last one; a process that is dead makes none."""
        if self.died.is_set():
            raise asyncio.CancelledError
        if self._left is None or self._kind not in f"{verb} {key}":
            return False
        self._left -= 1
        if self._left > 0:
            return False
        if self._share < 1 / 3:
            await self._die(verb, key)
        return True

    async def _die(self, verb: str, key: str) -> None:
        self.at = f"{verb} {key}"
        self.died.set()
        await asyncio.Event().wait()  # until the task is cancelled: nobody is told of anything

    @asynccontextmanager
    async def _request(self, verb: str, key: str) -> AsyncIterator[bool]:
        """Make a request, and die behind it if it is the last one, which is told."""
        last = await self._may(verb, key)
        yield last
        if last:
            await self._die(verb, key)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object."""
        async with self._request("get", key):
            return await self._store.get(key, start=start, stop=stop)

    async def put(self, key: str, body: bytes) -> None:
        """Store an object now."""
        async with self._request("put", key):
            await self._store.put(key, body)

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object now."""
        async with self._request("put", key):
            return await self._store.put_stream(key, parts)

    async def create(self, key: str, body: bytes) -> None:
        """Store an object now, if its key is free."""
        async with self._request("put", key):
            await self._store.create(key, body)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over the objects."""
        async with self._request("list", prefix):
            async for row in self._store.list(prefix, after=after):
                yield row

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, of which a dying process deletes some."""
        async with self._request("delete", keys[0] if keys else "") as last:
            await self._store.delete(list(keys)[::2] if last and self._share < 2 / 3 else keys)

    async def close(self) -> None:
        """Leave the store beneath open: others use it."""


def kind_of_request(at: str) -> str:
    """Return verb and folder of a request, as `MortalStore.at` names it."""
    verb, _, key = at.partition(" ")
    folders = ("log", "snapshots", "chunks", "claims", "handover", "probes", "preserve")
    folder = next((name for name in folders if f"{name}/" in f"{key}/"), key.rpartition("/")[2] or "everything")
    return f"{verb} {folder}"
