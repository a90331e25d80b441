from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicad.errors import ObjectExists
from replicad.layout import chunk_key, claim_key, handover_key, start_key
from replicad.position import Epoch
from replicad.replicate.notes import Deleted, Notes, NotingStore, Stored
from replicad.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONE = Epoch(1)


def notes(limit: int = 10) -> Notes:
    """Return notes that have begun."""
    found = Notes(lambda: 77, limit=limit)
    found.begin()
    return found


def chunk(number: int) -> str:
    """Return the key of a chunk."""
    return chunk_key(ONE, f"{number:064x}")


async def parts() -> AsyncIterator[bytes]:
    """Return a stream of five bytes."""
    yield b"ab"
    yield b"cde"


async def test_everything_that_succeeds_is_noted_in_order() -> None:
    """A put, a stream, a create and a deletion by plan leave a note each, with the size; what fails leaves none."""
    found = notes()
    store = NotingStore(MemoryStore(), [found])
    await store.create(claim_key(ONE), b"me")
    with pytest.raises(ObjectExists):
        await store.create(claim_key(ONE), b"me")
    await store.put(start_key(ONE), b"abc")
    assert await store.put_stream(chunk(1), parts()) == 5
    await store.put(handover_key(ONE), b"no history")
    await store.delete([chunk(2)])  # why, `Removal` tells
    found.on_removed([chunk(1), "probes/1"])
    seen = []
    while (note := found.first()) is not None:
        assert isinstance(note, Stored | Deleted)
        seen.append((type(note), note.key, note.size_bytes if isinstance(note, Stored) else None))
        found.done()
    assert seen == [
        (Stored, claim_key(ONE), 2),
        (Stored, start_key(ONE), 3),
        (Stored, chunk(1), 5),
        (Deleted, chunk(1), None),
    ]


def test_too_many_notes_are_none() -> None:
    """Beyond the limit all are forgotten, nothing more is kept until a listing, and since when is remembered."""
    found = notes(limit=3)
    for number in range(5):
        found.on_stored(chunk(number), 1)
    assert (len(found), found.complete, found.since_ms, found.count) == (0, False, 77, 5)
    found.done(2)
    assert found.since_ms == 77
    found.begin()
    found.on_stored(chunk(9), 1)
    found.done_by_listing(5)
    assert [note.key for note in found.alike(9, part="/chunks/")] == [chunk(9)]


def test_a_listing_does_away_with_what_was_stored_and_not_with_deletions() -> None:
    """What was stored before a listing is in it; that something was deleted by plan, no listing tells."""
    found = notes()
    found.on_stored(chunk(1), 1)
    found.on_removed([chunk(2)])
    before = found.count
    found.on_stored(chunk(3), 1)
    found.done_by_listing(before)
    assert [note.key for note in found.deletions(9)] == [chunk(2)]
    found.done()
    assert [note.key for note in found.alike(9, part="/chunks/")] == [chunk(3)]
