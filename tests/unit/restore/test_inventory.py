"""Reading everything that is stored of a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from replicad.errors import Damaged
from replicad.host.threads import Threads
from replicad.layout import parse_manifest, start_key
from replicad.position import Epoch
from replicad.restore.inventory import read_inventory
from replicad.store.memory import MemoryStore
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AT = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    """Where manifests are decoded."""
    found = Threads("test", 2)
    yield found
    await found.close()


async def stored(folder: Path) -> MemoryStore:
    """Return a store with a segment, two snapshots and something that is not ours."""
    store = MemoryStore(now=lambda: AT)
    with Recorder(folder / "app.db") as recorder:
        recorder.fill(100)
        recorder.fill(10)
        await recorder.start(store)
        await recorder.snapshot(store, 1)
        await recorder.segment(store, 2)
        await recorder.snapshot(store, 2)
    await store.put("notes.txt", b"mine")
    return store


async def test_everything_is_known_with_its_time(tmp_path: Path, threads: Threads) -> None:
    """Every key is there with its size and the store's time of it, and the chunks of each snapshot."""
    store = await stored(tmp_path)
    found = await read_inventory(store, threads)
    assert sorted(found.rows) == [row.key async for row in store.list("")]
    assert {row.modified_ms for row in found.rows.values()} == {int(AT.timestamp() * 1000)}
    assert found.history.listing.foreign == 1
    manifests = found.history.listing.manifests
    assert {one.name for one in manifests} == set(found.contents)
    assert all(found.is_whole(one) for one in manifests)
    assert {chunk for chunks in found.contents.values() for chunk in chunks} == {
        key for key in found.rows if "/chunks/" in key
    }


async def test_a_snapshot_that_cannot_be_read_is_not_whole(tmp_path: Path, threads: Threads) -> None:
    """A damaged manifest, and one that lacks a chunk, are told from whole ones; the rest is read all the same."""
    store = await stored(tmp_path)
    names = sorted(row.key for row in [one async for one in store.list("")] if parse_manifest(row.key))
    await store.put(names[0], b"{}")
    found = await read_inventory(store, threads)
    assert [found.is_whole(one) for one in sorted(found.history.listing.manifests, key=lambda one: one.name)] == [
        False,
        True,
    ]
    assert names[0] not in found.contents
    await store.delete([min(found.contents[names[1]])])
    again = await read_inventory(store, threads)
    assert not any(again.is_whole(one) for one in again.history.listing.manifests)


async def test_a_start_that_cannot_be_read_ends_it(tmp_path: Path, threads: Threads) -> None:
    """Without knowing the line nothing is to be decided."""
    store = await stored(tmp_path)
    await store.put(start_key(Epoch(1)), b"{}")
    with pytest.raises(Damaged):
        await read_inventory(store, threads)
