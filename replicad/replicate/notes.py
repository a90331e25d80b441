"""What was stored and deleted in a store, in order, for whoever repeats it elsewhere: in a memory that has a bound.

Whoever repeats what was done, in the order in which it was done, never shows a state that the store did not have.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.layout import KEYRING
from replicad.plan.copying import is_history

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from replicad.plan.listing import SegmentObject
    from replicad.store.protocol import ObjectStore, StoredObject

_LIMIT = 4_096  # notes: a megabyte


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object was stored."""

    number: int  # of all notes, from 1
    at_ms: int
    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """An object was deleted by its owner, who had planned that; not one that somebody lost."""

    number: int
    at_ms: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What a roll-up holds was deleted by its owner."""

    number: int
    at_ms: int
    rollup: SegmentObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """Preserve marks were made or taken away, by whomever."""

    number: int
    at_ms: int


Note = Stored | Deleted | Replaced | Marked


class Notes:
    """Lives on the event loop. When there are too many, all are forgotten: `complete` says whether that happened."""

    def __init__(self, now_ms: Callable[[], int], *, limit: int = _LIMIT) -> None:
        self.complete = False  # since `begin`, nothing was forgotten
        self.count = 0  # of all notes ever
        self.since_ms: int | None = None  # what was stored then is not known to have been repeated
        self._now_ms = now_ms
        self._limit = limit
        self._waiting: deque[Note] = deque()
        self._marks: frozenset[str] | None = None  # that there were when that was last told
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self) -> None:
        """Be complete from here on: what was before, the caller finds out by listing."""
        self.complete = True

    def on_stored(self, key: str, size_bytes: int) -> None:
        """Note that an object is stored, as large as it is there."""
        if is_history(key) or key == KEYRING:
            self.count += 1
            self._add(Stored(number=self.count, at_ms=self._now_ms(), key=key, size_bytes=size_bytes))

    def on_removed(self, keys: Iterable[str]) -> None:
        """Note that objects were deleted, by plan, see `removal.Observer`."""
        for key in filter(is_history, keys):
            self.count += 1
            self._add(Deleted(number=self.count, at_ms=self._now_ms(), key=key))

    def on_replaced(self, rollup: SegmentObject) -> None:
        """Note that what a roll-up holds was deleted, see `removal.Observer`."""
        self.count += 1
        self._add(Replaced(number=self.count, at_ms=self._now_ms(), rollup=rollup))

    def on_marks(self, keys: Iterable[str]) -> None:
        """Note that there are other preserve marks than before, see `removal.Observer`."""
        if (marks := frozenset(keys)) != self._marks:
            self._marks = marks
            self.count += 1
            self._add(Marked(number=self.count, at_ms=self._now_ms()))

    async def until_any(self) -> None:
        """Wait for a note, or for too many."""
        while not self._waiting and self.complete:
            self._changed.clear()
            await self._changed.wait()

    async def until_more(self, count: int) -> None:
        """Wait until there have been more notes than so many."""
        while self.count <= count:
            self._changed.clear()
            await self._changed.wait()

    def first(self) -> Note | None:
        """Return the oldest note."""
        return self._waiting[0] if self._waiting else None

    def alike(self, most: int, *, part: str) -> list[Stored]:
        """Return the oldest notes as long as they are of stored objects with this part in their key."""
        found: list[Stored] = []
        for note in self._waiting:
            if not isinstance(note, Stored) or part not in note.key or len(found) == most:
                break
            found.append(note)
        return found

    def deletions(self, most: int) -> list[Deleted]:
        """Return the oldest notes as long as they are of deletions."""
        found: list[Deleted] = []
        for note in self._waiting:
            if not isinstance(note, Deleted) or len(found) == most:
                break
            found.append(note)
        return found

    def done(self, count: int = 1) -> None:
        """Forget the oldest notes: they were repeated."""
        for _ in range(min(count, len(self._waiting))):
            self._waiting.popleft()
        if self.complete:
            self.since_ms = self._waiting[0].at_ms if self._waiting else None

    def done_by_listing(self, number: int) -> None:
        """Forget what was stored up to a note: a listing since has shown it. Deletions no listing shows."""
        kept = [note for note in self._waiting if note.number > number or not isinstance(note, Stored)]
        self._waiting = deque(kept)
        if self.complete:
            self.since_ms = kept[0].at_ms if kept else None

    def _add(self, note: Note) -> None:
        if self.since_ms is None:
            self.since_ms = note.at_ms
        if len(self._waiting) >= self._limit:
            self._waiting.clear()
            self.complete = False
        if self.complete:
            self._waiting.append(note)
        self._changed.set()


class NotingStore:
    """A store that notes what is stored in it.

    What is deleted is not noted here: why it was counts, and that `Removal` tells.
    """

    def __init__(self, store: ObjectStore, notes: Sequence[Notes]) -> None:
        self._store = store
        self._notes = notes

    @property
    def url(self) -> str:
        """What messages call this store."""
        return self._store.url

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of an object, see `ObjectStore.get`."""
        return await self._store.get(key, start=start, stop=stop)

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, see `ObjectStore.put`."""
        await self._store.put(key, body)
        self._note(key, len(body))

    async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
        """Store an object of unknown size, see `ObjectStore.put_stream`."""
        size_bytes = await self._store.put_stream(key, parts)
        self._note(key, size_bytes)
        return size_bytes

    async def create(self, key: str, body: bytes) -> None:
        """Store an object if its key is free, see `ObjectStore.create`.

        One whose answer was lost is not noted: whoever repeats what is done has to look for the claim of an epoch
        before anything else of it.
        """
        await self._store.create(key, body)
        self._note(key, len(body))

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """Iterate over objects in key order, see `ObjectStore.list`."""
        return self._store.list(prefix, after=after)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, see `ObjectStore.delete`."""
        await self._store.delete(keys)

    async def close(self) -> None:
        """Close the store beneath."""
        await self._store.close()

    def _note(self, key: str, size_bytes: int) -> None:
        for notes in self._notes:
            notes.on_stored(key, size_bytes)
