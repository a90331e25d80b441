"""Reading what a store holds, in few requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicad.errors import Damaged, ObjectMissing
from replicad.layout import chunk_key, claim_key, start_key
from replicad.ownership.records import encode_record
from replicad.position import Epoch
from replicad.restore.history import list_history, read_history
from replicad.store.memory import MemoryStore
from tests.support.line_of_keys import end, segment, snapshot, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicad.plan.listing import Listing
    from replicad.store.protocol import StoredObject


class CountingStore(MemoryStore):
    """Counts requests as S3 would: a LIST for each 1 000 keys."""

    def __init__(self) -> None:
        super().__init__()
        self.lists = 0
        self.gets: list[str] = []
        self.keys_listed = 0

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object, counted."""
        self.gets.append(key)
        return await super().get(key, start=start, stop=stop)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """List objects, counted by pages."""
        listed = 0
        self.lists += 1
        async for found in super().list(prefix, after=after):
            if listed and listed % 1000 == 0:
                self.lists += 1
            listed += 1
            self.keys_listed += 1
            yield found


async def fill(store: MemoryStore, *, epochs: int, chunks: int) -> None:
    """Store a history of so many epochs with a segment, a snapshot and chunks each."""
    for epoch in range(1, epochs + 1):
        await store.put(claim_key(Epoch(epoch)), b"{}")
        await store.put(start_key(Epoch(epoch)), encode_record(start(epoch, epoch - 1, 2 * (epoch - 1))))
        await store.put(segment(2 * epoch - 1, 2 * epoch, epoch, epoch=epoch)[0], b"x" * epoch)
        await store.put(snapshot(2 * epoch, epoch, epoch=epoch)[0], b"y")
        for number in range(chunks):
            await store.put(chunk_key(Epoch(epoch), f"{number:064x}"), b"z")
    await store.put("epochs/00000001/end.json", encode_record(end(1, 2)))
    await store.put(f"epochs/{epochs:08x}/end.json", encode_record(end(epochs, 2 * epochs)))
    await store.put("epochs/zzz.txt", b"of someone else")


async def test_everything_but_chunks_is_read() -> None:
    """Segments, snapshots, claims and starts of every epoch are found, and the end of the newest."""
    store = CountingStore()
    await fill(store, epochs=3, chunks=2)
    history = await read_history(store)
    assert (len(history.listing.segments), len(history.listing.manifests)) == (3, 3)
    assert (sorted(history.starts), sorted(history.ends)) == ([1, 2, 3], [3])
    assert history.listing.ends == {1, 3}
    assert (sorted(history.listing.claims), history.listing.foreign) == ([1, 2, 3], 1)
    assert history.label == store.url


async def test_the_end_of_a_named_epoch_is_read_too() -> None:
    """The end that `--epoch` runs to is read, though it is not the newest's."""
    store = CountingStore()
    await fill(store, epochs=3, chunks=0)
    assert sorted((await read_history(store, epoch=Epoch(1))).ends) == [1, 3]


async def test_no_head_per_object_and_no_list_through_all_chunks() -> None:
    """TRAP: a timestamp needs no HEAD or GET per object; times stand in the keys.

    Also, thousands of chunks do not have to be listed. Seen to fail (12 LISTs, 12 009 keys) without the jump in
    `_list_on`.
    """
    store = CountingStore()
    await fill(store, epochs=3, chunks=4000)
    history = await read_history(store)
    assert len(history.listing.segments) == 3
    assert sorted(store.gets) == sorted([*(start_key(Epoch(epoch)) for epoch in (1, 2, 3)), "epochs/00000003/end.json"])
    assert store.lists <= 8
    assert store.keys_listed < 3100


async def test_chunks_of_the_first_epoch_are_not_listed() -> None:
    """TRAP: a server that hashes every object it lists is not made to read a whole young replica.

    Seen to fail (506 keys) when the first LIST began at the beginning.
    """
    store = CountingStore()
    await fill(store, epochs=1, chunks=500)
    history = await read_history(store)
    assert (len(history.listing.segments), len(history.listing.manifests), sorted(history.starts)) == (1, 1, [1])
    assert (store.lists, store.keys_listed) == (2, 6)


async def test_few_chunks_are_read_through() -> None:
    """Small databases need one LIST for everything, and one for the claims."""
    store = CountingStore()
    await fill(store, epochs=5, chunks=30)
    assert len((await read_history(store)).listing.segments) == 5
    assert store.lists == 2


async def test_an_epoch_deleted_while_it_is_read() -> None:
    """A start that retention deletes between LIST and GET leads to another LIST, not to an error."""
    store = CountingStore()
    await fill(store, epochs=2, chunks=0)
    real_list = store.list

    async def list_then_delete(prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        async for found in real_list(prefix, after=after):
            yield found
        await store.delete([key for key in store._objects if "00000001" in key])

    store.list = list_then_delete  # type: ignore[method-assign]
    assert sorted((await read_history(store)).starts) == [2]


async def test_what_was_listed_before_is_not_listed_again() -> None:
    """A listing that is on its way already is taken; anew only when something of it is gone."""
    store = CountingStore()
    await fill(store, epochs=3, chunks=0)
    seen: list[Listing] = []
    listing = asyncio.ensure_future(list_history(store))
    history = await read_history(store, listed=seen.append, listing=listing)
    assert (history.listing, seen, store.lists) == (listing.result(), [listing.result()], 2)
    await store.delete([key for key in store._objects if "00000001" in key])
    assert sorted((await read_history(store, listed=seen.append, listing=listing)).starts) == [2, 3]
    assert (len(seen), store.lists) == (3, 4)


async def test_a_start_that_never_can_be_read_is_an_error() -> None:
    """A store that lists a start and never gives it is not tried for ever."""
    store = CountingStore()
    await fill(store, epochs=2, chunks=0)

    async def get(key: str, **_: object) -> bytes:
        raise ObjectMissing(key=key, store=store.url)

    store.get = get  # type: ignore[method-assign]
    with pytest.raises(ObjectMissing):
        await read_history(store)


async def test_a_damaged_start_is_an_error_that_names_it() -> None:
    """A start that is not one stops the reading: without it the line cannot be known."""
    store = CountingStore()
    await fill(store, epochs=2, chunks=0)
    await store.put(start_key(Epoch(1)), b"")
    with pytest.raises(Damaged, match=r"epochs/00000001/start\.json"):
        await read_history(store)
