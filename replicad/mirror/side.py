"""One of the two places: what is stored there, byte for byte, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from replicad.store.database import contents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.encryption.keys import EncryptionKey
    from replicad.store.encrypted import EncryptedStore
    from replicad.store.protocol import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A database's own part of a store.

    Bytes are copied as they are stored: what is encrypted stays so on its way. Where a history has to be understood, to
    copy it in the right order, and to prove what is copied, it is read through `read`.
    """

    stored: ObjectStore
    read: ObjectStore
    sealed: EncryptedStore | None = None  # what reads, where the replica is encrypted

    @classmethod
    def plain(cls, store: ObjectStore) -> Self:
        """Return a side whose objects are stored as they are read."""
        return cls(stored=store, read=store)

    @classmethod
    def of(cls, objects: ObjectStore, keys: Sequence[EncryptionKey]) -> Self:
        """Return a side with these objects, as they are stored; no keys: it is not encrypted."""
        read = contents(objects, keys)
        return cls(stored=objects, read=read, sealed=cast("EncryptedStore", read) if keys else None)
