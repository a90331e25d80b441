"""Restores out of roll-ups: every transaction is still there, with fewer requests, and damage is found."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicad.errors import HistoryGap
from replicad.layout import parse_segment
from replicad.plan.line import line_of_history
from replicad.plan.listing import SegmentObject
from replicad.plan.rollup import Waiting, add, next_groups
from replicad.plan.target import AtTime, AtTXID
from replicad.position import TXID
from replicad.restore.history import list_history, read_history
from replicad.restore.request import Limits, RestoreRequest
from replicad.restore.restore import estimate, restore
from replicad.restore.segments import WHOLE_BYTES
from replicad.segment import decode_rollup, encode_rollup
from replicad.store.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.recorder import STEP_MS, T0_MS, Recorder
from tests.support.rollups import roll_up
from tests.support.synthetic import Synthetic
from tests.unit.restore.test_damage import BREAKAGES, spoil
from tests.unit.restore.test_restore import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicad.restore.request import Restored
    from replicad.store.protocol import ObjectStore

LAST = 24


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Recorder]:
    """Return a database of many small transactions, in the middle of which it becomes smaller."""
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db") as recorder:
        recorder.fill(60)
        for number in range(3, LAST + 1):
            if number == 12:
                recorder.commit("DELETE FROM t WHERE id % 3")
            elif number == 13:
                recorder.commit("VACUUM")
            else:
                recorder.commit(f"INSERT INTO t (body) VALUES (randomblob({number * 10}))")
        assert recorder.newest == LAST
        yield recorder


async def segments(recorder: Recorder, store: ObjectStore, *, behind: int = 1) -> list[str]:
    """Store a snapshot, and each transaction behind it by itself; return the segments' keys."""
    await recorder.start(store)
    await recorder.snapshot(store, behind)
    return [await recorder.segment(store, txid) for txid in range(behind + 1, recorder.newest + 1)]


PLENTY = 128 << 20


async def restored(
    store: ObjectStore, recorder: Recorder, path: Path, txid: int, *, memory_bytes: int = PLENTY
) -> Restored:
    """Restore a transaction and compare it with what SQLite had; all that was promised is kept."""
    limits = Limits(memory_bytes=memory_bytes)
    request = RestoreRequest(path=path, target=AtTXID(TXID(txid)), force=True, limits=limits)
    foreseen = await estimate(store, request)
    watched = Watched()
    found = await restore(store, request, watched)
    assert _read(path) == recorder.transactions[txid].database
    assert found.txid == txid
    if not found.in_place and memory_bytes == PLENTY:
        assert found.requests <= foreseen.requests
        assert found.fetched_bytes <= foreseen.fetched_bytes
        assert (watched.done_bytes, watched.ended) == (watched.total_bytes, True)
    return found


def _read(path: Path) -> bytes:
    return path.read_bytes()


async def levels(store: ObjectStore, keys: list[str]) -> list[str]:
    """Roll up a history in two levels, and leave its end as it is; return the keys that are left."""
    low = [await roll_up(store, keys[at : at + 4]) for at in range(0, 20, 4)]
    return [await roll_up(store, low[:3]), *low[3:], *keys[20:]]


@pytest.mark.parametrize("memory_bytes", [128 << 20, 1])
async def test_every_transaction_is_still_there(
    busy: Recorder, store: MemoryStore, tmp_path: Path, memory_bytes: int
) -> None:
    """Rolled up in two levels, the small ones gone, each transaction is restored as it was; a member counts as ever."""
    left = await levels(store, await segments(busy, store))
    for txid in range(1, LAST + 1):
        path = tmp_path / f"{txid}"
        found = await restored(store, busy, path, txid, memory_bytes=memory_bytes)
        assert found.unusable == ()
        path.unlink()
    assert found.segments == len(left) == 6


