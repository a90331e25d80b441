"""What a line of history ends with, read from a store: the states that a file on the disk is held against."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicad.errors import Damaged, ObjectMissing
from replicad.plan.line import line_of_history
from replicad.position import NO_WAL, TXID, Epoch, Position
from replicad.replicate.continuity import Known
from replicad.replicate.head import read_heads
from replicad.restore.history import read_history
from replicad.store.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.recorder import Recorder
from tests.support.rollups import roll_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.store.protocol import ObjectStore
    from tests.unit.replicate.conftest import Stage


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Six transactions."""
    with Recorder(path=tmp_path / "source.db") as found:
        for _ in range(5):
            found.fill(3)
        yield found


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


async def heads(store: ObjectStore) -> list[Known]:
    """Return what is found in the store."""
    return await read_heads(store, line_of_history(await read_history(store)))


def known(recorder: Recorder, txid: int, *, ms: int | None = None) -> Known:
    """Return a transaction as it was recorded."""
    found = recorder.transactions[txid]
    position = Position(epoch=Epoch(recorder.epoch), txid=TXID(txid), checksum=found.checksum, pages=found.pages)
    return Known(position=position, ms=found.ms if ms is None else ms, wal=NO_WAL)


async def test_the_newest_segment(recorder: Recorder, store: MemoryStore) -> None:
    """The last transaction of the newest segment is the head; older snapshots and segments are not read."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.segment(store, 2, 3)
    newest = await recorder.segment(store, 4, 6)
    counting = FaultyStore(store)
    line = line_of_history(await read_history(store))
    assert await read_heads(counting, line) == [known(recorder, 6)]
    assert [call.key for call in counting.calls] == [newest]


async def test_a_snapshot_ahead_of_the_log(recorder: Recorder, store: MemoryStore) -> None:
    """A snapshot that was stored before the segment that leads to it is a head too, and the newer one comes first."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.segment(store, 2, 4)
    await recorder.snapshot(store, 6)
    assert await heads(store) == [known(recorder, 6), known(recorder, 4)]


async def test_a_snapshot_of_the_head_itself(recorder: Recorder, store: MemoryStore) -> None:
    """A state that a segment and a snapshot both tell of is one head: the segment's, which knows where in the WAL."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.segment(store, 2, 6)
    await recorder.snapshot(store, 6)
    assert await heads(store) == [known(recorder, 6)]


async def test_a_child_that_stored_nothing_but_a_snapshot(
    recorder: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """An epoch that holds a snapshot of the state it began with stays on the line: the head is that epoch's.

    Seen to fail without it: the next owner went on from the parent, the snapshot was an orphaned tail, and where
    retention had deleted the parent's own snapshots by then, nothing could be restored any more.
    """
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.segment(store, 2, 6)
    with recorder.fork(tmp_path / "child.db", 6, epoch=2) as child:
        await child.start(store, parent=1, txid=6)
        await child.snapshot(store, 6)
    (head,) = await heads(store)
    assert head.position.epoch == 2
    expected = known(recorder, 6)
    assert head == Known(position=replace(expected.position, epoch=Epoch(2)), ms=expected.ms, wal=expected.wal)


async def test_a_snapshot_alone(recorder: Recorder, store: MemoryStore) -> None:
    """A first snapshot without a segment is the head."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    assert await heads(store) == [known(recorder, 1)]


async def test_a_child_that_stored_nothing(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """An epoch that has begun and stored nothing ends where its parent's part does, though the parent went on."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.segment(store, 2, 6)
    with recorder.fork(tmp_path / "child.db", 4, epoch=2) as child:
        await child.start(store, parent=1, txid=4)
    assert await heads(store) == [known(recorder, 4)], "the end of the segment is an orphaned tail"


async def test_a_line_that_ends_inside_a_roll_up(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """The parent's roll-up tells of the transaction in which the child begins, though the child stored nothing yet."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await roll_up(store, [await recorder.segment(store, txid) for txid in range(2, 7)])
    with recorder.fork(tmp_path / "child.db", 4, epoch=2) as child:
        await child.start(store, parent=1, txid=4)
    assert await heads(store) == [known(recorder, 4)]


async def test_a_start_that_tells_of_more_than_is_left(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """Where the parent's last segment is gone, the child's start still tells which state the line ends with."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    with recorder.fork(tmp_path / "child.db", 4, epoch=2) as child:
        await child.start(store, parent=1, txid=4)
    first, second = await heads(store)
    assert first.position.txid == 4
    assert first.position.checksum == recorder.transactions[4].checksum
    assert second == known(recorder, 1)


async def test_a_large_segment_is_not_fetched(recorder: Recorder, store: MemoryStore) -> None:
    """Of a segment beyond 1 MiB only trailer, header and index are fetched: a restart does not read a roll-up.

    Seen to fail with every segment fetched whole.
    """
    txid = recorder.fill(3_000)
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    key = await recorder.segment(store, 2, txid)
    fetched: list[int] = []

    class Weighing(FaultyStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            body = await super().get(key, start=start, stop=stop)
            fetched.append(len(body))
            return body

    line = line_of_history(await read_history(store))
    assert await read_heads(Weighing(store), line) == [known(recorder, txid)]
    size_bytes = len(await store.get(key))
    assert size_bytes > 1 << 20
    assert sum(fetched) < size_bytes / 10


@pytest.mark.parametrize("length", [0, 10, -1])
async def test_a_damaged_head(recorder: Recorder, store: MemoryStore, length: int) -> None:
    """A newest segment that cannot be read is an error; the one before it is not taken for the head."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    await recorder.segment(store, 2, 3)
    key = await recorder.segment(store, 4, 6)
    await store.put(key, (await store.get(key))[:length])
    with pytest.raises(Damaged, match="log/"):
        await heads(store)


async def test_a_head_that_vanishes(recorder: Recorder, store: MemoryStore) -> None:
    """A newest segment that is deleted between the listing and the look is an error, not an older head."""
    await recorder.start(store)
    await recorder.snapshot(store, 1)
    key = await recorder.segment(store, 2, 3)
    line = line_of_history(await read_history(store))
    await store.delete([key])
    with pytest.raises(ObjectMissing):
        await read_heads(store, line)


async def test_a_snapshot_ahead_of_the_first_segment_of_its_epoch(stage: Stage) -> None:
    """After a crash behind it, what was committed is stored whole: the end of the epoch before is no head any more."""
    await stage.begin()
    await stage.stop()
    await stage.start()
    stage.store.shut = ("put", "/log/")
    stage.insert(2, 3)
    async with asyncio.timeout(20):
        await stage.follower.snapshot("asked")
    await stage.stop()
    stage.store.shut = None
    stage.insert(4)
    await stage.start()
    txid = await stage.sync()
    assert await stage.check_newest() == txid
    assert (await stage.states())[txid] == [0, 1, 2, 3, 4]
    assert not stage.found("local_kept_aside")
