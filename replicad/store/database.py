"""One database's part of an opened store: below its name, and encrypted or known not to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.store.prefixed import PrefixedStore
from replicad.store.unencrypted import UnencryptedStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.encryption.keys import EncryptionKey
    from replicad.snapshot import ChunkNames
    from replicad.store.protocol import ObjectStore


def stored_objects(store: ObjectStore, name: str) -> ObjectStore:
    """Return the objects of a database as they are stored: for copying them, and for what must not write a keyring."""
    return PrefixedStore(store, f"{name}/")


def database_store(store: ObjectStore, name: str, keys: Sequence[EncryptionKey]) -> ObjectStore:
    """Return a database's part of a store, to read from and write to; no keys: it is not encrypted.

    Whether the keys are the replica's is found out by the first request of it (WrongKey), before anything is written.
    """
    return contents(stored_objects(store, name), keys)


def contents(objects: ObjectStore, keys: Sequence[EncryptionKey]) -> ObjectStore:
    """Return what is in objects, see `database_store`; they are a database's part of a store, as they are stored."""
    if not keys:
        return UnencryptedStore(objects)
    from replicad.store.encrypted import EncryptedStore  # noqa: PLC0415 - few need the cipher, and its extra

    return EncryptedStore(objects, keys)


async def chunk_names(store: ObjectStore) -> ChunkNames:
    """Return how the chunks are named in a database's part of a store.

    Raises:
        ReplicadError: the store cannot be read, or not with these keys.
    """
    names = getattr(store, "chunk_names", None)
    if names is None:
        from replicad.snapshot import PLAIN_NAMES  # noqa: PLC0415 - nothing of it is needed before the first claim

        return PLAIN_NAMES
    found: ChunkNames = await names()
    return found
