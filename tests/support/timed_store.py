"""A store whose clock is the test's."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from replicad.store.protocol import ObjectStore, StoredObject


class TimedStore:
    """A store of any kind that says its objects were stored when `now_ms` said so."""

    def __init__(self, store: ObjectStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._stored_ms: dict[str, int] = {}

    @property
    def url(self) -> str:
        """The URL of the store beneath."""
        return self._store.url

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object."""
        return await self._store.get(key, start=start, stop=stop)

    async def put(self, key: str, body: bytes) -> None:
        """Store an object now."""
        self._note(key)
        await self._store.put(key, body)
        self._stored_ms[key] = self._now_ms()

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object now."""
        self._note(key)
        size_bytes = await self._store.put_stream(key, parts)
        self._stored_ms[key] = self._now_ms()
        return size_bytes

    async def create(self, key: str, body: bytes) -> None:
        """Store an object now, if its key is free."""
        self._note(key)
        await self._store.create(key, body)
        self._stored_ms[key] = self._now_ms()

    def _note(self, key: str) -> None:
        """Note a time for a key that is new: a listing may show it before whoever stores it hears that it stands."""
        self._stored_ms.setdefault(key, self._now_ms())

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over the objects, with the test's times."""
        async for row in self._store.list(prefix, after=after):
            stored_ms = self._stored_ms.get(row.key, self._now_ms())  # listed while it is stored: that is now
            stored_at = datetime.fromtimestamp(stored_ms / 1000, UTC)
            yield dataclasses.replace(row, modified_at=stored_at)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects."""
        await self._store.delete(keys)

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()
