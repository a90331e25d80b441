"""Restores of real SQLite databases: what SQLite says the database was, byte for byte."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicad.errors import (
    HistoryGap,
    NoBackup,
    NoSpace,
    ProofFailed,
    StoreUnreachable,
    TargetBusy,
    TargetExists,
    TargetOutsideWindow,
)
from replicad.layout import ManifestKey
from replicad.plan.target import AtTime, AtTXID, Target
from replicad.position import TXID, Epoch
from replicad.restore.request import Estimate, Integrity, Limits, Restored, RestoreRequest
from replicad.restore.restore import estimate, restore
from replicad.restore.segments import WHOLE_BYTES
from replicad.snapshot import Manifest, encode_manifest
from replicad.store.memory import MemoryStore
from tests.support.clock import ManualClock
from tests.support.dying_store import DyingStore
from tests.support.evidence import holds
from tests.support.recorder import DATABASE_ID, STEP_MS, T0_MS, Recorder
from tests.unit.restore.conftest import stored

if TYPE_CHECKING:
    from pathlib import Path


class Watched:
    """Remembers what a restore told of its progress."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self.done_bytes = 0
        self.ended = False

    def started(self, total_bytes: int) -> None:
        """Begin anew."""
        self.total_bytes = total_bytes
        self.done_bytes = 0

    def advanced(self, n_bytes: int) -> None:
        """Add up."""
        self.done_bytes += n_bytes

    def finished(self) -> None:
        """Note it."""
        self.ended = True


class SlowStore(MemoryStore):
    """Lets others run before each answer, and remembers how many requests were under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object, a little later."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            return await super().get(key, start=start, stop=stop)
        finally:
            self.running -= 1


class HaltingStore(MemoryStore):
    """Answers so many GETs, and then no more."""

    def __init__(self, store: MemoryStore, *, after: int) -> None:
        super().__init__()
        self._objects = store._objects
        self._left = after
        self.halted = asyncio.Event()

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object, or never return."""
        if self._left == 0:
            self.halted.set()
            await asyncio.Event().wait()
        self._left -= 1
        return await super().get(key, start=start, stop=stop)


def txid(number: int) -> AtTXID:
    """Return a target."""
    return AtTXID(TXID(number))


