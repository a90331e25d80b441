from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from replicad.errors import Damaged, NoBackup, OtherHistory, ReplicadError, StoreUnreachable
from replicad.layout import CLAIMS, claim_key, parse_segment, start_key
from replicad.mirror import sending
from replicad.plan.mark import Mark, encode_mark
from replicad.position import TXID, Epoch
from replicad.restore.request import RestoreRequest
from replicad.restore.restore import restore
from replicad.store.memory import MemoryStore
from tests.support.faulty_store import Faults, FaultyStore
from tests.support.oracle import StoredHistory
from tests.support.recorder import Recorder
from tests.support.rollups import roll_up
from tests.unit.mirror.conftest import history_of, objects, put_claim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicad.store.protocol import ObjectStore, StoredObject
    from tests.unit.mirror.conftest import Replica


class Breaking(MemoryStore):
    """A store that takes so many objects, and then no more."""

    def __init__(self, *, after: int) -> None:
        super().__init__("breaking")
        self.left = after

    async def put(self, key: str, body: bytes) -> None:
        """Store an object, while it takes any."""
        if self.left == 0:
            raise StoreUnreachable(store=self.url, operation=f"put {key}", found="the end of the test")
        self.left -= 1
        await super().put(key, body)


class Scripted(MemoryStore):
    """A store to which something happens at the first GET of a key."""

    def __init__(self, store: MemoryStore, key: str) -> None:
        super().__init__("scripted")
        self._objects = store._objects
        self._key: str | None = key
        self.puts: dict[str, bytes] = {}
        self.deletes: list[str] = []

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object, as it is after what happens."""
        if key == self._key:
            self._key = None
            await self.delete(self.deletes)
            for name, body in self.puts.items():
                await self.put(name, body)
        return await super().get(key, start=start, stop=stop)


async def restored(store: ObjectStore, path: Path) -> tuple[int, bytes]:
    """Restore the last state; return its transaction and the file."""
    found = await restore(store, RestoreRequest(path=path, force=True))
    return found.txid, await asyncio.to_thread(path.read_bytes)


async def test_a_copy_has_all_of_the_history_and_nothing_else(replica: Replica) -> None:
    """Every claim, start, end, segment, manifest and chunk is there byte for byte; notes and foreign keys are not."""
    there = MemoryStore("there")
    copied = await replica.copy(there)
    wanted = await history_of(replica.store)
    assert await objects(there) == wanted
    assert (copied.sent, copied.sent_bytes) == (len(wanted), sum(map(len, wanted.values())))
    assert (copied.last_txid, copied.epoch, copied.foreign, copied.damaged) == (11, 3, 0, [])


async def test_a_second_copy_sends_what_is_new(replica: Replica) -> None:
    """What is there with the same size is not sent again, and what came since is."""
    there = FaultyStore(MemoryStore("there"))
    await replica.copy(there)
    before = there.count("put") + there.count("create")
    again = await replica.copy(there)
    assert there.count("put") + there.count("create") == before
    assert (again.sent, again.present) == (0, len(await history_of(replica.store)))
    replica.third.fill(1)
    await replica.third.segment(replica.store, 12)
    assert (await replica.copy(there)).sent == 1
    assert await objects(there) == await history_of(replica.store)


async def test_a_copy_can_be_broken_off_anywhere(replica: Replica, tmp_path: Path) -> None:
    """After each single object a restore gives the exact state of some transaction, and never an older one than before.

    Before the newest snapshot is there nothing is; then the newest state is a handful of objects away, and all that
    follows is history before it. A copy that is begun again needs no more than what is missing.
    """
    total, reached, seen = len(await history_of(replica.store)), 0, set()
    for after in range(total):
        there = Breaking(after=after)
        with pytest.raises(StoreUnreachable):
            await replica.copy(there, concurrency=1)
        try:
            txid, database = await restored(there, tmp_path / "restored.db")
        except (NoBackup, Damaged):
            assert reached == 0
            continue
        assert database == replica.states[txid]
        assert txid >= reached
        reached = txid
        seen.add(txid)
        if after % 8 == 0:
            there.left = total - after
            assert (await replica.copy(there)).sent == total - after
            assert StoredHistory(await objects(there)).newest()[0] == 11
    assert seen == {9, 10, 11}


async def test_a_copy_behind_by_a_whole_epoch_can_be_broken_off_too(
    replica: Replica, recorders: tuple[Recorder, Recorder], tmp_path: Path
) -> None:
    """A destination that ends in an earlier epoch is never further back than it was, at no single object."""
    first, early = recorders[0], MemoryStore("early")
    await put_claim(early, 1)
    await first.start(early)
    await first.snapshot(early, 1)
    for number in range(2, 6):
        await first.segment(early, number)
    seen = set()
    for after in range(len(await history_of(replica.store)) - len(await objects(early))):
        there = Breaking(after=after)
        there._objects = dict(early._objects)
        with pytest.raises(StoreUnreachable):
            await replica.copy(there, concurrency=1)
        txid, database = await restored(there, tmp_path / "restored.db")
        assert database == replica.states[txid]
        seen.add(txid)
    assert seen == {5, 9, 10, 11}


async def test_a_dry_run_changes_nothing(replica: Replica) -> None:
    """It says what is missing, to the byte."""
    there = MemoryStore("there")
    copied = await replica.copy(there, dry_run=True)
    wanted = await history_of(replica.store)
    assert (copied.missing, copied.missing_bytes) == (len(wanted), sum(map(len, wanted.values())))
    assert (copied.sent, await objects(there)) == (0, {})


async def test_nothing_is_copied_from_where_nothing_is(replica: Replica) -> None:
    """An empty source is told from a copy that is complete."""
    await replica.store.delete(list(await objects(replica.store)))
    with pytest.raises(NoBackup):
        await replica.copy(MemoryStore("there"))


# --- what holds another history ------------------------------------------------------------------


async def other_database(replica: Replica, there: MemoryStore) -> str:
    """Let the destination hold another database."""
    key = start_key(Epoch(1))
    body = (await replica.store.get(key)).replace(b'"database_id":"', b'"database_id":"other-')
    await there.put(key, body)
    return "other-"


async def gone_on(replica: Replica, there: MemoryStore) -> str:
    """Let an owner have gone on at the destination, into an epoch that the source does not know."""
    await replica.copy(there)
    await put_claim(there, 4)
    return "gone on by itself"


async def gone_on_in_the_same_number(replica: Replica, there: MemoryStore) -> str:
    """Let the same number have been claimed on both sides."""
    await replica.copy(there)
    await put_claim(there, 4, id="mine")
    await put_claim(replica.store, 4, id="theirs")
    return claim_key(Epoch(4))


async def another_start(replica: Replica, there: MemoryStore) -> str:
    """Let an epoch begin elsewhere on the other side."""
    key = start_key(Epoch(3))
    await there.put(key, (await replica.store.get(key)).replace(b'"parent_txid":7', b'"parent_txid":6'))
    return key


async def another_size(replica: Replica, there: MemoryStore) -> str:
    """Let a segment be longer there."""
    key = replica.third.keys.get("", "") or next(key for key in await objects(replica.store) if "/log/" in key)
    await there.put(key, await replica.store.get(key) + b"!")
    return key


async def another_size_of_a_chunk(replica: Replica, there: MemoryStore) -> str:
    """Let a chunk be shorter there."""
    key = next(key for key in await objects(replica.store) if "/chunks/" in key)
    await there.put(key, (await replica.store.get(key))[:-1])
    return key


@pytest.mark.parametrize(
    "prepare",
    [
        other_database,
        gone_on,
        gone_on_in_the_same_number,
        another_start,
        another_size,
        another_size_of_a_chunk,
    ],
)
async def test_a_destination_with_another_history_is_left_as_it_is(replica: Replica, prepare: object) -> None:
    """It is refused with the exit code of a usage error that says what was found, before anything is written."""
    assert callable(prepare)
    there = MemoryStore("there")
    expected = await prepare(replica, there)
    before = await objects(there)
    with pytest.raises(OtherHistory) as raised:
        await replica.copy(there)
    assert expected in str(raised.value)
    assert raised.value.exit_code == 64
    assert await objects(there) == before


async def test_a_claim_is_never_replaced(replica: Replica) -> None:
    """An owner that begins to work at the destination while a claim is on its way there keeps its own."""

    class Claimed(MemoryStore):
        async def create(self, key: str, body: bytes) -> None:
            await put_claim(self, 1, id="the newcomer's")
            await super().create(key, body)

    there = Claimed("there")
    with pytest.raises(OtherHistory):
        await replica.copy(there)
    assert b"the newcomer's" in await there.get(claim_key(Epoch(1)))
    assert list(await objects(there)) == [claim_key(Epoch(1))]


# --- what happens on the way ---------------------------------------------------------------------


async def test_what_vanishes_is_listed_again(replica: Replica, tmp_path: Path) -> None:
    """Segments that are rolled up and deleted while they are to be copied are no error: the roll-up is copied."""
    keys = [key for key in await objects(replica.store) if key.startswith("epochs/00000003/log/")]
    rolled = Recorder.encode_segment(replica.third, 10, 11)
    source = Scripted(replica.store, keys[1])
    source.deletes = keys[1:]
    name = keys[1].replace("000000000000000a-000000000000000a", "000000000000000a-000000000000000b")
    source.puts = {name.rpartition("-")[0] + "-" + keys[2].rpartition("-")[2]: rolled}
    moved = type(replica)(store=source, first=replica.first, third=replica.third, threads=replica.threads)
    there = MemoryStore("there")
    copied = await moved.copy(there)
    assert copied.vanished > 0
    assert await restored(there, tmp_path / "restored.db") == (11, replica.states[11])
    assert await objects(there) == await history_of(source)


@pytest.mark.parametrize("number", range(1, 9))
async def test_what_is_stored_meanwhile_never_makes_a_gap(replica: Replica, tmp_path: Path, number: int) -> None:
    """When a listing, whichever, shows the later of two new segments without the earlier, the later one waits.

    Seen to fail when all that is listed with the rest is sent: the destination then tells of a transaction that it
    cannot reach.
    """
    for _ in range(2):
        replica.third.fill(1)
    early, late = await replica.third.segment(replica.store, 12), await replica.third.segment(replica.store, 13)
    bodies = {key: await replica.store.get(key) for key in (early, late)}
    await replica.store.delete((early, late))

    class Moving(MemoryStore):
        """Stores the one segment in front of a listing that is under way, and the other behind."""

        lists = 0

        async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
            self.lists += 1
            if self.lists == number:
                await self.put(late, bodies[late])
            rows = [row async for row in super().list(prefix, after=after)]
            if self.lists == number:
                await self.put(early, bodies[early])
            for row in rows:
                yield row

    class Ordered(MemoryStore):
        order: list[str]

        async def put(self, key: str, body: bytes) -> None:
            await super().put(key, body)
            self.order.append(key)

    source, there = Moving("moving"), Ordered("there")
    source._objects, there.order = replica.store._objects, []
    moved = type(replica)(store=source, first=replica.first, third=replica.third, threads=replica.threads)
    copied = await moved.copy(there)
    assert copied.last_txid in {11, 13}
    assert late not in there.order or there.order.index(early) < there.order.index(late)
    txid, database = await restored(there, tmp_path / "restored.db")
    assert (txid, database) == (copied.last_txid, (replica.states | _states(replica.third))[txid])


def _states(recorder: Recorder) -> dict[int, bytes]:
    return {txid: found.database for txid, found in recorder.transactions.items()}


async def test_faults_of_both_stores_leave_a_copy_that_goes_on(replica: Replica) -> None:
    """With lost requests, lost answers and late writes on both sides, copying again and again ends in a whole copy."""
    here = FaultyStore(replica.store, Faults(lost_request=0.02, lost_answer=0.02), seed=3)
    there = FaultyStore(MemoryStore("there"), Faults(lost_request=0.02, lost_answer=0.03, late=0.02), seed=5)
    moved = type(replica)(store=here, first=replica.first, third=replica.third, threads=replica.threads)  # type: ignore[arg-type]
    failures = 0
    for _ in range(200):
        try:
            await moved.copy(there)
            break
        except ReplicadError:
            failures += 1
    assert failures
    await there.settle()
    assert await objects(there.store) == await history_of(replica.store)


async def test_a_damaged_object_is_left_out_and_named(replica: Replica) -> None:
    """What its own hashes disprove is not spread; everything else is copied."""
    keys = list(await objects(replica.store))
    broken = [next(key for key in keys if kind in key) for kind in ("/chunks/", "/log/", "/snapshots/", "end.json")]
    for key in broken:
        body = bytearray(await replica.store.get(key))
        body[len(body) // 2] ^= 0x80
        await replica.store.put(key, bytes(body))
    there = MemoryStore("there")
    copied = await replica.copy(there)
    assert sorted(copied.damaged) == sorted(broken)
    assert (await history_of(replica.store)).keys() - (await objects(there)).keys() == set(broken)


async def test_what_breaks_on_the_way_is_fetched_again(replica: Replica) -> None:
    """A body that arrives cut short or with a flipped bit, once, is sound the second time."""

    class Breaking(MemoryStore):
        """The first body of each segment, chunk and manifest is broken."""

        def __init__(self, store: MemoryStore) -> None:
            super().__init__("breaking")
            self._objects = store._objects
            self.broken: set[str] = set()

        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
            body = await super().get(key, start=start, stop=stop)
            if key in self.broken or not any(
                kind in key for kind in ("/log/", "/chunks/", "/snapshots/0000000000000001")
            ):
                return body
            self.broken.add(key)
            return body[: len(body) // 2] if len(self.broken) % 2 else body[:20] + bytes([body[20] ^ 4]) + body[21:]

    source = Breaking(replica.store)
    moved = type(replica)(store=source, first=replica.first, third=replica.third, threads=replica.threads)
    there = MemoryStore("there")
    assert (await moved.copy(there)).damaged == []
    assert len(source.broken) > 10
    assert await objects(there) == await history_of(replica.store)


async def test_verify_compares_bytes(replica: Replica) -> None:
    """An object of the right size and other bytes is found by --verify, and by nothing less."""
    there = MemoryStore("there")
    verified = await replica.copy(there, verify=True)
    assert verified.verified == len(await history_of(replica.store))
    key = next(key for key in await objects(there) if "/log/" in key)
    await there.put(key, (await there.get(key))[:-1] + b"?")
    assert (await replica.copy(there)).damaged == []
    assert (await replica.copy(there, verify=True)).damaged == [key]


async def test_large_objects_are_streamed(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than a piece is never whole in memory: it arrives in pieces, each proven, and is the same."""
    monkeypatch.setattr(sending, "PIECE_BYTES", 4096)
    monkeypatch.setattr("replicad.mirror.proven._PIECE_BYTES", 4096)

    class Measuring(MemoryStore):
        most = 0
        streamed = 0

        async def put_stream(self, key: str, parts: AsyncIterator[bytes]) -> int:
            pieces = [part async for part in parts]
            self.most, self.streamed = max(self.most, len(pieces)), self.streamed + 1
            await self.put(key, b"".join(pieces))
            return sum(map(len, pieces))

    there = Measuring("there")
    await replica.third.segment(replica.store, 10, 11, block_bytes=8192)
    copied = await replica.copy(there, verify=True)
    assert await objects(there) == await history_of(replica.store)
    assert copied.damaged == []
    assert there.streamed > 1
    assert there.most > 4  # the head, its blocks one by one, the index


