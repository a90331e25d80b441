"""What replicad asks of an object store: eight methods, no more.

Objects are immutable: a key is written once, or written again with the same bytes after a lost
answer. Implementations raise only `StoreUnreachable` (worth another try), `StoreRefused` (not worth
one; `ConditionalWritesUnsupported` is one kind of it), `NoSpace`, `ObjectMissing`, `ObjectExists` and
`CreateUndecided` from `replicad.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One row of a listing."""

    key: str
    size_bytes: int
    modified_at: datetime  # aware, UTC, by the store's clock


class ObjectStore(Protocol):
    """A flat map from key to bytes, below one prefix."""

    @property
    def url(self) -> str:
        """What messages call this store: a URL without secrets."""
        ...

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object; `stop` None means to its end.

        A body shorter than the store announced is an error of the transport (StoreUnreachable), never
        returned. A range past the end gives what there is; an empty one gives nothing, and need not ask.

        Raises:
            ObjectMissing: there is no such key.
        """
        ...

    async def put(self, key: str, body: bytes) -> None:
        """Store an object durably. Safe to repeat with the same bytes."""
        ...

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size front to back; return its size in bytes.

        Nothing is visible under the key before all of it is durable; nothing is left when `parts` raises.
        Memory is bounded by a few parts, whatever the size. Nothing tries the whole again after an error: the
        caller does, with a new iterator.
        """
        ...

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if the key is free, in one attempt that nothing below resends.

        Raises:
            ObjectExists: the key was taken. After a lost answer it may have been taken by this very call:
                read it back to tell.
            CreateUndecided: the store said neither yes nor no (a 409, or no answer at all). Read it back.
            ConditionalWritesUnsupported: the store cannot do this.
        """
        ...

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over the objects whose key begins with `prefix` and sorts behind `after`, in key order."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; keys that do not exist are no error."""
        ...

    async def close(self) -> None:
        """Release connections. Nothing may be called afterwards."""
        ...
