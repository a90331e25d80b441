"""When snapshots are taken, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import apsw

from replicad.snapshot import decode_manifest
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    import pytest

    from tests.unit.replicate.conftest import Stage


def reasons(stage: Stage) -> list[str]:
    """Return why each snapshot was taken."""
    return [line["reason"] for line in stage.found("snapshot_stored")]


async def test_nothing_is_sent_before_the_first_snapshot(stage: Stage) -> None:
    """A segment without a snapshot below it could not be restored: it waits, and so does who asks for a sync."""
    stage.insert(0)
    stage.store.shut = ("put", "/snapshots/")
    await stage.start()
    stage.insert(1, 2)
    syncing = asyncio.create_task(stage.sync())
    await wait_until_async(lambda: stage.store.count("put", "/snapshots/"))
    for number in range(3, 10):
        stage.insert(number)
        await asyncio.sleep(0.01)
    assert not stage.store.count("put", "/log/")
    assert not syncing.done()
    stage.store.shut = None
    await syncing
    await stage.sync()
    assert await stage.check_newest() == 10


async def test_a_log_that_outweighs_the_database(stage: Stage) -> None:
    """When the log is heavier than the database as stored, a snapshot is taken without anybody asking.

    Updates of the same rows make the log grow, and not the database.
    """
    stage.flags |= {"snapshot_interval": "1h", "snapshot_log_ratio": "0.1"}
    stage.fill(0, 1200)
    await stage.start()
    await stage.until("snapshot_stored")
    for _ in range(40):
        stage.connection.execute("UPDATE t SET v = randomblob(10000) WHERE n < 500")
        await stage.sync()
        if len(reasons(stage)) > 1:
            break
    await stage.until("snapshot_stored", 2)
    assert reasons(stage)[0] == "first"
    assert reasons(stage)[1] == "log_outweighs_snapshot"
    await stage.sync()
    await stage.check_newest()


async def test_many_small_segments(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that have become many make a snapshot due, and only when they have paid for what it sends.

    The same few megabytes are written to again and again, and no row can be compressed. Seen to fail with the written
    extents left out: the snapshot came of little more than a megabyte.
    """
    monkeypatch.setattr("replicad.plan.snapshot.FEW_SEGMENTS", 20)
    stage.flags |= {"snapshot_interval": "1h"}
    stage.fill(0, 1200)
    await stage.start()
    await stage.until("snapshot_stored")
    for _ in range(1000):
        stage.connection.execute("UPDATE t SET v = randomblob(20000) WHERE n = 600")
        await stage.sync()
        if len(reasons(stage)) > 1:
            break
    assert reasons(stage) == ["first", "many_segments"]
    taken = stage.found("snapshot_stored")[1]["txid"]
    paid = [line["stored_bytes"] for line in stage.found("segment_shipped") if line["last_txid"] <= taken]
    assert sum(paid) > 2 << 20


async def test_a_request_during_an_outage(stage: Stage) -> None:
    """A snapshot that is asked for while the store is away is stored when it is back, and then answered."""
    await stage.begin()
    stage.store.reachable = False
    stage.insert(2)
    asking = asyncio.create_task(stage.follower.snapshot("command"))
    await stage.until("store_unreachable")
    assert not asking.done()
    stage.store.reachable = True
    manifest = await asyncio.wait_for(asking, 20)
    stored = [decode_manifest(body, what=key) for key, body in (await stage.objects()).items() if "/snapshots/" in key]
    assert manifest in stored
    assert manifest.reason == "command"


async def test_one_who_gives_up_does_not_take_it_from_the_others(stage: Stage) -> None:
    """Two wait for one snapshot; one goes away; the other still gets it."""
    await stage.begin()
    stage.store.shut = ("put", "/snapshots/")
    stage.insert(2)
    first, second = (asyncio.create_task(stage.follower.snapshot("command")) for _ in range(2))
    await wait_until_async(lambda: stage.store.count("put", "/snapshots/") > 1)
    first.cancel()
    await asyncio.wait((first,))
    stage.store.shut = None
    manifest = await asyncio.wait_for(second, 20)
    assert first.cancelled()
    assert manifest.txid == 3
    assert reasons(stage).count("command") == 1


async def test_the_interval_goes_on_across_a_restart(stage: Stage) -> None:
    """A daemon that is restarted more often than the interval takes its snapshots all the same.

    The age of the newest one counts, not that of the process. Seen to fail with the time since the start in its place.
    """
    stage.flags |= {"snapshot_interval": "2s"}
    await stage.begin()
    for number in range(2, 40):
        await stage.stop()
        await stage.start()
        stage.insert(number)
        await stage.sync()
        if "interval" in reasons(stage):
            break
        await asyncio.sleep(0.1)
    assert "interval" in reasons(stage)


async def test_the_first_snapshot_beside_a_busy_application(stage: Stage) -> None:
    """A database that is written without a pause when replicad starts gets its first snapshot, in the first session.

    Seen to fail when transactions in front of the owed snapshot had to be kept: memory was full of them, no state could
    be held still, and one session after the other began anew for as long as the application wrote.
    """
    stage.flags |= {"segment_bytes": "256KiB", "upload_concurrency": "1"}
    stage.fill(0, 2000)
    stop = threading.Event()

    def write() -> int:
        connection = apsw.Connection(str(stage.path))
        connection.set_busy_timeout(20_000)
        connection.pragma("synchronous", 0)
        number = 10_000
        while not stop.is_set():
            connection.execute("INSERT INTO t VALUES (?, randomblob(3000))", (number,))
            number += 1
        connection.close()
        return number

    with ThreadPoolExecutor(1) as writers:
        writing = writers.submit(write)
        try:
            await stage.start()
            await stage.until("snapshot_stored")
            assert not writing.done()
        finally:
            stop.set()
        await asyncio.wrap_future(writing)
    assert len(stage.found("capture_started")) == 1
    await stage.sync(60)
    await stage.check_newest()