async def test_preserve_marks_are_copied_before_what_they_keep(replica: Replica) -> None:
    """Marks go behind the claims, before anything that retention might delete there; one that was made anew, again."""
    mark = Mark(txid=TXID(3), epoch=Epoch(1), until_ms=9, made_ms=1, reason="a test")
    await replica.store.put(str(mark.key), encode_mark(mark))

    class Ordered(MemoryStore):
        order: list[str]

        async def put(self, key: str, body: bytes) -> None:
            self.order.append(key)
            await super().put(key, body)

    there = Ordered("there")
    there.order = []
    assert (await replica.copy(there, verify=True)).damaged == []
    assert next(key for key in there.order if not key.startswith(CLAIMS)) == str(mark.key)
    assert await objects(there) == await history_of(replica.store)
    await replica.store.put(str(mark.key), encode_mark(msgspec.structs.replace(mark, reason="another reason")))
    assert (await replica.copy(there)).sent == 1
    assert await objects(there) == await history_of(replica.store)
    assert str(mark.key) in await objects(there)


async def rolled_up(replica: Replica, *epochs: str) -> list[str]:
    """Roll up what the log of these epochs holds in single segments; return the roll-ups' keys."""
    keys = sorted(await objects(replica.store))
    singles = [key for key in keys if "/log/" in key and key.endswith(".seg")]
    chosen = {epoch: [key for key in singles if f"/{epoch}/" in key and _is_single(key)] for epoch in epochs}
    return [await roll_up(replica.store, chosen[epoch]) for epoch in epochs]


