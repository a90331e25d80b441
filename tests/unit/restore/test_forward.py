"""A file at the target that is an earlier state of the line: changed where it stands, or left alone."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicad.errors import NoSpace, StoreUnreachable
from replicad.plan.target import AtTXID
from replicad.position import TXID
from replicad.restore.request import Integrity, Limits, RestoreRequest
from replicad.restore.restore import restore
from replicad.restore.standing import Standing
from replicad.wal.pagetable import PageTable
from tests.support.dying_store import DyingStore
from tests.support.evidence import holds
from tests.support.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.store.memory import MemoryStore

LAST = 8


@pytest.fixture
def grown(tmp_path: Path) -> Iterator[Recorder]:
    """Return a database that changes and grows, and is made smaller near its end."""
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db") as recorder:
        recorder.fill(400)
        recorder.commit("UPDATE t SET body = randomblob(900) WHERE id % 40 = 0")
        recorder.fill(30)
        recorder.commit("UPDATE t SET body = randomblob(800) WHERE id % 50 = 1")
        recorder.commit("DELETE FROM t WHERE id > 200")
        recorder.commit("VACUUM")
        recorder.commit("UPDATE t SET body = randomblob(800) WHERE id % 50 = 2")
        assert recorder.newest == LAST
        yield recorder


async def stored(recorder: Recorder, store: MemoryStore) -> None:
    """Store a snapshot of the second transaction, and segments behind it; all but the second refer to older pages."""
    await recorder.start(store)
    await recorder.snapshot(store, 2)
    for first, last in ((3, 3), (4, 5), (6, 7), (8, 8)):
        await recorder.segment(store, first, last, block_bytes=1 << 16 if first == 4 else None)


def target(tmp_path: Path, recorder: Recorder, number: int) -> Path:
    """Put a state at the target."""
    path = tmp_path / "t" / "out"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(recorder.transactions[number].database)
    return path


@pytest.mark.usefixtures("fine_clock")
@pytest.mark.parametrize(
    ("old", "new", "in_place"),
    [
        (2, 3, True),
        (2, 5, True),  # longer than before
        (3, 5, True),  # a state between two segments
        (4, 5, True),  # a state inside a segment
        (5, 5, True),  # nothing to do
        (7, 8, True),
        (2, 8, False),  # smaller on the way
        (5, 7, False),
        (5, 4, False),  # backwards
        (1, 3, False),  # older than the snapshot
    ],
)
async def test_an_earlier_state_is_led_on(  # noqa: PLR0913 - fixtures and a table
    grown: Recorder, store: MemoryStore, tmp_path: Path, old: int, new: int, *, in_place: bool
) -> None:
    """Whatever stood there, it is the target afterwards, byte for byte; the same file where that is possible."""
    await stored(grown, store)
    path = target(tmp_path, grown, old)
    inode = path.stat().st_ino
    request = RestoreRequest(path=path, target=AtTXID(TXID(new)), force=True, integrity=Integrity.FULL, evidence=True)
    restored = await restore(store, request)
    assert path.read_bytes() == grown.transactions[new].database
    assert holds(restored.evidence, path)
    assert restored.in_place == in_place
    assert (path.stat().st_ino == inode) == in_place
    assert (restored.txid, restored.checksum) == (new, grown.transactions[new].checksum)
    assert [found.name for found in path.parent.iterdir()] == ["out"]
    if in_place:
        assert restored.reused_bytes > 0.7 * len(grown.transactions[old].database)


@pytest.mark.usefixtures("fine_clock")
async def test_what_is_known_of_the_file_is_not_read(
    grown: Recorder, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was restored once is led on, and led on again, by the evidence alone; what is proven is the whole."""
    await stored(grown, store)
    path = tmp_path / "out"
    restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(2)), evidence=True))
    monkeypatch.setattr(Standing, "add", lambda *_: pytest.fail("it is read"))
    for number in (3, 5, 5):
        restored = await restore(
            store,
            RestoreRequest(
                path=path, target=AtTXID(TXID(number)), force=True, standing=restored.evidence, evidence=True
            ),
        )
        assert restored.in_place
        assert path.read_bytes() == grown.transactions[number].database
        assert holds(restored.evidence, path)


@pytest.mark.usefixtures("fine_clock")
@pytest.mark.parametrize("change", ["written", "replaced", "grown", "other size"])
async def test_evidence_of_another_content_is_none(
    grown: Recorder, store: MemoryStore, tmp_path: Path, change: str
) -> None:
    """Whatever became of the file since, it is read again, and what is restored is right.

    Seen to fail without the comparison of the stamps: the proof finds it, and nothing is put in place.
    """
    await stored(grown, store)
    path = tmp_path / "out"
    restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(2)), evidence=True))
    evidence = restored.evidence
    assert evidence is not None
    if change == "written":
        with path.open("r+b") as file:
            file.seek(20_000)
            file.write(b"another byte")
    elif change == "replaced":
        path.rename(tmp_path / "kept")
        path.write_bytes(grown.transactions[3].database)
    elif change == "grown":
        path.write_bytes(grown.transactions[3].database)
    else:
        evidence = replace(evidence, table=PageTable.of(512, evidence.table.hashes(), 0))
    request = RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True, standing=evidence)
    restored = await restore(store, request)
    assert path.read_bytes() == grown.transactions[5].database
    assert restored.in_place == (change != "written")


