"""What one place has that the other lacks, found by going through both listings side by side: in no memory at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.layout import CLAIMS, EPOCHS, PRESERVE
from replicad.plan.copying import is_history, is_mark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.store.protocol import ObjectStore, StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An object of the source, and its size at the destination."""

    key: str
    here_bytes: int
    there_bytes: int | None  # None: it is not there, or is a mark that was made once more since, which may be put again


async def pairs(source: ObjectStore, destination: ObjectStore) -> AsyncIterator[Pair]:
    """Iterate over the objects of the source's history in key order: so chunks come before the manifests of an epoch.

    What the destination has beside them is passed over.
    """
    there = _history(destination)
    ahead = await anext(there, None)
    async for here in _history(source):
        while ahead is not None and ahead.key < here.key:
            ahead = await anext(there, None)
        size_bytes = ahead.size_bytes if ahead is not None and ahead.key == here.key else None
        if size_bytes != here.size_bytes and is_mark(here.key):
            size_bytes = None
        yield Pair(key=here.key, here_bytes=here.size_bytes, there_bytes=size_bytes)


async def is_there(store: ObjectStore, key: str, size_bytes: int) -> bool:
    """Return whether an object of that size is listed."""
    async for found in store.list(key):
        return found.key == key and found.size_bytes == size_bytes
    return False


async def _history(store: ObjectStore) -> AsyncIterator[StoredObject]:
    for prefix in (CLAIMS, EPOCHS, PRESERVE):
        async for found in store.list(prefix):
            if is_history(found.key):
                yield found