async def test_many_segments_that_refer(store: MemoryStore, tmp_path: Path) -> None:
    """What waits for older pages, and for what there was no room in memory, is fetched again many at a time too.

    Seen to fail (a request for each segment) with segments of a roll-up fetched again one by one.
    """
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db") as recorder:
        recorder.fill(30)
        for number in range(400):
            recorder.commit(f"UPDATE t SET body = randomblob(900) WHERE id = {number % 30 + 1}")
        keys = await segments(recorder, store)
        rollup = await roll_up(store, keys[:-1])
        whole_bytes = len(await store.get(rollup))
        room_bytes = 8 * (whole_bytes // 4)  # an eighth of the memory is for what waits
        found = await restored(store, recorder, tmp_path / "out", recorder.newest, memory_bytes=room_bytes)
        assert found.fetched_bytes > whole_bytes * 1.5
        assert found.requests < 40


async def test_one_request_for_many_segments(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A restore asks once for a roll-up, however many segments stand in it."""
    keys = await segments(busy, store)
    before = await restored(store, busy, tmp_path / "out", LAST)
    await roll_up(store, keys[:-1])
    after = await restored(store, busy, tmp_path / "out2", LAST)
    assert (before.segments, after.segments) == (LAST - 1, 2)
    assert before.requests - after.requests == LAST - 1 - 2


async def test_thousands_of_segments(store: MemoryStore, tmp_path: Path) -> None:
    """An hour of one segment a second and more is restored with a few dozen requests, rolled up as a daemon would."""
    synthetic = Synthetic(tmp_path / "stored", 64 << 10, page_size=512)
    synthetic.begin()
    for _ in range(4_500):
        synthetic.append(1, 1)
    for file in await asyncio.to_thread(lambda: [one for one in synthetic.root.rglob("*") if one.is_file()]):
        await store.put(str(file.relative_to(synthetic.root)), await asyncio.to_thread(file.read_bytes))
    keys = [key for key in map(parse_segment, store._objects) if key is not None]
    waiting = add(Waiting(objects=()), [SegmentObject(key=key, size_bytes=_size(store, str(key))) for key in keys])
    while groups := next_groups(waiting):
        made = [await roll_up(store, [one.name for one in group.sources]) for group in groups]
        waiting = add(
            waiting,
            [SegmentObject(key=key.key, size_bytes=_size(store, n)) for key, n in zip(groups, made, strict=True)],
        )
    found = await restore(store, RestoreRequest(path=tmp_path / "out"))
    assert (found.txid, found.checksum) == (4_501, synthetic.checksum)
    assert found.segments == len(waiting.objects) == 1 + (4_499 - 4_096) // 64 + (4_499 - 4_096) % 64 + 1
    assert found.requests < 40


def _size(store: MemoryStore, key: str) -> int:
    return len(store._objects[key][0])


async def test_the_large_is_preferred(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """While the small ones are still there, the roll-up is read."""
    keys = await segments(busy, store)
    rollup = await roll_up(store, keys[:-1], keep=True)
    counted = FaultyStore(store)
    await restored(counted, busy, tmp_path / "out", LAST)
    asked = {call.key for call in counted.calls if call.verb == "get" and parse_segment(call.key)}
    assert asked == {rollup, keys[-1]}


async def test_times_within_a_roll_up(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A time means the newest transaction not later, also when that stands in a roll-up."""
    await levels(store, await segments(busy, store))
    for txid in (2, 5, 6, 13, 19, 21):
        for ms in (T0_MS + txid * STEP_MS, T0_MS + (txid + 1) * STEP_MS - 1):
            counted = FaultyStore(store)
            found = await restore(counted, RestoreRequest(path=tmp_path / "out", target=AtTime(ms), force=True))
            assert found.txid == txid
            assert (tmp_path / "out").read_bytes() == busy.transactions[txid].database


async def test_a_time_where_the_line_leaves_a_roll_up(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """Of a roll-up that a later epoch continues from the middle of, no later transaction is ever restored."""
    await levels(store, await segments(busy, store))
    with busy.fork(tmp_path / "fork.db", 7, epoch=2) as child:
        await child.start(store, parent=1, txid=7)
        child.fill(3)
        await child.segment(store, 8)
        for number, ms in ((7, T0_MS + 8 * STEP_MS - 1), (6, T0_MS + 7 * STEP_MS - 1), (8, T0_MS + 99 * STEP_MS)):
            found = await restore(store, RestoreRequest(path=tmp_path / "out", target=AtTime(ms), force=True))
            assert (found.txid, (tmp_path / "out").read_bytes()) == (number, child.transactions[number].database)


async def test_a_snapshot_inside_a_roll_up(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A restore that begins at a snapshot inside a roll-up uses the segments behind it alone."""
    keys = await segments(busy, store)
    await roll_up(store, keys)
    await busy.snapshot(store, 10)
    for txid in (10, 11, LAST):
        assert (await restored(store, busy, tmp_path / f"{txid}", txid)).unusable == ()


async def test_an_earlier_state_is_led_on(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A file that is an earlier state becomes the target where it stands, by what stands in roll-ups."""
    await levels(store, await segments(busy, store))
    path = tmp_path / "out"
    for old, new in ((14, 18), (15, LAST), (21, LAST), (2, 9)):
        path.write_bytes(busy.transactions[old].database)
        found = await restored(store, busy, path, new)
        assert found.in_place, f"{old} to {new}"
    counted = FaultyStore(store)
    path.write_bytes(busy.transactions[15].database)
    await restored(counted, busy, path, LAST)
    gets = [call.key for call in counted.calls if call.verb == "get" and parse_segment(call.key)]
    assert len(gets) - 1 == len(set(gets)), "each object once, and one more for the estimate"


async def test_a_large_roll_up(store: MemoryStore, tmp_path: Path) -> None:
    """A roll-up beyond 4 MiB is read in pieces, from its directory, and only as far as is needed."""
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db") as recorder:
        for _ in range(30):
            recorder.fill(400)
        recorder.fill(5_000)
        keys = await segments(recorder, store)
        size_bytes = len(await store.get(await roll_up(store, keys)))
        assert size_bytes > 3 * WHOLE_BYTES
        fetched = []
        for txid in (2, 3, 16, 30, 32):
            found = await restored(store, recorder, tmp_path / f"{txid}", txid)
            fetched.append(found.fetched_bytes)
            assert found.requests < 12
        assert fetched[1] < size_bytes / 3
        await recorder.snapshot(store, 30)
        found = await restored(store, recorder, tmp_path / "behind", 31)
        assert found.fetched_bytes < sum(len(recorder.transactions[30].database) for _ in range(2))


# --- what can go wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_roll_up_is_led_around(
    busy: Recorder, store: MemoryStore, tmp_path: Path, breakage: str
) -> None:
    """TRAP: while what it was made of is there, a roll-up that is missing, short or damaged costs but a plan.

    Seen to fail (Damaged) when what is found while a member is decoded did not lead to another plan.
    """
    keys = await segments(busy, store)
    rollup = await roll_up(store, keys[:-2], keep=True)
    spoil(store, rollup, breakage)
    path = tmp_path / "out"
    found = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(LAST))))
    assert path.read_bytes() == busy.transactions[LAST].database
    assert set(found.unusable) <= {rollup}


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_roll_up_alone(busy: Recorder, store: MemoryStore, tmp_path: Path, breakage: str) -> None:
    """TRAP: when nothing else holds its transactions, the error names it, and nothing older is restored instead.

    Seen to fail (Damaged, without the nearest instants) as the one before.
    """
    rollup = await roll_up(store, (await segments(busy, store))[:-2])
    spoil(store, rollup, breakage)
    with pytest.raises(HistoryGap) as caught:
        await restore(store, RestoreRequest(path=tmp_path / "out", target=AtTXID(TXID(LAST))))
    assert rollup in str(caught.value) or breakage == "missing"
    assert not (tmp_path / "out").exists()


