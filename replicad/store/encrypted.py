"""A database's part of a store, encrypted: what is above sees plain objects, what is beneath sealed ones.

It stands above the retrying, so that a request that is tried again sends the same bytes. A `put` that a caller makes
again has another salt and so other bytes, with the same content: nothing compares stored bytes. One `create` here is
one `create` beneath. Who reads a body back to see whether it is his own compares contents.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

from replicad.encryption.sealing import SALT_BYTES, Header, ObjectCipher, decode_header, naming_key
from replicad.encryption.sizes import HEADER_BYTES, PIECE_BYTES, content_bytes, piece_of, piece_offset
from replicad.errors import Damaged, KeyNotGiven
from replicad.layout import HANDOVER, KEYRING, PROBES
from replicad.snapshot import ChunkNames
from replicad.store.keyrings import Keyrings, ids_text, read_keyring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicad.encryption.keyring import Keyring
    from replicad.encryption.keys import EncryptionKey
    from replicad.store.protocol import ObjectStore, StoredObject

_INLINE_BYTES = 256 << 10  # below this a cipher takes less time than the way into a thread and back
_MOST_HEADERS = 1_024


class EncryptedStore:
    """The objects of one database, which only the keys open.

    Args:
        store: the database's own part of the store.
        keys: the first encrypts; all decrypt.

    Every method raises, beside what `ObjectStore` says:
        WrongKey: the replica, or the object, needs another key, or none. Nothing was written.
        Damaged: the object is not what was stored under its key.
        NewerFormat: it was written by a later replicad.
    """

    def __init__(self, store: ObjectStore, keys: Sequence[EncryptionKey]) -> None:
        self._store = store
        self._keys = {key.id: key for key in keys}
        self._writing = keys[0]
        self._keyrings = Keyrings(store, keys)
        self._ciphers: OrderedDict[str, ObjectCipher] = OrderedDict()  # of objects that were read by ranges

    @property
    def url(self) -> str:
        """What messages call this store."""
        return self._store.url

    async def chunk_names(self) -> ChunkNames:
        """Return how the chunks of this replica are named."""
        replica_id = await self._keyrings.replica_id()
        return ChunkNames(keys=tuple(naming_key(key.reveal(), replica_id) for key in self._keys.values()))

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object's content, all of them proven, see `ObjectStore.get`."""
        if stop is not None and stop <= start:
            return b""
        keyring = await self._keyrings.current()
        if piece_of(start) == 0:
            return await self._get_from_front(key, keyring, start, stop)
        if key in self._ciphers:
            try:
                return await self._get_from(key, self._ciphers[key], start, stop)
            except Damaged:  # or it was put again since, with another salt
                self._ciphers.pop(key, None)
        head, sealed = await asyncio.gather(
            self._store.get(key, stop=HEADER_BYTES), self._get_pieces(key, start, stop), return_exceptions=True
        )
        for answer in (head, sealed):
            if isinstance(answer, BaseException):
                raise answer
        assert isinstance(head, bytes)  # noqa: S101 - what is left
        assert isinstance(sealed, bytes)  # noqa: S101 - likewise
        cipher = await self._cipher_of(key, head, keyring)
        self._ciphers[key] = cipher
        if len(self._ciphers) > _MOST_HEADERS:
            self._ciphers.popitem(last=False)
        return await self._cut(key, cipher, sealed, start, stop)

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        await self._store.put(key, await self._sealed(key, body))

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`; return the size of its content."""
        cipher = await self._new_cipher(key)
        size_bytes = 0

        async def sealed() -> AsyncIterator[bytes]:
            nonlocal size_bytes
            yield cipher.header
            waiting = bytearray()
            number = 0
            async for part in parts:
                size_bytes += len(part)
                waiting += part
                whole = (len(waiting) - 1) // PIECE_BYTES  # what may be the last piece waits for the end
                if whole > 0:
                    ready = bytes(memoryview(waiting)[: whole * PIECE_BYTES])
                    del waiting[: whole * PIECE_BYTES]
                    yield await _seal(cipher, ready, first=number, ends=False)
                    number += whole
            yield await _seal(cipher, bytes(waiting), first=number, ends=True)

        await self._store.put_stream(key, sealed())
        return size_bytes

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, in one attempt, see `ObjectStore.create`."""
        await self._store.create(key, await self._sealed(key, body))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, with the sizes of their contents, see `ObjectStore.list`."""
        await self._keyrings.current()
        async for row in self._store.list(prefix, after=after):
            if row.key != KEYRING:
                yield dataclasses.replace(row, size_bytes=content_bytes(row.size_bytes))

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`."""
        await self._keyrings.current()
        await self._store.delete(keys)

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()

    # --- reading -----------------------------------------------------------------------------------

    async def _get_from_front(self, key: str, keyring: Keyring | None, start: int, stop: int | None) -> bytes:
        body = await self._store.get(key, stop=None if stop is None else piece_offset(piece_of(stop - 1) + 1))
        cipher = await self._cipher_of(key, body, keyring)
        return await self._cut(key, cipher, memoryview(body)[HEADER_BYTES:], start, stop)

    async def _get_from(self, key: str, cipher: ObjectCipher, start: int, stop: int | None) -> bytes:
        return await self._cut(key, cipher, await self._get_pieces(key, start, stop), start, stop)

    async def _get_pieces(self, key: str, start: int, stop: int | None) -> bytes:
        last = None if stop is None else piece_offset(piece_of(stop - 1) + 1)
        return await self._store.get(key, start=piece_offset(piece_of(start)), stop=last)

    async def _cut(
        self, key: str, cipher: ObjectCipher, sealed: bytes | memoryview, start: int, stop: int | None
    ) -> bytes:
        """Return the range's own bytes out of its sealed pieces."""
        first = piece_of(start)
        if not len(sealed) and first:  # behind the end, if the object was not cut off: its own last piece tells
            await self.get(key)
            return b""
        asked_bytes = None if stop is None else piece_offset(piece_of(stop - 1) + 1) - piece_offset(first)
        ends = None if len(sealed) == asked_bytes else True
        if len(sealed) > _INLINE_BYTES:
            opened = await asyncio.to_thread(cipher.open, sealed, first=first, ends=ends)
        else:
            opened = cipher.open(sealed, first=first, ends=ends)
        begin = start - first * PIECE_BYTES
        end = None if stop is None else stop - first * PIECE_BYTES
        return opened if begin == 0 and (end is None or end >= len(opened)) else opened[begin:end]

    async def _cipher_of(self, name: str, body: bytes, keyring: Keyring | None) -> ObjectCipher:
        header = decode_header(body, what=name)
        key = self._keys.get(header.key_id)
        if key is None:
            raise await self._refusal(name, header)
        if keyring is not None and header.replica_id != keyring.replica_id:
            expected, found = keyring.replica_id.hex(), header.replica_id.hex()
            raise Damaged(what=name, where="replica id", expected=expected, found=f"{found}, of another database")
        return ObjectCipher(key.reveal(), header, name)

    async def _refusal(self, name: str, header: Header) -> KeyNotGiven | Damaged:
        """Return what is wrong with an object of an unknown key: one that came since, or a key id that is damaged."""
        keyring = await read_keyring(self._store)
        if keyring is not None and header.key_id not in keyring.key_ids:
            expected, found = ids_text(keyring.key_ids), f"{header.key_id.hex()}, which the replica does not know"
            return Damaged(what=name, where="key id", expected=expected, found=found)
        return KeyNotGiven(what=f"{name} in {self.url}", expected=header.key_id.hex(), found=ids_text(self._keys))

    # --- writing -----------------------------------------------------------------------------------

    async def _sealed(self, key: str, body: bytes) -> bytes:
        cipher = await self._new_cipher(key)
        return cipher.header + await _seal(cipher, body, first=0, ends=True)

    async def _new_cipher(self, key: str) -> ObjectCipher:
        self._ciphers.pop(key, None)
        # A key counts as one of the replica's with the first object of the history that needs it; notes come and go.
        keyring = await self._keyrings.for_writing(lasting=not key.startswith((HANDOVER, PROBES)))
        header = Header(key_id=self._writing.id, replica_id=keyring.replica_id, salt=secrets.token_bytes(SALT_BYTES))
        return ObjectCipher(self._writing.reveal(), header, key)


async def _seal(cipher: ObjectCipher, body: bytes, *, first: int, ends: bool) -> bytes:
    if len(body) > _INLINE_BYTES:
        return b"".join(await asyncio.to_thread(cipher.seal, body, first=first, ends=ends))
    return b"".join(cipher.seal(body, first=first, ends=ends))