async def test_a_state_inside_a_segment_that_refers(grown: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: a file that is a state inside a segment does not have what the segment refers to; it is made anew.

    Seen to fail (the file was changed for nothing, and put back) without `_begins_inside`.
    """
    await grown.start(store)
    await grown.snapshot(store, 2)
    await grown.segment(store, 3, 5)
    path = target(tmp_path, grown, 3)
    begun: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Standing, "begin", lambda self, *_: begun.append(self.path))
        restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True))
    assert path.read_bytes() == grown.transactions[5].database
    assert not restored.in_place
    assert restored.unusable == ()
    assert begun == []


async def test_many_segments_that_refer(tmp_path: Path, store: MemoryStore) -> None:
    """A file that lacks many segments, each made from the one before, is led on with little memory and with much.

    Seen to fail with pages read from the file when it is their turn, not before the first is overwritten.
    """
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db", page_size=1024) as recorder:
        recorder.fill(300, row_bytes=700)
        for number in range(40):
            recorder.commit(f"UPDATE t SET body = randomblob(690) WHERE id % 97 = {number % 13}")
        recorder.fill(3, row_bytes=700)
        await recorder.start(store)
        await recorder.snapshot(store, 2)
        for number in range(3, recorder.newest + 1):
            await recorder.segment(store, number, block_bytes=1 << 16 if number % 9 == 0 else None)
        for memory_bytes in (1, 1 << 27):
            for old in (2, 3, 20, recorder.newest - 1):
                path = target(tmp_path, recorder, old)
                limits = Limits(memory_bytes=memory_bytes)
                restored = await restore(store, RestoreRequest(path=path, force=True, limits=limits))
                assert restored.in_place
                assert path.read_bytes() == recorder.transactions[recorder.newest].database


@pytest.mark.parametrize("memory_bytes", [1, 20_000, 1 << 27])
async def test_whatever_memory_there_is(grown: Recorder, store: MemoryStore, tmp_path: Path, memory_bytes: int) -> None:
    """Segments that find no room until it is their turn are read again."""
    await stored(grown, store)
    path = target(tmp_path, grown, 2)
    limits = Limits(memory_bytes=memory_bytes)
    restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True, limits=limits))
    assert restored.in_place
    assert path.read_bytes() == grown.transactions[5].database


async def test_another_history_and_a_kept_file_are_not_touched(
    grown: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """One byte that is not of the line, or the wish to keep the old file, and a new file takes its place."""
    await stored(grown, store)
    path = target(tmp_path, grown, 3)
    other = bytearray(path.read_bytes())
    other[200_000] ^= 1
    path.write_bytes(other)
    held = path.open("rb")
    restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True))
    with held:
        assert held.read() == other
    assert not restored.in_place
    path = target(tmp_path, grown, 3)
    request = RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True, keep_replaced=True)
    kept = (await restore(store, request)).moved_aside
    assert [aside.read_bytes() for aside in kept] == [grown.transactions[3].database]
    assert path.read_bytes() == grown.transactions[5].database


async def test_a_store_that_fails_on_the_way_leaves_the_old_file(
    grown: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """TRAP: `--force` and a store that goes away: the old file stands as it was, whenever that happens.

    Seen to fail without `Standing.close` rolling back.
    """
    await stored(grown, store)

    dying = DyingStore(store)
    failures = 0
    limits = Limits(memory_bytes=1)  # so that segments are fetched while the file is being changed
    while True:
        path = target(tmp_path, grown, 2)
        dying.left = failures
        try:
            await restore(dying, RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True, limits=limits))
        except StoreUnreachable:
            failures += 1
        else:
            break
        assert path.read_bytes() == grown.transactions[2].database
        assert [found.name for found in path.parent.iterdir()] == ["out"]
    assert failures == 5, "start, manifest, two segments; and the blocks of one, when the file was being changed"
    assert path.read_bytes() == grown.transactions[5].database


async def test_a_disk_that_is_full_before_the_journal_is_written(
    grown: Recorder, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAP: ENOSPC: an error that says so, the old file as it was, and nothing beside it."""
    await stored(grown, store)
    path = target(tmp_path, grown, 3)
    written: list[Path] = []

    def full(descriptor: int, _: object) -> int:
        written.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace):
        await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True))
    assert [one.parent for one in written] == [path.parent], "the journal, under another name"
    assert path.read_bytes() == grown.transactions[3].database
    assert list(path.parent.iterdir()) == [path]


async def test_a_damaged_segment_is_led_around(grown: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A segment that cannot be used is found, and the restore beside the file finds another way."""
    await stored(grown, store)
    broken = await grown.segment(store, 3, 4)
    body = bytearray(await store.get(broken))
    body[len(body) // 2] ^= 1
    await store.put(broken, bytes(body))
    path = target(tmp_path, grown, 2)
    restored = await restore(store, RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True))
    assert path.read_bytes() == grown.transactions[5].database
    assert (restored.unusable, restored.in_place) == ((broken,), False)


async def test_cancelled_at_any_step_it_is_the_old_file_or_the_new_one(
    grown: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """TRAP: SIGTERM during a restore in place: all of the old database or all of the new, and nothing beside it."""
    await stored(grown, store)
    old, new = grown.transactions[2].database, grown.transactions[5].database
    steps, seen = 0, set()
    while True:
        path = target(tmp_path, grown, 2)
        request = RestoreRequest(path=path, target=AtTXID(TXID(5)), force=True)
        task = asyncio.create_task(restore(store, request))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found = path.read_bytes()
        assert found in {old, new}
        seen.add(found == new)
        assert [left.name for left in path.parent.iterdir()] == ["out"]
        steps += 1 + steps // 20
    assert False in seen
    assert path.read_bytes() == new
