"""A store seen from below a prefix: what a database, or a URL with a prefix, works with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from replicad.store.into import read_into
from replicad.store.url import join_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicad.store.into import Rooms
    from replicad.store.protocol import ObjectStore, StoredObject


class PrefixedStore:
    """The objects of a store whose key begins with `prefix`, under their keys without it.

    The prefix ends with a slash, so that `app` never sees the objects of `app2`. Messages of the store
    beneath name the whole key. A `shared` store beneath stays open when this one is closed: many databases
    live in one store.
    """

    def __init__(self, store: ObjectStore, prefix: str, *, shared: bool = True) -> None:
        if prefix.startswith("/") or not prefix.endswith("/"):
            raise ValueError(f"a prefix begins without and ends with a slash, found {prefix!r}")
        self._store = store
        self._prefix = prefix
        self._shared = shared

    @property
    def url(self) -> str:
        """What messages call this store."""
        return join_url(self._store.url, self._prefix)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        return await self._store.get(self._prefix + key, start=start, stop=stop)

    async def get_into(self, key: str, rooms: Rooms) -> bytes | memoryview:
        """Return a whole object, in a room if it can be, see `read_into`."""
        return await read_into(self._store, self._prefix + key, rooms)

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        await self._store.put(self._prefix + key, body)

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`."""
        return await self._store.put_stream(self._prefix + key, parts)

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, see `ObjectStore.create`."""
        await self._store.create(self._prefix + key, body)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, see `ObjectStore.list`."""
        cut = len(self._prefix)
        async for row in self._store.list(self._prefix + prefix, after=self._prefix + after if after else ""):
            yield dataclasses.replace(row, key=row.key[cut:])

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`."""
        await self._store.delete([self._prefix + key for key in keys])

    async def close(self) -> None:
        """Close the store beneath, unless it is shared."""
        if not self._shared:
            await self._store.close()
