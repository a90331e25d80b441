"""A database's part of a store, for whoever has no key: what is encrypted is refused, before anything is written.

It costs no request where the first one is a listing of the claims, as every start's and every reader's is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.encryption.sizes import MAGIC
from replicad.errors import Damaged, NewerFormat, WrongKey
from replicad.layout import KEYRING
from replicad.store.into import read_into
from replicad.store.keyrings import NO_KEY, ids_text, read_keyring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicad.encryption.keyring import Keyring
    from replicad.store.into import Rooms
    from replicad.store.protocol import ObjectStore, StoredObject


class UnencryptedStore:
    """The objects of one database that is not encrypted.

    Every method raises WrongKey, beside what `ObjectStore` says, when it is.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._looked = False

    @property
    def url(self) -> str:
        """What messages call this store."""
        return self._store.url

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        body = await self._store.get(key, start=start, stop=stop)
        if start == 0 and body.startswith(MAGIC):
            raise await self._refusal()
        return body

    async def get_into(self, key: str, rooms: Rooms) -> bytes | memoryview:
        """Return a whole object, in a room if it can be, see `read_into`."""
        body = await read_into(self._store, key, rooms)
        if body[: len(MAGIC)] == MAGIC:
            raise await self._refusal()
        return body

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        await self._look()
        await self._store.put(key, body)

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`."""
        await self._look()
        return await self._store.put_stream(key, parts)

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, see `ObjectStore.create`."""
        await self._look()
        await self._store.create(key, body)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, see `ObjectStore.list`."""
        async for row in self._store.list(prefix, after=after):
            if row.key == KEYRING:
                raise await self._refusal()
            yield row
        self._looked = self._looked or (KEYRING.startswith(prefix) and after < KEYRING)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`."""
        await self._look()
        await self._store.delete(keys)

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()

    async def _look(self) -> None:
        """Raise WrongKey when there is a keyring."""
        if self._looked:
            return
        try:
            keyring = await read_keyring(self._store)
        except (Damaged, NewerFormat):
            raise await self._refusal() from None
        if keyring is not None:
            raise await self._refusal()
        self._looked = True

    async def _refusal(self) -> WrongKey:
        keyring: Keyring | None = None
        try:
            keyring = await read_keyring(self._store)
        except (Damaged, NewerFormat):  # encrypted it is, whatever stands there
            keyring = None
        return WrongKey(
            what=self._store.url,
            expected=ids_text(keyring.key_ids) if keyring else "a key, because it is encrypted",
            found=NO_KEY,
            hint="Set encryption_key or encryption_key_file.",
        )