def _is_single(key: str) -> bool:
    parsed = parse_segment(key)
    return parsed is not None and (parsed.first == parsed.last or parsed.epoch == 3)


@pytest.mark.parametrize("piece_bytes", [8 << 20, 1024])
async def test_roll_ups_are_copied(
    replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    """A roll-up is copied as any object of the log, whole or in pieces, and the copy is restored from it.

    Seen to fail when it was held against its hashes as if it were one segment: it was left out, as damaged.
    """
    monkeypatch.setattr(sending, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr("replicad.mirror.proven._PIECE_BYTES", piece_bytes)
    await rolled_up(replica, "00000001", "00000003")
    there = MemoryStore("there")
    assert (await replica.copy(there, verify=True)).damaged == []
    assert await objects(there) == await history_of(replica.store)
    txid, image = await restored(there, tmp_path / "restored.db")
    assert image == replica.states[txid]


@pytest.mark.parametrize("piece_bytes", [8 << 20, 1024])
async def test_a_damaged_roll_up_is_not_copied(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    """A bit flipped anywhere in a roll-up (its head, a member, the directory, the end) keeps it out of the copy."""
    monkeypatch.setattr(sending, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr("replicad.mirror.proven._PIECE_BYTES", piece_bytes)
    (key,) = await rolled_up(replica, "00000003")
    sound = await replica.store.get(key)
    for place in (0, 12, *range(20, len(sound), len(sound) // 12), len(sound) - 40, len(sound) - 20, len(sound) - 1):
        there = MemoryStore("there")
        await replica.store.put(key, sound[:place] + bytes([sound[place] ^ 0x10]) + sound[place + 1 :])
        assert (await replica.copy(there)).damaged == [key], place
        assert key not in await objects(there)


@pytest.mark.parametrize("kind", ["/log/", "/chunks/"])
async def test_a_large_damaged_object_is_not_stored(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A hash that does not hold in the middle of a stream breaks it off: nothing appears under the key."""
    monkeypatch.setattr(sending, "PIECE_BYTES", 4096)
    monkeypatch.setattr("replicad.mirror.proven._PIECE_BYTES", 4096)
    bodies = await objects(replica.store)
    key = next(key for key in bodies if kind in key and len(bodies[key]) > 8192)
    body = bytearray(bodies[key])
    body[len(body) // 2] ^= 1
    await replica.store.put(key, bytes(body))
    there = MemoryStore("there")
    assert (await replica.copy(there)).damaged == [key]
    assert key not in await objects(there)
