"""Which keys a replica needs, looked up before the first object of it is read or written, and kept up to date."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.encryption.keyring import Keyring, decode_keyring
from replicad.encryption.keys import ciphers
from replicad.encryption.sizes import HEADER_BYTES
from replicad.errors import (
    ConditionalWritesUnsupported,
    CreateUndecided,
    ObjectExists,
    ObjectMissing,
    StoreUnreachable,
    WrongKey,
)
from replicad.layout import CLAIMS, EPOCHS, KEYRING
from replicad.observe import events
from replicad.observe.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from replicad.encryption.keys import EncryptionKey
    from replicad.store.protocol import ObjectStore

NO_KEY = "no key"

_NEW_PREFIX = (
    "An encrypted replica begins empty: give `replica` another prefix, and the next start stores the whole database"
    " there; or take the key away."
)


def ids_text(ids: Iterable[bytes]) -> str:
    """Return key ids for messages."""
    known = [key_id.hex() for key_id in ids]
    return f"the key{'s' if len(known) > 1 else ''} {', '.join(known)}"


async def read_keyring(store: ObjectStore) -> Keyring | None:
    """Return the keyring of a database's part of a store; None when there is none.

    Raises:
        Damaged, NewerFormat: what stands there is none that can be read.
        StoreUnreachable, StoreRefused: it is not known.
    """
    try:
        return decode_keyring(await store.get(KEYRING), what=KEYRING)
    except ObjectMissing:
        return None


class Keyrings:
    """The keyring of one replica, held against the keys that are given. Lives on the event loop.

    Args:
        store: the database's own part of the store, not encrypted.
        keys: the first encrypts; all decrypt.
    """

    def __init__(self, store: ObjectStore, keys: Sequence[EncryptionKey]) -> None:
        self._store = store
        self._mine = keys[0]
        self._given = {key.id for key in keys}
        self._ids = tuple(key.id for key in keys)
        self._known: Keyring | None = None
        self._stored = False  # as it is known
        self._looking = asyncio.Lock()

    async def current(self) -> Keyring | None:
        """Return the keyring; None as long as nothing was ever stored.

        Raises:
            WrongKey: it names a key that is not given, or what is stored is not encrypted.
        """
        if self._known is None:
            async with self._looking:
                if self._known is None:
                    self._known = await self._look()
        return self._known

    async def replica_id(self) -> bytes:
        """Return the replica's id, also before anything is stored; raises as `current`."""
        keyring = await self.current()
        found: bytes = keyring.replica_id if keyring else self._new().replica_id
        return found

    async def for_writing(self, *, lasting: bool) -> Keyring:
        """Return the keyring, stored before anything that needs it; raises as `current`.

        Args:
            lasting: what is to be written is part of the history: from then on nobody may read it without the key.
        """
        await self.current()
        async with self._looking:
            while self._known is None or not self._stored or (lasting and self._mine.id not in self._known.key_ids):
                self._known = await self._store_again(self._known)
            return self._known

    async def _look(self) -> Keyring | None:
        keyring = await read_keyring(self._store)
        if keyring is None:
            newest = await self._newest_object()
            if newest == KEYRING:  # stored since
                keyring = await read_keyring(self._store)
            elif newest is not None:
                return await self._from_object(newest)
        self._stored = keyring is not None
        if keyring is not None:
            self._check(keyring)
        return keyring

    async def _newest_object(self) -> str | None:
        """Return the key of the newest claim, or of any object where there is none; the keyring's if it is there."""
        newest: str | None = None
        async for row in self._store.list(CLAIMS):
            newest = row.key
        if newest is None:
            async for row in self._store.list(EPOCHS):
                return row.key
        return newest

    async def _from_object(self, newest: str) -> Keyring:
        """Return what an object says of the keyring, which somebody deleted."""
        self._stored = False
        head = await self._store.get(newest, stop=HEADER_BYTES)
        sealing = ciphers()
        if not sealing.is_sealed(head):
            raise WrongKey(
                what=self._store.url,
                expected=f"{NO_KEY}, because {newest} is not encrypted",
                found=ids_text(self._ids),
                hint=_NEW_PREFIX,
            )
        header = sealing.decode_header(head, what=newest)
        keyring = Keyring(replica_id=header.replica_id, key_ids=(header.key_id,))
        self._check(keyring)
        return keyring

    def _check(self, keyring: Keyring) -> None:
        if self._given.issuperset(keyring.key_ids):
            return
        raise WrongKey(
            what=self._store.url,
            expected=ids_text(keyring.key_ids),
            found=ids_text(self._ids),
            hint="Give every key that is expected, the newest first. `replicad key list` shows what needs which, and"
            " `replicad key retire` takes one off that nothing needs any more.",
        )

    def _new(self) -> Keyring:
        replica_id = ciphers().new_replica_id(self._mine.reveal(), self._store.url)
        return Keyring(replica_id=replica_id, key_ids=(self._mine.id,))

    async def _store_again(self, known: Keyring | None) -> Keyring:
        """Store the keyring with this key in it, and read it back: of two that do so at once both go by what stands."""
        known = await self._look() or known  # somebody else may have stored one since, or put a key on it
        if known is None:
            try:
                await self._store.create(KEYRING, self._new().encode())
            except (ObjectExists, CreateUndecided):  # what stands there tells
                pass
            except ConditionalWritesUnsupported:
                await self._store.put(KEYRING, self._new().encode())
        else:
            ids = tuple(dict.fromkeys((self._mine.id, *known.key_ids)))
            await self._store.put(KEYRING, Keyring(replica_id=known.replica_id, key_ids=ids).encode())
        found = await read_keyring(self._store)
        if found is None:
            raise StoreUnreachable(store=self._store.url, operation=f"put {KEYRING}", found="no object afterwards")
        self._check(found)
        self._stored = True
        keys = [key_id.hex() for key_id in found.key_ids]
        get_logger().info(events.KEYRING_STORED, store=self._store.url, keys=keys)
        return found
