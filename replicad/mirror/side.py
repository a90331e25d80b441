"""One of the two places: what is stored there, byte for byte, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from replicad.store.protocol import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A database's own part of a store.

    Bytes are copied as they are stored, whatever they are wrapped in. Where a history has to be understood, to copy it
    in the right order, it is read through `read`.
    """

    stored: ObjectStore
    read: ObjectStore

    @classmethod
    def plain(cls, store: ObjectStore) -> Self:
        """Return a side whose objects are stored as they are read."""
        return cls(stored=store, read=store)

    @property
    def is_plain(self) -> bool:
        """Whether what is stored can be checked as it is."""
        return self.stored is self.read
