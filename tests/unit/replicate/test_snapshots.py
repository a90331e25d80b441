"""Snapshots by the pieces: what is read, what is sent, what is proven."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import apsw
import pytest

from replicad.layout import parse_chunk, parse_manifest
from replicad.snapshot import decode_manifest
from tests.support.oracle import StoredHistory
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from replicad.snapshot import Manifest
    from tests.unit.replicate.conftest import Stage

MANY = 300  # rows of 10 kB: some chunks of 1 MiB


async def chunks_stored(stage: Stage) -> set[str]:
    """Return the names of all chunks in the store."""
    return {found[1] for key in await stage.objects() if (found := parse_chunk(key))}


async def begun(stage: Stage, rows: int = MANY) -> Manifest:
    """Follow a database of some chunks, and take a snapshot of it."""
    stage.fill(0, rows)
    stage.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    await stage.start()
    await stage.until("snapshot_stored")
    newest = stage.follower.following.snapshots.newest
    assert newest is not None
    return newest


async def test_a_snapshot_is_the_database(stage: Stage) -> None:
    """Its chunks, one after another, are the database, page for page, under the checksum that the manifest names."""
    manifest = await begun(stage)
    assert len(manifest.chunks) == 3
    assert await stage.check_newest() == manifest.txid
    assert {chunk.name for chunk in manifest.chunks} == await chunks_stored(stage)


async def test_a_snapshot_costs_what_changed(stage: Stage) -> None:
    """Chunks that the newest manifest lists are not sent again; one that was written to is."""
    first = await begun(stage)
    before = await chunks_stored(stage)
    await stage.follower.snapshot("command")
    assert await chunks_stored(stage) == before
    stage.connection.execute("UPDATE t SET v = randomblob(10000) WHERE n = 1")
    second = await stage.follower.snapshot("command")
    new = await chunks_stored(stage) - before
    assert len(new) == 1
    assert len({chunk.name for chunk in second.chunks} - {chunk.name for chunk in first.chunks}) == 1
    assert await stage.check_newest() == second.txid


async def test_only_what_was_written_is_read(stage: Stage) -> None:
    """A snapshot reads the chunks that were written to since the last one, and no other: a large database rests.

    Seen to fail with every chunk read: the damage in a chunk that nobody wrote to was found.
    """
    await begun(stage)
    stage.connection.execute("UPDATE t SET v = randomblob(10000) WHERE n = 1")
    await stage.sync()
    damage(stage, page=300)  # in the second chunk
    await stage.follower.snapshot("command")
    assert not stage.found("snapshot_failed")


async def test_a_snapshot_proves_what_it_reads(stage: Stage) -> None:
    """Pages that are not what was read from the WAL end the snapshot; the state that stands there is sent."""
    manifest = await begun(stage)
    stage.connection.execute("UPDATE t SET v = randomblob(10000) WHERE n = 298")
    await stage.sync()
    damage(stage, page=600)  # in the third chunk, as that row
    asking = asyncio.create_task(stage.follower.snapshot("command"))
    await stage.until("resynchronised")
    later = await asking
    (failed,) = stage.found("snapshot_failed")
    assert "page 600" in failed["error"]
    assert later.txid == manifest.txid + 2
    assert await stage.check_newest() == later.txid


def damage(stage: Stage, *, page: int) -> None:
    """Change a byte of a page past SQLite, by way of its own file layer: another descriptor would drop our locks."""
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
    file = apsw.VFSFile("", str(stage.path), [flags, 0])
    at = (page - 1) * 4096 + 2000
    file.xWrite(bytes([file.xRead(1, at)[0] ^ 1]), at)
    file.xClose()


async def test_a_broken_snapshot_goes_on_where_it_was(stage: Stage) -> None:
    """Chunks that were stored before an outage are not sent again, and no manifest stands before its chunks."""
    stage.flags |= {"upload_concurrency": "1"}
    stage.fill(0, MANY)
    stage.store.shut = ("put", "/snapshots/")
    await stage.start()
    await stage.until("store_unreachable")
    assert len(await chunks_stored(stage)) == 3
    assert not [key for key in await stage.objects() if parse_manifest(key)]
    stage.store.shut = None
    await stage.until("snapshot_stored")
    puts = [call.key for call in stage.store.calls if call.verb == "put" and "/chunks/" in call.key]
    assert len(puts) == len(set(puts)) == 3


async def test_a_new_pin_reads_what_was_written_meanwhile(stage: Stage) -> None:
    """A snapshot that goes on under another pin keeps what it has read, but for what was written to since.

    Seen to fail with every chunk read again: the damage in one that was read before was found.
    """
    stage.flags |= {"upload_concurrency": "1"}
    await begun(stage)
    stage.connection.execute("UPDATE t SET v = randomblob(10000)")
    await stage.truncate()
    stage.store.shut = ("put", "/chunks/")
    asking = asyncio.create_task(stage.follower.snapshot("command"))
    await wait_until_async(lambda: any(call.fault == "shut" for call in stage.store.calls))
    damage(stage, page=100)  # in the first chunk, which has been read
    stage.connection.execute("UPDATE t SET v = randomblob(10000) WHERE n = 299")
    await stage.truncate()
    stage.store.shut = None
    manifest = await asking
    assert not stage.found("snapshot_failed")
    damage(stage, page=100)
    assert await stage.check_newest() == manifest.txid


async def test_an_earlier_process_counts(stage: Stage) -> None:
    """What a process before this one stored is known from its manifest: a restart sends no chunk again."""
    await begun(stage)
    stage.insert(1000)
    await stage.sync()
    await stage.stop()
    before = await chunks_stored(stage)
    await stage.start()
    assert stage.follower.following.snapshots.newest is not None
    stage.insert(1001)
    await stage.follower.snapshot("command")
    assert len(await chunks_stored(stage) - before) <= 1
    await stage.check_newest()


async def test_pages_that_come_back(stage: Stage) -> None:
    """A database that shrinks and grows again has in its snapshot the pages that stand there now, written or not."""
    await begun(stage)
    stage.connection.execute("DELETE FROM t WHERE n > 5; VACUUM")
    await stage.follower.snapshot("command")
    await stage.check_newest()
    stage.fill(2000, 250)
    await stage.follower.snapshot("command")
    await stage.check_newest()


async def test_snapshots_asked_for_together(stage: Stage) -> None:
    """Several requests at a time are answered by one snapshot, of a state no older than any of them."""
    await begun(stage, rows=3)
    stage.insert(50)
    manifests = await asyncio.gather(*(stage.follower.snapshot("command") for _ in range(5)))
    assert len({manifest.txid for manifest in manifests}) == 1
    assert manifests[0].txid == 2
    assert manifests[0].reason == "command"


async def test_the_interval(stage: Stage) -> None:
    """A database that changes is stored anew after the interval; one that does not is left alone."""
    stage.flags |= {"snapshot_interval": "1s"}
    await begun(stage, rows=3)
    stage.insert(100)
    await stage.until("snapshot_stored", 2)
    history = StoredHistory(await stage.objects())
    assert history.newest()[0] == 2
    assert [line["reason"] for line in stage.found("snapshot_stored")] == ["first", "interval"]


async def test_a_manifest_can_be_read_back(stage: Stage) -> None:
    """What is stored as a manifest says what was told of it."""
    manifest = await begun(stage, rows=3)
    ((key, body),) = [(key, body) for key, body in (await stage.objects()).items() if parse_manifest(key)]
    assert decode_manifest(body, what=key) == manifest


@pytest.mark.parametrize("what", ["", "claims/", "start.json", "/snapshots/", "/chunks/", "/log/"])
async def test_a_bucket_that_somebody_empties(stage: Stage, what: str) -> None:
    """What a lifecycle rule or a hand deletes while the daemon runs is noticed, and healed, by the next snapshot.

    Seen to fail without a look: only the chunks that had changed were sent, and no restore was possible any more.
    """
    await begun(stage)
    stage.insert(1000)
    await stage.sync()
    await stage.store.store.delete([key for key in await stage.objects() if what in key])
    stage.insert(1001)
    await stage.sync()
    manifest = await stage.follower.snapshot("command")
    assert bool(stage.found("objects_lost")) is (what != "/log/")
    assert await stage.check_newest() == manifest.txid
    stage.insert(1002)
    await stage.sync()
    await stage.check_newest()
    await stage.stop()
    stage.lose_disk()
    await stage.start()
    assert stage.connection.execute("SELECT max(n) FROM t").get == 1002


async def test_the_compression_level_is_the_one_that_was_set(stage: Stage) -> None:
    """A snapshot is compressed as `compression_level` says: a higher level stores fewer bytes of the same rows.

    Seen to fail with a level of the code's own.
    """
    sizes = []
    for number, level in enumerate(("-7", "19")):
        stage.flags |= {"compression_level": level}
        if number == 0:
            text = " ".join(str(number * number) for number in range(200_000))
            stage.connection.execute("INSERT INTO t VALUES (1, ?)", (text,))
        await stage.start()
        await stage.until("snapshot_stored", number + 1)
        newest = stage.follower.following.snapshots.newest
        assert newest is not None
        sizes.append(newest.stored_bytes)
        await stage.stop()
        await stage.store.store.delete(list(await stage.objects()))
    assert sizes[1] < 0.8 * sizes[0]
