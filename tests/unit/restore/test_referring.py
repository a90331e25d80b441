"""Segments that refer to older pages, restored: the very pages, whatever happened to them in between."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from replicad.errors import HistoryGap
from replicad.plan.target import AtTXID
from replicad.position import TXID
from replicad.restore.chain import Chain
from replicad.restore.older import Shelf
from replicad.restore.request import Limits, RestoreRequest
from replicad.restore.restore import restore
from replicad.segment import decode
from replicad.store.memory import MemoryStore
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

PAGE_SIZE = 512
LARGE = Limits()
SMALL = Limits(memory_bytes=8 * PAGE_SIZE)  # one older page in memory, no block is kept


class CountingStore(MemoryStore):
    """Counts the GETs of segments."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[str] = []

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object."""
        if key.endswith(".seg"):
            self.got.append(key)
        return await super().get(key, start=start, stop=stop)


def _change(recorder: Recorder, dice: random.Random) -> None:
    """Commit something: rows come, change and go, and now and then the database shrinks and grows again."""
    kind = dice.choice(("insert", "insert", "update", "update", "delete", "shrink", "drop"))
    if kind == "insert":
        recorder.fill(dice.randrange(1, 12), row_bytes=dice.choice((20, 100, 400)))
    elif kind == "update":
        recorder.commit(f"UPDATE t SET body = randomblob(90) WHERE id % {dice.randrange(2, 40)} = 0")
    elif kind == "delete":
        recorder.commit(f"DELETE FROM t WHERE id % {dice.randrange(2, 6)} = 0")
    elif kind == "shrink":
        recorder.commit("VACUUM")
    else:
        recorder.commit("DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")


async def _store_all(recorder: Recorder, store: MemoryStore, dice: random.Random) -> int:
    """Store segments of a few transactions each, snapshots between them; return how many segments refer."""
    await recorder.start(store)
    await recorder.snapshot(store, 1, chunk_pages=4)
    first = 2
    while first <= recorder.newest:
        last = min(recorder.newest, first + dice.choice((0, 0, 1, 4)))
        await recorder.segment(store, first, last, block_bytes=dice.choice((None, None, None, 4 * PAGE_SIZE)))
        if dice.random() < 0.05:
            await recorder.snapshot(store, last, chunk_pages=4)
        first = last + 1
    return sum(bool(decode(body, what=key).references) for key, (body, _) in store._objects.items() if ".seg" in key)


@pytest.mark.parametrize("seed", range(6))
async def test_every_transaction_of_a_random_history(seed: int, tmp_path: Path) -> None:
    """Whatever a database went through, each of its transactions is restored byte for byte, in little memory too.

    Seen to fail with chunks fetched only for what no segment settles.
    """
    dice = random.Random(seed)
    source = tmp_path / "source"
    source.mkdir()
    store = MemoryStore("bucket/app.db")
    with Recorder(path=source / "app.db", page_size=PAGE_SIZE) as recorder:
        for _ in range(45):
            _change(recorder, dice)
        assert await _store_all(recorder, store, dice) > 8
        for number, found in recorder.transactions.items():
            limits = LARGE if number % 2 else SMALL
            path = tmp_path / f"{number}.db"
            restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(number)), limits=limits))
            assert path.read_bytes() == found.database, number
            assert restored.unusable == ()
            path.unlink()
    assert [found.name for found in tmp_path.iterdir()] == ["source"]  # noqa: ASYNC240


async def test_little_memory_costs_a_second_request(tmp_path: Path) -> None:
    """Blocks that there is no room for are fetched again when their turn comes, older pages wait on the disk."""
    store = CountingStore()
    with Recorder(path=tmp_path / "app.db", page_size=PAGE_SIZE) as recorder:
        recorder.fill(5, row_bytes=300)
        for _ in range(20):
            recorder.commit("UPDATE t SET body = randomblob(280)")
        await recorder.start(store)
        await recorder.snapshot(store, 2)
        keys = [await recorder.segment(store, number) for number in range(3, 23)]
        for limits, times in ((LARGE, 1), (SMALL, 2)):
            store.got.clear()
            path = tmp_path / f"{times}.db"
            await restore(store, RestoreRequest(path=path, limits=limits))
            assert path.read_bytes() == recorder.transactions[22].database
            assert sorted(store.got[1:]) == sorted(keys[:-1] * times + keys[-1:] * (times - 1))


async def test_a_snapshot_inside_a_segment_that_refers(tmp_path: Path, store: MemoryStore) -> None:
    """TRAP: from a snapshot inside a segment, its references are not known: an older snapshot is taken, or an error.

    Replicad writes no such segment. Seen to fail (the reference's hash is another, and no way was left) with the
    segment kept without a look at where the plan begins.
    """
    with Recorder(path=tmp_path / "app.db") as recorder:
        recorder.fill(4)
        for _ in range(4):
            recorder.commit("UPDATE t SET body = randomblob(900)")
        await recorder.start(store)
        oldest = await recorder.snapshot(store, 2)
        inside = await recorder.snapshot(store, 4)
        segment = await recorder.segment(store, 3, 6)
        restored = await restore(store, RestoreRequest(path=tmp_path / "out"))
        assert (tmp_path / "out").read_bytes() == recorder.transactions[6].database
        assert restored.unusable == (inside,)
        assert restored.manifest_key == oldest
        await store.delete([oldest])
        with pytest.raises(HistoryGap, match=r"state that it refers to: expected TXID 2, found TXID 4") as caught:
            await restore(store, RestoreRequest(path=tmp_path / "none"))
        assert segment in str(caught.value)


async def test_references_that_are_not_what_they_should_be(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAP: a referring segment whose older pages are others is damaged, with both hashes; nothing is put in place."""
    with Recorder(path=tmp_path / "app.db") as recorder:
        recorder.fill(4)
        recorder.commit("UPDATE t SET body = randomblob(900)")
        await recorder.start(store)
        await recorder.snapshot(store, 2)
        segment = await recorder.segment(store, 3)
        real = Shelf.take
        monkeypatch.setattr(Shelf, "take", lambda self, versions: bytes(4096) + real(self, versions)[4096:])
        with pytest.raises(HistoryGap, match=r"hash of the \d+ pages that it refers to: expected [0-9a-f]{16}, found"):
            await restore(store, RestoreRequest(path=tmp_path / "out"))
        assert segment.startswith("epochs/")
    assert not (tmp_path / "out").exists()


async def test_a_chunk_with_other_content_is_found_by_the_references(tmp_path: Path, store: MemoryStore) -> None:
    """TRAP: a chunk that unpacks to other pages is named as the cause, though a segment stumbled over them first.

    Seen to fail (the segment was called damaged) without the second attempt that compares chunks with their names.
    """
    with Recorder(path=tmp_path / "app.db") as recorder:
        recorder.fill(4)
        recorder.commit("UPDATE t SET body = randomblob(900)")
        await recorder.start(store)
        await recorder.snapshot(store, 2, chunk_pages=1)
        await recorder.segment(store, 3)
        chunks = [key for key in store._objects if "/chunks/" in key]
        pages = {key: store._objects[key] for key in chunks}
        store._objects[chunks[-1]] = pages[chunks[0]]
        with pytest.raises(HistoryGap, match=chunks[-1].rsplit("/", 1)[1]):
            await restore(store, RestoreRequest(path=tmp_path / "out"))


async def test_what_is_superseded_is_not_unpacked(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments in front of one that holds all their pages, and that refers to nothing, are not unpacked at all."""
    kept: list[str] = []
    real = Chain._keep

    def keep(self: Chain, *arguments: object) -> None:
        before = len(self._referring._kept)
        real(self, *arguments)  # type: ignore[arg-type]
        kept.extend(found.part.name for found in self._referring._kept[before:])

    monkeypatch.setattr(Chain, "_keep", keep)
    with Recorder(path=tmp_path / "app.db") as recorder:
        recorder.fill(2)
        for _ in range(6):
            recorder.commit("UPDATE t SET body = randomblob(900)")
        await recorder.start(store)
        await recorder.snapshot(store, 2)
        keys = [
            await recorder.segment(store, number, block_bytes=1 << 16 if number == 6 else None)
            for number in range(3, 9)
        ]
        await restore(store, RestoreRequest(path=tmp_path / "out"))
        assert (tmp_path / "out").read_bytes() == recorder.transactions[8].database
    assert kept == [keys[5], keys[4]]
