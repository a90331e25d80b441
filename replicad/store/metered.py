"""Counting requests: how many, how long they took, how they ended, and how many bytes went each way.

Requests are what an object store is paid for, so every attempt counts, those that fail as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from replicad.errors import (
    CreateUndecided,
    NoSpace,
    ObjectExists,
    ObjectMissing,
    ReplicadError,
    StoreRefused,
    StoreUnreachable,
)
from replicad.store.into import read_into

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from replicad.store.into import Rooms
    from replicad.store.protocol import ObjectStore, StoredObject

_OUTCOMES: dict[type[ReplicadError], str] = {
    ObjectMissing: "missing",
    ObjectExists: "exists",
    CreateUndecided: "undecided",
    StoreUnreachable: "unreachable",
    StoreRefused: "refused",
    NoSpace: "no_space",
}
OUTCOMES = ("ok", *_OUTCOMES.values(), "failed", "cancelled")
"""Every outcome an observer can be told of."""


class RequestObserver(Protocol):
    """Whoever wants to know about requests; called in the event loop, so it must not block."""

    def request(self, verb: str, outcome: str, seconds: float, sent_bytes: int, received_bytes: int) -> None:
        """Take note of one finished request.

        Args:
            verb: What was asked for: get, put, create, list, delete, begin, part, complete or abort.
            outcome: One of `OUTCOMES`.
            seconds: From the moment it was sent to the end of the answer.
            sent_bytes: Bytes of the body sent.
            received_bytes: Bytes of object bodies received.
        """
        ...


class Measured:
    """What one request moved, filled in while it runs."""

    __slots__ = ("received_bytes", "sent_bytes")

    def __init__(self, sent_bytes: int) -> None:
        self.sent_bytes = sent_bytes
        self.received_bytes = 0


@contextlib.contextmanager
def measured(observer: RequestObserver | None, verb: str, *, sent_bytes: int = 0) -> Iterator[Measured]:
    """Tell the observer of the request made inside, however it ends."""
    loop = asyncio.get_running_loop()
    begun, moved, outcome = loop.time(), Measured(sent_bytes), "failed"
    try:
        yield moved
        outcome = "ok"
    except ReplicadError as error:
        outcome = next((name for kind, name in _OUTCOMES.items() if isinstance(error, kind)), "failed")
        raise
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "cancelled"
        raise
    finally:
        if observer is not None:
            observer.request(verb, outcome, loop.time() - begun, moved.sent_bytes, moved.received_bytes)


class MeteredStore:
    """A store whose every operation is one request (a folder, memory), with its requests counted.

    The S3 store counts by itself: there one operation can be many requests.
    """

    def __init__(self, store: ObjectStore, observer: RequestObserver) -> None:
        self._store = store
        self._observer = observer

    @property
    def url(self) -> str:
        """What messages call this store."""
        return self._store.url

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        with measured(self._observer, "get") as moved:
            body = await self._store.get(key, start=start, stop=stop)
            moved.received_bytes = len(body)
            return body

    async def get_into(self, key: str, rooms: Rooms) -> bytes | memoryview:
        """Return a whole object, in a room if it can be, see `read_into`."""
        with measured(self._observer, "get") as moved:
            body = await read_into(self._store, key, rooms)
            moved.received_bytes = len(body)
            return body

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        with measured(self._observer, "put", sent_bytes=len(body)):
            await self._store.put(key, body)

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`."""
        with measured(self._observer, "put") as moved:
            moved.sent_bytes = await self._store.put_stream(key, parts)
            return moved.sent_bytes

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, see `ObjectStore.create`."""
        with measured(self._observer, "create", sent_bytes=len(body)):
            await self._store.create(key, body)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, see `ObjectStore.list`; counted as one request."""
        with measured(self._observer, "list"):
            async for row in self._store.list(prefix, after=after):
                yield row

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`."""
        with measured(self._observer, "delete"):
            await self._store.delete(keys)

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()