async def damaged(store: MemoryStore, tmp_path: Path, expected: str) -> None:
    """The restore fails, and says what is wrong."""
    with pytest.raises(HistoryGap, match=expected):
        await restore(store, RestoreRequest(path=tmp_path / "out", target=AtTXID(TXID(LAST))))
    assert not (tmp_path / "out").exists()


async def test_swapped_members(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: two members that stand in each other's place, the directory's hash being right, are not applied.

    Seen to fail (IndexError) without a look at whether a member is what the directory says.
    """
    rollup = await roll_up(store, (await segments(busy, store))[:-2])
    body = await store.get(rollup)
    members = list(decode_rollup(body, what=rollup))
    bodies = [body[one.offset : one.offset + one.size_bytes] for one in members]
    bodies[4], bodies[7] = bodies[7], bodies[4]
    await store.put(rollup, encode_rollup(zip(members, bodies, strict=True)))
    await damaged(store, tmp_path, r"transactions (6 to 6|9 to 9)\) is damaged \(first TXID")


async def test_a_member_of_another_database(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: a sound segment of another database within a roll-up is not applied.

    Seen to fail (it was restored) as the one before.
    """
    keys = await segments(busy, store)
    await store.put(keys[5], busy.encode_segment(7, 7, database_id="another"))
    await roll_up(store, keys[:-2])
    await damaged(store, tmp_path, r"transactions 7 to 7\) is damaged \(database_id: expected 0f1e2d3c, found another")


async def test_a_member_that_does_not_fit(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: a sound member of a history that went another way is found out by its neighbours' states.

    Seen to fail (found out much later, by a hash of what is referred to) without `_check_link`.
    """
    keys = await segments(busy, store)
    with busy.fork(tmp_path / "fork.db", 8, epoch=1) as other:
        other.fill(7)
        forged = other.encode_segment(9, 9)
    await store.put(keys[7], forged)
    await roll_up(store, keys[:-2])
    await damaged(store, tmp_path, "state that it continues from")


async def test_a_roll_up_under_the_key_of_another(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A sound roll-up that holds other transactions than its key says is not read."""
    keys = await segments(busy, store)
    other = await store.get(await roll_up(store, keys[4:9], keep=True))
    await store.delete([key for key in store._objects if key.endswith(".segs")])
    rollup = await roll_up(store, keys[:-2])
    await store.put(rollup, other)
    await damaged(store, tmp_path, "first TXID: expected 2, found 6")


async def test_retention_deletes_objects_of_a_restore_in_flight(
    busy: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """TRAP: all small segments rolled up and deleted while a restore reads them: it goes on with the roll-up.

    Seen to fail (HistoryGap) with the new plan made on the old listing.
    """
    keys = await segments(busy, store)
    begun = asyncio.Event()

    class Rolling(MemoryStore):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            if key == keys[10] and not begun.is_set():
                begun.set()
                await roll_up(self, keys[:-1])
            return await super().get(key, start=start, stop=stop)

    rolling = Rolling()
    rolling._objects = store._objects
    found = await restore(rolling, RestoreRequest(path=tmp_path / "out"))
    assert begun.is_set()
    assert (tmp_path / "out").read_bytes() == busy.transactions[LAST].database
    assert len(found.unusable) == 1
    assert found.segments == 2


@pytest.mark.parametrize("listed", ["line", "listing"])
async def test_retention_deletes_what_was_listed_before_the_restore(
    busy: Recorder, store: MemoryStore, tmp_path: Path, listed: str
) -> None:
    """TRAP: the same between the listing that a restore was given and its beginning: what there is now counts.

    Seen to fail (HistoryGap) with the new plan made on what was given.
    """
    keys = await segments(busy, store)
    listing = asyncio.ensure_future(list_history(store))
    line = line_of_history(await read_history(store, listing=listing))
    await roll_up(store, keys[:-1])
    given = line if listed == "line" else listing
    found = await restore(store, RestoreRequest(path=tmp_path / "out", listed=given))
    assert (tmp_path / "out").read_bytes() == busy.transactions[LAST].database
    assert len(found.unusable) == 1
    assert found.segments == 2


async def test_what_broke_on_the_way_is_fetched_again(busy: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: one bit that flips on the way, in a roll-up fetched whole, is no damage: what it hit is fetched again.

    Seen to fail (HistoryGap) when a member that cannot be decoded was taken for damaged at once.
    """
    await roll_up(store, (await segments(busy, store))[:-1])

    class Flipping(MemoryStore):
        seen = 0

        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            body = await super().get(key, start=start, stop=stop)
            if not key.endswith(".segs"):
                return body
            self.seen += 1
            return body[:300] + bytes([body[300] ^ 1]) + body[301:] if self.seen == 1 else body

    flipping = Flipping()
    flipping._objects = store._objects
    found = await restore(flipping, RestoreRequest(path=tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == busy.transactions[LAST].database
    assert found.unusable == ()
    assert flipping.seen > 1
