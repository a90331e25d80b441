"""An object store inside the process, for tests and simulation."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicad.errors import ObjectExists, ObjectMissing
from replicad.store.protocol import StoredObject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryStore:
    """A dict; each operation happens at once, between two steps of the event loop."""

    def __init__(self, name: str = "memory", *, now: Callable[[], datetime] = _now) -> None:
        self.url = f"memory://{name}"
        self._now = now  # the store's clock; a simulation has its own
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        if key not in self._objects:
            raise ObjectMissing(key=key, store=self.url)
        return self._objects[key][0][start:stop]

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        self._objects[key] = bytes(body), self._now()

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`; all of it is in memory anyway."""
        body = b"".join([part async for part in parts])
        await self.put(key, body)
        return len(body)

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, see `ObjectStore.create`."""
        if key in self._objects:
            raise ObjectExists(key=key, store=self.url)
        await self.put(key, body)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, as they were at the first step, see `ObjectStore.list`."""
        keys = sorted(key for key in self._objects if key.startswith(prefix))
        found = {key: self._objects[key] for key in keys[bisect_right(keys, after) :]}
        for key, (body, modified_at) in found.items():
            yield StoredObject(key=key, size_bytes=len(body), modified_at=modified_at)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`."""
        for key in keys:
            self._objects.pop(key, None)

    async def close(self) -> None:
        """Do nothing: another opening of the same name goes on with the same objects."""