def files(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(found.name for found in folder.iterdir())


@pytest.mark.usefixtures("fine_clock")
async def test_every_transaction_is_restored_byte_for_byte(
    recorder: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """Each transaction of a history gives the very file that SQLite had after it, and the hash of every page of it."""
    await stored(recorder, store)
    for number, found in recorder.transactions.items():
        path = tmp_path / f"{number}.db"
        request = RestoreRequest(path=path, target=txid(number), integrity=Integrity.FULL, evidence=True)
        restored = await restore(store, request)
        assert path.read_bytes() == found.database
        assert (restored.txid, restored.commit_ms, restored.checksum) == (number, found.ms, found.checksum)
        assert (restored.pages, restored.page_size, restored.database_id) == (found.pages, 4096, DATABASE_ID)
        assert holds(restored.evidence, path)
        assert restored.manifest.txid == (1 if number < 4 else 4)
    assert files(tmp_path) == [*(f"{number}.db" for number in recorder.transactions), "source"]


@pytest.mark.parametrize("page_size", [512, 1024, 2048, 8192, 16384, 32768, 65536])
async def test_every_page_size(page_size: int, store: MemoryStore, tmp_path: Path) -> None:
    """Databases of every page size SQLite has come back, also when they shrank on the way."""
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db", page_size=page_size) as recorder:
        recorder.fill(300)
        recorder.commit("DELETE FROM t WHERE id > 20")
        recorder.commit("VACUUM")
        recorder.fill(90)
        await recorder.start(store)
        await recorder.snapshot(store, 2, chunk_pages=8)
        await recorder.segment(store, 3, 5)
        for number in range(2, 6):
            await restore(store, RestoreRequest(path=tmp_path / "out", target=txid(number), force=True))
            assert (tmp_path / "out").read_bytes() == recorder.transactions[number].database


@pytest.mark.parametrize(
    ("minutes", "expected"), [(1, 1), (2.5, 2), (3, 3), (3.999, 3), (4, 4), (5.5, 5), (6.5, 6), (7, 7), (10**6, 7)]
)
async def test_a_time_is_settled_to_the_transaction(
    recorder: Recorder, store: MemoryStore, tmp_path: Path, minutes: float, expected: int
) -> None:
    """A time within a segment means the newest transaction not later, which only the segment's index tells."""
    await stored(recorder, store)
    target = AtTime(round(T0_MS + minutes * STEP_MS))
    restored = await restore(store, RestoreRequest(path=tmp_path / "out", target=target))
    assert restored.txid == expected
    assert (tmp_path / "out").read_bytes() == recorder.transactions[expected].database


async def test_an_empty_database(store: MemoryStore, tmp_path: Path) -> None:
    """A database of no pages is a file of no bytes."""
    with Recorder(path=tmp_path / "any.db") as recorder:
        await recorder.start(store)
    manifest = Manifest(
        database_id=DATABASE_ID,
        epoch=1,
        txid=1,
        commit_ms=T0_MS,
        page_size=4096,
        pages=0,
        checksum="0" * 16,
        chunk_pages=256,
        created_ms=T0_MS,
        reason="test",
        chunks=(),
    )
    await store.put(str(ManifestKey(epoch=Epoch(1), txid=TXID(1), ms=T0_MS)), encode_manifest(manifest))
    restored = await restore(store, RestoreRequest(path=tmp_path / "out", integrity=Integrity.FULL))
    assert (restored.pages, (tmp_path / "out").read_bytes()) == (0, b"")


async def test_a_line_of_several_epochs_and_its_orphaned_tail(
    recorder: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """The line runs through a parent's segment up to where the child began; the parent's tail is there by name."""
    await stored(recorder, store)
    with recorder.fork(tmp_path / "fork.db", 6, epoch=2) as child:
        child.fill(50)
        child.fill(20)
        await child.start(store, parent=1, txid=6)
        await child.segment(store, 7, 8)
        line = await restore(store, RestoreRequest(path=tmp_path / "line"))
        assert (line.txid, line.epoch, line.head) == (8, 2, 2)
        assert (tmp_path / "line").read_bytes() == child.transactions[8].database
        first = await restore(store, RestoreRequest(path=tmp_path / "first", target=txid(6)))
        assert (first.epoch, first.head) == (1, 2)
        tail = await restore(store, RestoreRequest(path=tmp_path / "tail", epoch=Epoch(1)))
        assert (tail.txid, tail.epoch, tail.head) == (7, 1, 1)
        assert (tmp_path / "tail").read_bytes() == recorder.transactions[7].database


# --- what was there before --------------------------------------------------------------------


async def test_an_existing_file_stops_everything_before_the_first_request(
    recorder: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """Without force an existing file is an error, and the store is not even asked."""
    await stored(recorder, store)
    (tmp_path / "out").write_bytes(b"mine")
    closed = SlowStore()
    with pytest.raises(TargetExists):
        await restore(closed, RestoreRequest(path=tmp_path / "out"))
    assert closed.most == 0
    assert (tmp_path / "out").read_bytes() == b"mine"


async def test_an_old_copy_lends_what_is_the_same(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """Chunks that stand in the old file are not fetched; the old file is read, not changed, and then replaced."""
    await stored(recorder, store)
    plain = await restore(store, RestoreRequest(path=tmp_path / "a", target=txid(4)))
    (tmp_path / "out").write_bytes(recorder.transactions[4].database)
    (tmp_path / "out").chmod(0o640)
    held = (tmp_path / "out").open("rb")
    again = await restore(store, RestoreRequest(path=tmp_path / "out", target=txid(4), force=True))
    with held:
        assert held.read() == recorder.transactions[4].database
    assert (again.reused_bytes, plain.reused_bytes) == (len(recorder.transactions[4].database), 0)
    assert again.fetched_bytes < plain.fetched_bytes / 10
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


async def test_a_partly_different_copy_lends_a_part(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """An old file of any content, and of another length, lends just the chunks that are right."""
    await stored(recorder, store)
    old = bytearray(recorder.transactions[4].database)
    old[100_000:100_010] = b"0123456789"
    (tmp_path / "out").write_bytes(old[:-4096])
    restored = await restore(store, RestoreRequest(path=tmp_path / "out", target=txid(4), force=True))
    assert (tmp_path / "out").read_bytes() == recorder.transactions[4].database
    assert 0 < restored.reused_bytes < len(old)


async def test_force_keeps_the_old_file_until_the_new_one_is_proven(
    recorder: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """TRAP: `--force` never deletes the old file before the new one stands, whatever fails on the way.

    Seen to fail with the target unlinked at the beginning. Cut off after each possible number of requests.
    """
    await stored(recorder, store)

    dying = DyingStore(store)
    (tmp_path / "t").mkdir()
    out = tmp_path / "t" / "out"
    failures = 0
    while True:
        out.write_bytes(b"mine")
        (tmp_path / "t" / "out-wal").write_bytes(b"its wal")
        dying.left = failures
        try:
            await restore(dying, RestoreRequest(path=out, force=True, target=txid(4)))
        except StoreUnreachable:
            failures += 1
        else:
            break
        assert {found.name: found.read_bytes() for found in (tmp_path / "t").iterdir()} == {
            "out": b"mine",
            "out-wal": b"its wal",
        }
    assert failures > 5, "start, manifest, and each of the chunks"
    assert out.read_bytes() == recorder.transactions[4].database


async def test_a_stale_wal_is_not_replayed(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: a stale `-wal` beside a missing database is moved aside, and reported.

    Seen to fail without moving it: SQLite showed rows of the WAL in the restored database.
    """
    await stored(recorder, store)
    (tmp_path / "t").mkdir()
    wal = recorder.path.with_name("app.db-wal").read_bytes()
    (tmp_path / "t" / "out-wal").write_bytes(wal)
    clock = ManualClock(T0_MS)
    restored = await restore(store, RestoreRequest(path=tmp_path / "t" / "out", target=txid(1)), clock=clock)
    assert [aside.name for aside in restored.moved_aside] == ["out.replaced-20251121T020000Z-wal"]
    assert restored.moved_aside[0].read_bytes() == wal
    with closing(sqlite3.connect(tmp_path / "t" / "out")) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


async def test_a_link_is_followed(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """A link at the target stays, and the database stands where it leads."""
    await stored(recorder, store)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "real.db")
    restored = await restore(store, RestoreRequest(path=tmp_path / "link"))
    assert restored.path == tmp_path / "deep" / "real.db"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == recorder.transactions[7].database


# --- limits -----------------------------------------------------------------------------------


async def test_concurrent_restores_of_one_target(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: of concurrent restores of one target one wins, and the other is told; nothing is mixed.

    Seen to fail without the lock: both ended, the one's file replaced by the other's.
    """
    await stored(recorder, store)
    slow = SlowStore()
    slow._objects = store._objects
    requests = (RestoreRequest(path=tmp_path / "t" / "out", target=txid(number)) for number in (4, 7))
    results = await asyncio.gather(*(restore(slow, request) for request in requests), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Restored", "TargetBusy"]
    assert any(isinstance(result, TargetBusy) for result in results)
    (won,) = (result for result in results if isinstance(result, Restored))
    assert (tmp_path / "t" / "out").read_bytes() == recorder.transactions[won.txid].database
    assert files(tmp_path / "t") == ["out"]


@pytest.mark.parametrize("limits", [Limits(concurrency=1, threads=1, memory_bytes=1), Limits(concurrency=3)])
async def test_whatever_the_limits(recorder: Recorder, store: MemoryStore, tmp_path: Path, limits: Limits) -> None:
    """The least that can be given is enough, and never are more requests under way than allowed."""
    await stored(recorder, store)
    slow = SlowStore()
    slow._objects = store._objects
    await restore(slow, RestoreRequest(path=tmp_path / "out", limits=limits, target=txid(7)))
    assert (tmp_path / "out").read_bytes() == recorder.transactions[7].database
    assert slow.most <= max(limits.concurrency, 2), "reading the history has a limit of its own"


async def test_of_a_large_segment_only_what_is_needed_is_fetched(store: MemoryStore, tmp_path: Path) -> None:
    """A segment beyond 4 MiB is read by ranges: its index, and blocks that hold the last version of some page."""
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db") as recorder:
        recorder.fill(8_000)
        recorder.commit("DELETE FROM t WHERE id > 1500")
        recorder.commit("VACUUM")
        recorder.fill(10)
        await recorder.start(store)
        await recorder.snapshot(store, 1)
        large = await recorder.segment(store, 2, 4)
        await recorder.segment(store, 5)
        size_bytes = len(await store.get(large))
        assert size_bytes > WHOLE_BYTES
        for number in (2, 3, 4, 5):
            path = tmp_path / f"{number}"
            watched = Watched()
            restored = await restore(store, RestoreRequest(path=path, target=txid(number)), watched)
            assert path.read_bytes() == recorder.transactions[number].database
            assert (watched.done_bytes, watched.ended) == (watched.total_bytes, True)
        assert restored.fetched_bytes < size_bytes / 2


async def test_progress_adds_up_and_the_estimate_holds(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """What is told as done ends at the total, and a dry run's numbers are what a restore then takes at most."""
    await stored(recorder, store)
    for number in recorder.transactions:
        request = RestoreRequest(path=tmp_path / f"{number}", target=txid(number))
        before = files(tmp_path)
        foreseen: Estimate = await estimate(store, request)
        assert files(tmp_path) == before
        watched = Watched()
        restored = await restore(store, request, watched)
        assert (watched.done_bytes, watched.ended) == (watched.total_bytes, True)
        assert restored.position == foreseen.position
        assert restored.fetched_bytes <= foreseen.fetched_bytes
        assert restored.requests <= foreseen.requests
        assert foreseen.database_bytes == (tmp_path / f"{number}").stat().st_size


async def test_no_space_is_known_before_anything_is_fetched(store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: no space for the temporary file is found out first, and leaves nothing behind.

    Seen to fail without the look at the free space: a sparse file of 8 TiB was made.
    """
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db") as recorder:
        recorder.fill(10)
        grown = recorder.transactions[2]
        object.__setattr__(grown, "pages", 1 << 31)
        await recorder.start(store)
        await recorder.snapshot(store, 1)
        await recorder.segment(store, 2)
    (tmp_path / "t").mkdir()
    with pytest.raises(NoSpace, match=f"needs {1 << 43} bytes"):
        await restore(store, RestoreRequest(path=tmp_path / "t" / "out"))
    assert files(tmp_path / "t") == []


async def test_a_cancelled_restore_leaves_nothing(recorder: Recorder, store: MemoryStore, tmp_path: Path) -> None:
    """TRAP: SIGTERM during a restore (a cancelled task) leaves neither file nor lock nor task nor thread.

    Cancelled while it waits for each of its requests. Seen to fail without `_clean_up`.
    """
    await stored(recorder, store)
    (tmp_path / "t").mkdir()
    request = RestoreRequest(path=tmp_path / "t" / "out", target=txid(4), limits=Limits(concurrency=1))
    seen: set[str] = set()
    for number in range(20):
        halting = HaltingStore(store, after=number)
        task = asyncio.create_task(restore(halting, request))
        halted = asyncio.create_task(halting.halted.wait())
        await asyncio.wait([task, halted], return_when=asyncio.FIRST_COMPLETED)
        halted.cancel()
        if task.done():
            break
        seen.update(name.rpartition("-")[2].rpartition(".")[2] for name in files(tmp_path / "t"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert files(tmp_path / "t") == []
    assert number > 4
    assert seen == {"lock", "tmp"}, "it was cancelled while both were there"
    assert (tmp_path / "t" / "out").read_bytes() == recorder.transactions[4].database


async def test_a_restore_cancelled_at_any_step_leaves_nothing(
    recorder: Recorder, store: MemoryStore, tmp_path: Path
) -> None:
    """Also between two requests, while a thread makes, locks, proves or renames, nothing is left behind.

    Seen to fail when what a thread had opened was only known by its return value, which a cancelled caller never
    gets: a lock file or a temporary file stayed.
    """
    await stored(recorder, store)
    (tmp_path / "t").mkdir()
    steps = 0
    while True:
        task = asyncio.create_task(restore(store, RestoreRequest(path=tmp_path / "t" / "out", target=txid(4))))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert set(files(tmp_path / "t")) <= {"out"}, "it may have been in place by then"
        (tmp_path / "t" / "out").unlink(missing_ok=True)
        steps += 1 + steps // 20
    assert files(tmp_path / "t") == ["out"]


# --- what is not there ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (txid(1), TargetOutsideWindow),
        (txid(9), TargetOutsideWindow),
        (AtTime(T0_MS), TargetOutsideWindow),
        (txid(5), HistoryGap),
        (AtTime(T0_MS + round(4.5 * STEP_MS)), HistoryGap),
    ],
    ids=str,
)
async def test_a_target_that_cannot_be_reached_is_an_error(
    recorder: Recorder, store: MemoryStore, tmp_path: Path, target: Target, error: type[Exception]
) -> None:
    """TRAP: outside the window or in a gap nothing is restored, and no file is made.

    Seen to fail with the plan's errors turned into the nearest older transaction.
    """
    await recorder.start(store)
    await recorder.snapshot(store, 2)
    await recorder.segment(store, 3, 4)
    await recorder.snapshot(store, 6)
    await recorder.segment(store, 7)
    with pytest.raises(error) as caught:
        await restore(store, RestoreRequest(path=tmp_path / "out", target=target))
    assert "TXID" in str(caught.value)
    assert files(tmp_path) == ["source"]


async def test_no_backup(store: MemoryStore, tmp_path: Path) -> None:
    """An empty store is its own error, and not even the folder of the target is made."""
    with pytest.raises(NoBackup, match="memory://bucket"):
        await restore(store, RestoreRequest(path=tmp_path / "missing" / "out"))
    assert files(tmp_path) == []


async def test_sqlite_s_own_check_stops_a_bad_source(store: MemoryStore, tmp_path: Path) -> None:
    """With `integrity`, a source that was corrupt already is not put in place, though it is restored faithfully."""
    (tmp_path / "source").mkdir()
    with Recorder(path=tmp_path / "source" / "app.db") as recorder:
        recorder.fill(100)
        found = recorder.transactions[2]
        broken = found.database[:8192] + os.urandom(4096) + found.database[12288:]
        page = broken[8192:12288]
        recorder._table.write([3], [page])
        object.__setattr__(found, "database", broken)
        object.__setattr__(found, "checksum", recorder._table.commit(found.pages))
        await recorder.start(store)
        await recorder.snapshot(store, 2)
    (tmp_path / "t").mkdir()
    with pytest.raises(ProofFailed, match="PRAGMA quick_check"):
        await restore(store, RestoreRequest(path=tmp_path / "t" / "out", integrity=Integrity.QUICK))
    assert files(tmp_path / "t") == []
    await restore(store, RestoreRequest(path=tmp_path / "t" / "out"))
    assert (tmp_path / "t" / "out").read_bytes() == broken


# --- any history ------------------------------------------------------------------------------

STATEMENTS = st.sampled_from(
    [
        "INSERT INTO t (body) SELECT randomblob(900) FROM (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3)",
        "INSERT INTO t (body) SELECT zeroblob(1500) FROM (VALUES (1), (2), (3), (4)), (VALUES (1), (2), (3), (4), (5))",
        "UPDATE t SET body = randomblob(700) WHERE id % 3 = 0",
        "DELETE FROM t WHERE id % 4 > 1",
        "CREATE TABLE IF NOT EXISTS u AS SELECT * FROM t",
        "DROP TABLE IF EXISTS u",
        "VACUUM",
    ]
)


@given(
    statements=st.lists(STATEMENTS, min_size=1, max_size=9),
    snapshots=st.sets(st.integers(1, 10), max_size=3),
    spans=st.lists(st.tuples(st.integers(2, 10), st.integers(0, 4)), max_size=6),
    data=st.data(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_gives_the_exact_database_or_an_error(
    tmp_path_factory: pytest.TempPathFactory,
    statements: list[str],
    snapshots: set[int],
    spans: list[tuple[int, int]],
    data: st.DataObject,
) -> None:
    """Whatever was written, however it was cut into segments and snapshots: exactly that transaction, or an error."""
    folder = tmp_path_factory.mktemp("any")
    store = MemoryStore()

    async def run() -> None:
        with Recorder(path=folder / "app.db") as recorder:
            recorder.commit("INSERT INTO t (body) VALUES (1)")
            for statement in statements:
                recorder.commit(statement)
            await recorder.start(store)
            await recorder.snapshot(store, 1)
            for number in snapshots & recorder.transactions.keys():
                await recorder.snapshot(store, number, chunk_pages=data.draw(st.integers(1, 20)))
            for first, more in [*spans, *((number, 0) for number in range(2, recorder.newest + 1))]:
                if first <= recorder.newest and data.draw(st.integers(0, 7)):
                    await recorder.segment(store, first, min(first + more, recorder.newest), block_bytes=20_000)
            for number in recorder.transactions:
                request = RestoreRequest(path=folder / "out", target=txid(number), force=True)
                try:
                    restored = await restore(store, request)
                except (HistoryGap, TargetOutsideWindow):
                    continue
                assert restored.txid == number
                assert (folder / "out").read_bytes() == recorder.transactions[number].database

    asyncio.run(run())
